"""How every audit store finds records by the ids that people hold."""

import pytest

from gateway.ports import FIND_LIMIT, AuditStore, Kept
from tests.contracts.audit_store import OpenAudit, fill, frames_of
from tests.records import (
    DAY,
    JOURNAL,
    NEXT_DAY,
    NOON_NS,
    OTHER_JOURNAL,
    ChainedJournal,
    control_record,
    new_record,
    place_of,
    record_id_at,
    shadow_of,
)

DAYS = ["2026-11-21", "2026-11-22", "2026-11-23", "2026-11-24", DAY]
DAY_NS = 86_400 * 10**9


def test_a_record_is_found_as_it_was_written_by_each_of_its_ids(audit: AuditStore) -> None:
    chain = ChainedJournal()
    frame = chain.frame(new_record(1, request_id="q-1", oip_id="o-1", headers={"x-tenant": "acme"}, stale=True))
    fill(audit, [frame, *chain.frames(new_record(2))], DAY)
    for any_id in (frame.record.record_id, "q-1", "o-1"):
        assert list(audit.find(any_id)) == [Kept(frame, DAY)]


@pytest.mark.parametrize("known", [record_id_at(NOON_NS, 1), "r-1"])
@pytest.mark.parametrize(
    "other", ["", "{}1", " {}", "{} ", "{}\x00", "%", "_" * 36, "' OR 1=1 --", "\ud800", JOURNAL, "fraud"]
)
def test_nothing_is_found_by_what_is_no_id_of_a_record(audit: AuditStore, known: str, other: str) -> None:
    fill(audit, ChainedJournal().frames(new_record(1, record_id=known, request_id=known)), DAY)
    assert list(audit.find(other.format(known))) == []
    assert len(audit.find(known)) == 1


def test_ids_are_told_apart_by_case_and_by_form(audit: AuditStore) -> None:
    canonical = record_id_at(NOON_NS, 1)
    forms = [canonical, canonical.upper(), canonical.replace("-", ""), f"{{{canonical}}}", f"urn:uuid:{canonical}"]
    records = [new_record(number, record_id=form, request_id=f"q-{number}") for number, form in enumerate(forms)]
    frames = ChainedJournal().frames(*records)
    fill(audit, frames, DAY)
    assert [frames_of(audit.find(form)) for form in forms] == [[frame] for frame in frames]


@pytest.mark.parametrize(
    "any_id",
    ["ü–ß", "日本語", "🚂" * 40, "a'b\"c;d\\e%f_g", "line\nbreak", "nul\x00inside", " ", "", "7", "é", "e\u0301"],
)
def test_ids_of_any_text_are_found(audit: AuditStore, any_id: str) -> None:
    chain = ChainedJournal()
    frames = chain.frames(
        new_record(1, oip_id=any_id), new_record(2, request_id=any_id), new_record(3, record_id=any_id)
    )
    fill(audit, [*frames, *chain.frames(new_record(4))], DAY)
    assert sorted(frames_of(audit.find(any_id)), key=lambda one: one.sequence) == frames


def test_a_request_id_that_was_repeated_finds_every_attempt_oldest_first_with_its_day(audit: AuditStore) -> None:
    chain = ChainedJournal()
    frames = chain.frames(*(new_record(number, request_id="q") for number in (3, 1, 2)))
    fill(audit, frames[:2], DAY)
    fill(audit, frames[2:], NEXT_DAY)
    assert list(audit.find("q")) == [Kept(frames[1], DAY), Kept(frames[2], NEXT_DAY), Kept(frames[0], DAY)]


def test_a_record_is_found_once_when_several_of_its_ids_are_the_same(audit: AuditStore) -> None:
    fill(audit, ChainedJournal().frames(new_record(1, request_id="same", oip_id="same")), DAY)
    assert len(audit.find("same")) == 1


def test_an_id_that_means_different_things_in_different_records_finds_them_all(audit: AuditStore) -> None:
    own = new_record(1)
    chain = ChainedJournal()
    frames = chain.frames(own, new_record(2, request_id=own.record_id), new_record(3, oip_id=own.record_id))
    fill(audit, frames, DAY)
    assert frames_of(audit.find(own.record_id)) == frames


def test_a_primary_comes_with_its_shadows_and_a_shadow_with_its_primary(audit: AuditStore) -> None:
    """All of them have the time of the primary, which comes first whatever its id is."""
    chain = ChainedJournal()
    given = new_record(5, request_id="q-5")
    stranger, *shadows = chain.frames(shadow_of(new_record(4), 3), shadow_of(given, 1), shadow_of(given, 2))
    primary = chain.frame(given)
    shadows.sort(key=lambda shadow: shadow.record.record_id)
    fill(audit, [*shadows, stranger, primary], DAY)
    assert frames_of(audit.find(given.record_id)) == [primary, *shadows]
    assert frames_of(audit.find("q-5")) == [primary, *shadows]
    assert frames_of(audit.find(shadows[0].record.record_id)) == [primary, shadows[0]]
    assert frames_of(audit.find(stranger.record.record_id)) == [stranger]


def test_an_oip_id_finds_the_shadows_that_do_not_carry_it(audit: AuditStore) -> None:
    primary = new_record(1, oip_id="o")
    frames = ChainedJournal().frames(primary, shadow_of(primary, 1, oip_id=None))
    fill(audit, frames, DAY)
    assert frames_of(audit.find("o")) == frames


def test_shadows_and_primaries_are_found_whatever_their_ids_and_times_are(audit: AuditStore) -> None:
    odd, timely = new_record(1, record_id="r-1"), new_record(2)
    frames = ChainedJournal().frames(
        odd,
        shadow_of(odd, 1, record_id="s-1", request_id="x"),
        timely,
        shadow_of(timely, 2, received_ns=NOON_NS - 3 * DAY_NS, request_id="y"),
    )
    fill(audit, frames[:2], DAY)
    fill(audit, frames[2:3], NEXT_DAY)
    fill(audit, frames[3:], "2026-12-24")
    assert frames_of(audit.find("r-1")) == frames[:2]
    assert frames_of(audit.find("s-1")) == frames[:2]
    assert frames_of(audit.find(timely.record_id)) == [frames[3], frames[2]]
    assert frames_of(audit.find(frames[3].record.record_id)) == [frames[3], frames[2]]


def test_the_shadows_of_a_primary_are_found_when_they_were_shipped_on_a_later_day(audit: AuditStore) -> None:
    primary = new_record(1, received_ns=NOON_NS)
    chain = ChainedJournal()
    first, between, late = chain.frames(primary, new_record(2, received_ns=NOON_NS + DAY_NS), shadow_of(primary, 1))
    fill(audit, [first], DAY)
    fill(audit, [between], NEXT_DAY)
    fill(audit, [late], "2026-11-27")
    found = [Kept(first, DAY), Kept(late, "2026-11-27")]
    assert list(audit.find(primary.record_id)) == found
    assert list(audit.find(late.record.record_id)) == found


def test_a_control_record_is_found_by_its_id(audit: AuditStore) -> None:
    frame = ChainedJournal().frame(control_record(1, "audit.erase", details={"count": 1}), None, None)
    fill(audit, [frame], DAY)
    assert frames_of(audit.find(frame.record.record_id)) == [frame]


@pytest.mark.parametrize("reopened", [False, True])
def test_records_of_many_days_are_found_by_each_of_their_ids(open_audit: OpenAudit, *, reopened: bool) -> None:
    audit, chain = open_audit(), ChainedJournal()
    frames = {}
    for nth, day in enumerate(DAYS):
        at_ns = NOON_NS - (len(DAYS) - nth - 1) * DAY_NS
        frames[day] = chain.frames(
            *(
                new_record(number, received_ns=at_ns + number, request_id=f"{day} {number}", oip_id=f"o {day} {number}")
                for number in range(20)
            ),
            new_record(99, received_ns=at_ns, record_id=f"r {day}"),
        )
        fill(audit, frames[day], day)
    if reopened:
        audit.close()
        audit = open_audit()
    for day, of_day in frames.items():
        for frame in of_day:
            for any_id in (frame.record.record_id, frame.record.request_id, frame.record.oip_id):
                assert any_id is None or list(audit.find(any_id)) == [Kept(frame, day)]
    assert list(audit.find(record_id_at(NOON_NS, 77))) == []


def test_a_record_that_was_shipped_days_after_it_was_received_is_found(audit: AuditStore) -> None:
    """After an outage of the store, the day of a record is a later one than that of its id."""
    chain = ChainedJournal()
    late = chain.frame(new_record(1, received_ns=NOON_NS - 3 * DAY_NS, request_id="q"))
    fill(audit, chain.frames(new_record(2, received_ns=NOON_NS - 3 * DAY_NS + 1)), DAYS[1])
    fill(audit, [late], DAY)
    fill(audit, chain.frames(new_record(3, received_ns=NOON_NS + DAY_NS)), NEXT_DAY)
    for any_id in (late.record.record_id, "q"):
        assert list(audit.find(any_id)) == [Kept(late, DAY)]


def test_many_records_of_one_millisecond_are_told_apart(audit: AuditStore) -> None:
    frames = ChainedJournal().frames(*(new_record(number, received_ns=NOON_NS) for number in range(500)))
    fill(audit, frames, DAY)
    assert [frames_of(audit.find(frame.record.record_id)) for frame in frames[::50]] == [[one] for one in frames[::50]]


# ── ids that many records carry ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["request_id", "oip_id"])
def test_the_newest_records_are_found_when_more_carry_an_id_than_one_look_up_returns(
    audit: AuditStore, kind: str
) -> None:
    frames = ChainedJournal().frames(*(new_record(number, **{kind: "1"}) for number in range(FIND_LIMIT + 50)))
    fill(audit, frames[:40], DAY)
    fill(audit, frames[40:], NEXT_DAY)
    assert frames_of(audit.find("1")) == frames[-FIND_LIMIT:]


def test_the_limit_is_of_each_kind_of_id(audit: AuditStore) -> None:
    requests = ChainedJournal().frames(*(new_record(number, request_id="1") for number in range(FIND_LIMIT + 1)))
    oip = ChainedJournal(OTHER_JOURNAL).frames(
        *(new_record(5_000 + number, oip_id="1") for number in range(FIND_LIMIT))
    )
    fill(audit, [*requests, *oip], DAY)
    assert frames_of(audit.find("1")) == [*requests[1:], *oip]


def test_a_record_is_found_by_its_own_id_however_many_callers_use_it_as_theirs(audit: AuditStore) -> None:
    own = new_record(0)
    others = (new_record(n, request_id=own.record_id, oip_id=own.record_id) for n in range(1, FIND_LIMIT + 50))
    frames = ChainedJournal().frames(own, *others)
    fill(audit, frames, DAY)
    assert frames_of(audit.find(own.record_id))[0] == frames[0]


def test_the_families_of_all_records_that_carry_an_id_come_with_them(audit: AuditStore) -> None:
    primaries = [new_record(number, oip_id="1") for number in range(60)]
    shadows = [shadow_of(primary, number, oip_id=None) for number, primary in enumerate(primaries)]
    chain = ChainedJournal()
    fill(audit, chain.frames(*primaries), DAY)
    fill(audit, chain.frames(*shadows), NEXT_DAY)
    found = audit.find("1")
    assert [kept.frame.record.role for kept in found] == ["primary", "shadow"] * 60
    assert len({place_of(kept.frame) for kept in found}) == 120
