"""How every audit store lists, samples, counts and goes through its records."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidInput
from gateway.ports import AuditStore, Filter
from gateway.record import Frame, Record
from tests.contracts.audit_store import fill, frames_of, listed, scanned
from tests.records import (
    DAY,
    NEXT_DAY,
    NOON_NS,
    ChainedJournal,
    control_record,
    new_record,
    shadow_of,
)

MS = 1_000_000
# Of each field a value that most records have, and one that few have.
VARIED: dict[str, tuple[Any, Any]] = {
    "model": ("fraud", "digits"),
    "served": ("1", None),
    "intended": ("1", "2"),
    "status": (200, 500),
    "outcome": ("served", "failed"),
    "reason": ("split", "pin"),
    "client": ("127.0.0.1", "127.0.0.2"),
    "gateway": ("gw-a", "gw-b"),
}
FILTERS = {
    "model": "digits",
    "version": "2",
    "status": 500,
    "outcome": "failed",
    "reason": "pin",
    "role": "shadow",
    "caller": "127.0.0.2",
    "gateway": "gw-b",
    "action": "audit.erase",
    "since_ns": NOON_NS + 20 * MS,
    "until_ns": NOON_NS + 40 * MS,
}


def _varied(count: int) -> list[Record]:
    """Return records that mix the values of VARIED, some with shadows, and control records between them."""
    records: list[Record] = []
    for number in range(count):
        fields = {name: pair[number * 2_654_435_761 >> 9 + nth & 1] for nth, (name, pair) in enumerate(VARIED.items())}
        primary = new_record(number * 7 % count, **fields)
        records.append(primary)
        if number % 5 == 0:
            records.append(shadow_of(primary, number))
        if number % 9 == 0:
            records.append(control_record(1_000 + number * 7 % count, "audit.erase" if number % 2 else "audit.list"))
    return records


def _fits(record: Record, wanted: Filter) -> bool:
    said = {
        "model": record.model,
        "version": record.served if record.served is not None else record.intended,
        "status": record.status,
        "outcome": record.outcome,
        "reason": record.reason,
        "role": record.role,
        "caller": record.client,
        "gateway": record.gateway,
        "action": record.action,
    }
    return (
        all(getattr(wanted, name) in {None, value} for name, value in said.items())
        and (wanted.since_ns is None or record.received_ns >= wanted.since_ns)
        and (wanted.until_ns is None or record.received_ns < wanted.until_ns)
    )


def _two_days(audit: AuditStore, count: int = 64) -> list[tuple[str, Frame]]:
    """Fill two days whose times overlap, and return the frames in the order of recording."""
    frames = ChainedJournal().frames(*_varied(count))
    half = len(frames) // 2
    fill(audit, frames[:half], DAY)
    fill(audit, frames[half:], NEXT_DAY)
    return [(DAY if nth < half else NEXT_DAY, frame) for nth, frame in enumerate(frames)]


def _expected(kept: Sequence[tuple[str, Frame]], wanted: Filter) -> list[tuple[str, int]]:
    fitting = [(day, frame.record.received_ns) for day, frame in kept if _fits(frame.record, wanted)]
    return sorted(fitting, reverse=True)


def _ids(records: Sequence[Record]) -> list[str]:
    return [record.record_id for record in records]


# ── pages ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_a_listing_has_every_record_once_newest_first_by_day_and_time(audit: AuditStore, limit: int) -> None:
    kept = _two_days(audit)
    days = {frame.record.record_id: day for day, frame in kept}
    found = listed(audit, limit=limit)
    assert [(days[record.record_id], record.received_ns) for record in found] == _expected(kept, Filter())
    assert sorted(_ids(found)) == sorted(days)


@pytest.mark.parametrize("name", FILTERS)
def test_a_listing_is_of_the_records_that_fit_each_field_of_its_filter(audit: AuditStore, name: str) -> None:
    kept = _two_days(audit)
    wanted = Filter(**{name: FILTERS[name]})  # type: ignore[arg-type]
    found = listed(audit, wanted)
    assert 0 < len(found) < len(kept)
    assert [record.received_ns for record in found] == [at_ns for _, at_ns in _expected(kept, wanted)]
    assert all(_fits(record, wanted) for record in found)


def test_a_listing_of_times_in_which_nothing_came_is_empty_whatever_else_it_asks_for(audit: AuditStore) -> None:
    kept = _two_days(audit)
    times = sorted(frame.record.received_ns for _, frame in kept)
    since_ns, until_ns = next((at + 1, later) for at, later in pairwise(times) if later - at > 1)
    for name in FILTERS.keys() - {"since_ns", "until_ns"}:
        for first, end in ((since_ns, until_ns), (until_ns, since_ns)):
            wanted: dict[str, Any] = {name: FILTERS[name], "since_ns": first, "until_ns": end}
            assert listed(audit, Filter(**wanted)) == []


_filters = st.builds(
    Filter,
    model=st.sampled_from([None, None, "fraud", "digits", "", "nobody"]),
    version=st.sampled_from([None, None, "1", "2", "3"]),
    status=st.sampled_from([None, None, 200, 500, -1, 2**70]),
    outcome=st.sampled_from([None, None, "served", "failed", "refused", "lost"]),
    reason=st.sampled_from([None, None, "split", "pin", "shadow"]),
    role=st.sampled_from([None, None, "primary", "shadow", "control", "other"]),
    caller=st.sampled_from([None, None, "127.0.0.1", "127.0.0.2", "\ud800"]),
    gateway=st.sampled_from([None, None, "gw-a", "gw-b"]),
    action=st.sampled_from([None, None, None, "audit.erase", "audit.list"]),
    since_ns=st.sampled_from([None, None, 0, NOON_NS + 10 * MS, NOON_NS + 50 * MS, 2**70, -(2**70)]),
    until_ns=st.sampled_from([None, None, 0, NOON_NS + 30 * MS, NOON_NS + 60 * MS, 2**70, -(2**70)]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=_filters, limit=st.integers(1, 30))
def test_any_filter_lists_counts_and_scans_exactly_what_fits_it(audit: AuditStore, wanted: Filter, limit: int) -> None:
    if not audit.days():
        _two_days(audit)
    whole = [(kept.day, kept.frame) for kept in scanned(audit)]
    found = listed(audit, wanted, limit)
    assert [record.received_ns for record in found] == [at_ns for _, at_ns in _expected(whole, wanted)]
    assert sorted(_ids(found)) == sorted(frame.record.record_id for _, frame in whole if _fits(frame.record, wanted))
    narrowed = Filter(model=wanted.model, role=wanted.role, since_ns=wanted.since_ns, until_ns=wanted.until_ns)
    fitting = [frame for _, frame in whole if _fits(frame.record, narrowed)]
    assert frames_of(scanned(audit, narrowed)) == fitting
    assert audit.count(narrowed) == len(fitting)


def test_pages_go_on_where_they_were_while_new_records_come(audit: AuditStore) -> None:
    chain = ChainedJournal()
    frames = chain.frames(*(new_record(number) for number in range(40)))
    fill(audit, frames, DAY)
    first = audit.page(Filter(), None, 15)
    fill(audit, chain.frames(*(new_record(number) for number in range(100, 140))), DAY)
    fill(audit, chain.frames(new_record(200)), NEXT_DAY)
    second = audit.page(Filter(), first.next, 100)
    assert second.next is None
    assert [*first.records, *second.records] == [frame.record for frame in reversed(frames)]
    assert audit.page(Filter(), first.next, 100) == second


def test_records_of_one_time_are_each_on_one_page(audit: AuditStore) -> None:
    frames = ChainedJournal().frames(*(new_record(number, received_ns=NOON_NS) for number in range(50)))
    fill(audit, frames, DAY)
    found = listed(audit, limit=7)
    assert sorted(_ids(found)) == sorted(frame.record.record_id for frame in frames)


def test_a_listing_that_has_nothing_ends_at_once(audit: AuditStore) -> None:
    _two_days(audit)
    assert listed(audit, Filter(model="nobody")) == []
    assert listed(audit, Filter(since_ns=NOON_NS + 10**15)) == []
    assert listed(audit, Filter(since_ns=NOON_NS + 2, until_ns=NOON_NS + 1)) == []


NO_CURSORS = ["", "x", "AAAA", "2026-11-25", "k6oyMDI2LTExLTI1", "\ud800", "🚂", "null", "9" * 5_000]


@pytest.mark.parametrize("after", NO_CURSORS)
def test_a_cursor_that_is_none_is_refused(audit: AuditStore, after: str) -> None:
    _two_days(audit)
    with pytest.raises(InvalidInput, match="after"):
        audit.page(Filter(), after, 10)


def test_a_cursor_is_refused_or_gives_a_page_whatever_is_done_to_it(audit: AuditStore) -> None:
    _two_days(audit)
    cursor = audit.page(Filter(), None, 10).next
    assert cursor is not None
    for at in range(len(cursor)):
        for changed in (cursor[:at], cursor[:at] + "_" + cursor[at + 1 :], cursor[:at] + "A" + cursor[at:]):
            try:
                assert len(audit.page(Filter(), changed, 10).records) <= 10
            except InvalidInput:
                continue


def test_pages_have_no_parts_of_records_but_all_else(audit: AuditStore) -> None:
    frame = ChainedJournal().frame(new_record(1, error="it failed", kept_headers={"a": "b"}))
    fill(audit, [frame], DAY)
    assert list(audit.page(Filter(), None, 10).records) == [frame.record]
