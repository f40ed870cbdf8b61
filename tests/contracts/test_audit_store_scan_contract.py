"""How every audit store counts its records, goes through them, and samples them."""

import pytest

from gateway.errors import InvalidInput
from gateway.ports import AuditStore, Filter, Sampled
from gateway.record import Frame
from tests.contracts.audit_store import fill, frames_of, scanned
from tests.records import (
    DAY,
    NEXT_DAY,
    NOON_NS,
    OTHER_JOURNAL,
    ChainedJournal,
    control_record,
    new_record,
    shadow_of,
)

MS = 1_000_000


# ── counting and going through ───────────────────────────────────────────────────────────────────────────────────────


def test_a_scan_has_records_in_the_order_they_were_recorded_day_by_day(audit: AuditStore) -> None:
    mine, others = ChainedJournal(), ChainedJournal(OTHER_JOURNAL)
    frames: list[Frame] = []
    for number in range(1_300):
        chain = mine if number % 3 else others
        frames.append(chain.frame(new_record(9_999 - number)))
    fill(audit, frames[:600], DAY)
    fill(audit, frames[600:1_200], DAY)
    fill(audit, frames[1_200:], NEXT_DAY)
    kept = scanned(audit)
    assert frames_of(kept) == frames
    assert [one.day for one in kept] == [DAY] * 1_200 + [NEXT_DAY] * 100
    assert audit.count(Filter()) == 1_300


def test_a_scan_comes_in_chunks_and_without_parts_unless_they_are_asked_for(audit: AuditStore) -> None:
    chain = ChainedJournal()
    frames = [chain.frame(new_record(number), b"q" * 40_000, b"a" * 40_000) for number in range(200)]
    fill(audit, frames, DAY)
    with_contents = [list(chunk) for chunk in audit.scan(Filter(), contents=True)]
    assert frames_of(kept for chunk in with_contents for kept in chunk) == frames
    assert len(with_contents) > 1  # 16 MB at once is too much
    bare = scanned(audit, contents=False)
    assert [(one.frame.request, one.frame.response) for one in bare] == [(b"", b"")] * 200
    assert [(one.frame.sealed, one.frame.chain) for one in bare] == [(one.sealed, one.chain) for one in frames]


def test_records_that_come_during_a_scan_do_not_disturb_it(audit: AuditStore) -> None:
    chain = ChainedJournal()
    frames = chain.frames(*(new_record(number) for number in range(1_100)))
    fill(audit, frames, DAY)
    scan = audit.scan(Filter(), contents=False)
    seen = list(next(scan))
    fill(audit, chain.frames(*(new_record(number) for number in range(2_000, 2_010))), DAY)
    seen += [kept for chunk in scan for kept in chunk]
    assert [kept.frame.sequence for kept in seen][:1_100] == list(range(1, 1_101))


@pytest.mark.parametrize("name", ["version", "status", "outcome", "reason", "caller", "gateway", "action"])
def test_only_model_role_and_times_can_be_counted_and_scanned(audit: AuditStore, name: str) -> None:
    wanted = Filter(**{name: 1 if name == "status" else "1"})  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=name):
        audit.count(wanted)
    with pytest.raises(InvalidInput, match=name):
        list(audit.scan(wanted, contents=False))


# ── samples ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_sample_has_what_each_decision_looked_at_newest_first(audit: AuditStore) -> None:
    plain = new_record(1)
    rich = new_record(
        2, keyed=False, headers={"x-tenant": "ä"}, asked_version="2", intended="2", cohort_revision=3, reason="explicit"
    )
    fill(audit, ChainedJournal().frames(plain, rich), DAY)
    assert list(audit.sample("fraud", 0, 10)) == [
        Sampled(rich.record_id, rich.received_ns, (2).to_bytes(16, "big"), False, {"x-tenant": "ä"}, "2", "2", 4, 3),
        Sampled(plain.record_id, plain.received_ns, (1).to_bytes(16, "big"), True, {}, None, "1", 4, None),
    ]


def test_only_primaries_that_a_rule_decided_are_sampled(audit: AuditStore) -> None:
    first, failed = new_record(1), new_record(6, outcome="failed", served=None)
    records = [
        first,
        shadow_of(first, 1),
        new_record(2, intended=None, reason=None, rule=None, outcome="refused", served=None),
        new_record(3, model="other"),
        new_record(4, unit=None),
        new_record(5, unit="no hex"),
        control_record(7, "audit.list", model="fraud"),
        failed,
    ]
    fill(audit, ChainedJournal().frames(*records), DAY)
    assert [one.record_id for one in audit.sample("fraud", 0, 10)] == [failed.record_id, first.record_id]
    assert list(audit.sample("nobody", 0, 10)) == []
    assert list(audit.sample("\ud800", 0, 10)) == []


def test_a_sample_begins_at_its_time_and_ends_with_the_newest_so_many_over_all_days(audit: AuditStore) -> None:
    records = [new_record(number) for number in (0, 5, 2, 7, 4, 9, 6, 1, 8, 3)]
    frames = ChainedJournal().frames(*records)
    for nth, day in enumerate((DAY, NEXT_DAY, "2026-11-27", "2026-11-28", "2026-11-29")):
        fill(audit, frames[2 * nth : 2 * nth + 2], day)
    newest_first = [new_record(number).record_id for number in reversed(range(10))]
    since = NOON_NS + 4 * MS
    assert [one.record_id for one in audit.sample("fraud", since, 100)] == newest_first[:6]
    for limit in range(12):
        assert [one.record_id for one in audit.sample("fraud", 0, limit)] == newest_first[:limit]
    assert list(audit.sample("fraud", 2**70, 3)) == []
    assert len(audit.sample("fraud", -(2**70), 100)) == 10
