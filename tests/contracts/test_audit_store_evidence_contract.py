"""What every audit store shows as evidence: days, holdings, checkpoints, keys, and its rows as they stand."""

import pytest
from msgspec.structs import replace

from gateway.chain import genesis, link
from gateway.errors import AuditUnavailable
from gateway.ports import AuditStore, Day, Holding, Place, PublicKey, Row
from gateway.record import Frame
from tests.contracts.audit_store import OpenAudit, fill, rows_of
from tests.records import (
    DAY,
    JOURNAL,
    NEXT_DAY,
    NOON_NS,
    OTHER_JOURNAL,
    ChainedJournal,
    control_record,
    new_checkpoint,
    new_record,
    place_of,
    shadow_of,
)

MS = 1_000_000
THIRD_DAY = "2026-11-27"


# ── days and holdings ────────────────────────────────────────────────────────────────────────────────────────────────


def test_days_tell_their_records_by_model_and_their_times(audit: AuditStore) -> None:
    chain = ChainedJournal()
    first = new_record(5)
    fill(audit, chain.frames(first, shadow_of(first, 1), new_record(3, model="digits")), DAY)
    fill(audit, chain.frames(control_record(4, "audit.list"), new_record(9, model="ü\x00")), DAY)
    fill(audit, chain.frames(new_record(1)), THIRD_DAY)
    assert [replace(day, records=dict(day.records)) for day in audit.days()] == [
        Day(DAY, {"fraud": 2, "digits": 1, "": 1, "ü\x00": 1}, NOON_NS + 3 * MS, NOON_NS + 9 * MS),
        Day(THIRD_DAY, {"fraud": 1}, NOON_NS + MS, NOON_NS + MS),
    ]


def test_holdings_tell_what_there_is_of_each_journal_on_each_day(audit: AuditStore) -> None:
    mine, others = ChainedJournal(), ChainedJournal(OTHER_JOURNAL)
    frames = mine.frames(*(new_record(number) for number in range(10)))
    fill(audit, [frames[0], frames[1], *others.frames(new_record(20)), frames[4]], DAY)
    fill(audit, [frames[7], *others.frames(new_record(21))], NEXT_DAY)
    assert list(audit.holdings()) == [
        Holding(JOURNAL, DAY, 1, 5, 3, 0),
        Holding(JOURNAL, NEXT_DAY, 8, 8, 1, 0),
        Holding(OTHER_JOURNAL, DAY, 1, 1, 1, 0),
        Holding(OTHER_JOURNAL, NEXT_DAY, 2, 2, 1, 0),
    ]


def test_holdings_within_times_count_every_record_between_the_first_and_the_last(audit: AuditStore) -> None:
    """Record 4 was received before the times, but stands between two that were received within them."""
    chain = ChainedJournal()
    received = (1, 5, 6, 2, 7, 8, 20)
    fill(audit, chain.frames(*(new_record(at) for at in received)), DAY)
    fill(audit, chain.frames(new_record(30)), NEXT_DAY)
    within = list(audit.holdings(NOON_NS + 5 * MS, NOON_NS + 8 * MS))
    assert within == [Holding(JOURNAL, DAY, 2, 5, 4, 0)]
    assert list(audit.holdings(since_ns=NOON_NS + 20 * MS)) == [
        Holding(JOURNAL, DAY, 7, 7, 1, 0),
        Holding(JOURNAL, NEXT_DAY, 8, 8, 1, 0),
    ]
    assert list(audit.holdings(until_ns=NOON_NS + MS + 1)) == [Holding(JOURNAL, DAY, 1, 1, 1, 0)]
    assert list(audit.holdings(NOON_NS + 9 * MS, NOON_NS + 20 * MS)) == []


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_is_kept_as_it_was_sealed_and_once(audit: AuditStore) -> None:
    frames = ChainedJournal().frames(new_record(1))
    fill(audit, frames, DAY)
    one = new_checkpoint(1, frames)
    audit.seal(one)
    audit.seal(one)
    assert audit.last_checkpoint("gw-a") == one
    assert list(audit.checkpoints()) == [one]


@pytest.mark.parametrize("field", ["statement", "listing", "signature"])
def test_another_checkpoint_of_a_number_is_refused_and_the_first_stays(open_audit: OpenAudit, field: str) -> None:
    audit = open_audit()
    chain = ChainedJournal()
    fill(audit, chain.frames(new_record(1)), DAY)
    one = new_checkpoint(1, ())
    audit.seal(one)
    fill(audit, chain.frames(new_record(2)), NEXT_DAY)
    for store in (audit, open_audit()):
        with pytest.raises(AuditUnavailable, match="checkpoint 1"):
            store.seal(replace(one, **{field: b"other"}))
        with pytest.raises(AuditUnavailable, match="checkpoint 1"):
            store.seal(replace(one, day=NEXT_DAY))
        store.seal(one)
        assert list(store.checkpoints()) == [one]


def test_checkpoints_come_in_order_of_gateway_and_number_also_when_there_are_many(audit: AuditStore) -> None:
    chain = ChainedJournal()
    fill(audit, chain.frames(new_record(1)), DAY)
    first = [new_checkpoint(number, ()) for number in range(1, 521)]
    other = [new_checkpoint(number, (), gateway="gw-0") for number in (1, 2)]
    for one in (*first, *other):
        audit.seal(one)
    fill(audit, chain.frames(new_record(2)), NEXT_DAY)
    second = [new_checkpoint(number, (), NEXT_DAY) for number in range(521, 524)]
    for one in second:
        audit.seal(one)
    assert list(audit.checkpoints()) == [*other, *first, *second]
    assert list(audit.checkpoints("gw-0")) == other
    assert list(audit.checkpoints(day=NEXT_DAY)) == second
    assert list(audit.checkpoints("gw-a", DAY)) == first
    assert list(audit.checkpoints("nobody")) == []
    assert list(audit.checkpoints(day=THIRD_DAY)) == []
    assert audit.last_checkpoint("gw-a") == second[-1]
    assert audit.last_checkpoint("gw-0") == other[-1]
    assert audit.last_checkpoint("nobody") is None


def test_the_checkpoint_that_covers_a_place_is_found(audit: AuditStore) -> None:
    mine, others = ChainedJournal(), ChainedJournal(OTHER_JOURNAL)
    first = [*mine.frames(*(new_record(number) for number in range(3))), *others.frames(new_record(10))]
    fill(audit, first, DAY)
    one = new_checkpoint(1, first)
    audit.seal(one)
    second = mine.frames(*(new_record(number) for number in range(3, 5)))
    fill(audit, second, NEXT_DAY)
    two = new_checkpoint(2, second, NEXT_DAY)
    audit.seal(two)
    fill(audit, mine.frames(new_record(6)), NEXT_DAY)
    covering = {Place(JOURNAL, sequence): audit.checkpoint_of(Place(JOURNAL, sequence)) for sequence in range(8)}
    assert list(covering.values()) == [None, one, one, one, two, two, None, None]
    assert audit.checkpoint_of(Place(OTHER_JOURNAL, 1)) == one
    assert audit.checkpoint_of(Place("gw-a/w9.000000000000", 1)) is None


@pytest.mark.parametrize("listing", [b"", b"no JSON", b"{}", b'[{"journal":1}]', b"\xff\xfe", b'[{"first":2}]'])
def test_a_checkpoint_with_a_listing_that_is_none_is_kept_and_covers_nothing(audit: AuditStore, listing: bytes) -> None:
    fill(audit, ChainedJournal().frames(new_record(1)), DAY)
    odd = replace(new_checkpoint(1, ()), listing=listing)
    audit.seal(odd)
    assert list(audit.checkpoints()) == [odd]
    assert audit.checkpoint_of(Place(JOURNAL, 1)) is None


def test_public_keys_come_oldest_first_and_stay_as_they_were_published(audit: AuditStore) -> None:
    second = PublicKey("gw-a", "k-2", "pem 2", NOON_NS + 2)
    first = PublicKey("gw-a", "k-1", "pem 1", NOON_NS + 1)
    other = PublicKey("gw-b", "k-1", "pem b", NOON_NS + 3)
    for key in (second, other, first, replace(first, pem="forged"), replace(second, since_ns=0)):
        audit.publish_key(key)
    assert list(audit.keys()) == [first, second, other]


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _row(frame: Frame) -> Row:
    return Row(frame.journal, frame.sequence, frame.previous, frame.sealed, frame.request, frame.response)


def test_rows_are_what_was_written_in_order_over_days_and_chunks(audit: AuditStore) -> None:
    chain = ChainedJournal()
    frames = chain.frames(*(new_record(number) for number in range(1_700)))
    others = ChainedJournal(OTHER_JOURNAL).frames(*(new_record(number) for number in range(30)))
    fill(audit, [*frames[:1_200], *others], DAY)
    fill(audit, frames[1_200:1_500], NEXT_DAY)
    fill(audit, frames[1_500:], THIRD_DAY)
    assert rows_of(audit, JOURNAL) == [_row(frame) for frame in frames]
    assert list(audit.rows(JOURNAL, 1_195, 1_505)) == [_row(frame) for frame in frames[1_194:1_505]]
    assert list(audit.rows(JOURNAL, 7, 7)) == [_row(frames[6])]
    assert list(audit.rows(JOURNAL, 8, 7)) == []
    assert list(audit.rows(JOURNAL, 1_701, 2**62)) == []
    assert rows_of(audit, "gw-a/w9.000000000000") == []


def test_places_without_a_row_are_passed_over(audit: AuditStore) -> None:
    frames = ChainedJournal().frames(*(new_record(number) for number in range(9)))
    fill(audit, [frames[1], frames[3]], DAY)
    fill(audit, [frames[6]], NEXT_DAY)
    assert rows_of(audit, JOURNAL) == [_row(frames[at]) for at in (1, 3, 6)]


def test_rows_give_back_the_chain_that_the_journal_had(audit: AuditStore) -> None:
    chain = ChainedJournal()
    fill(audit, chain.frames(*(new_record(number) for number in range(5))), DAY)
    fill(audit, chain.frames(*(new_record(number) for number in range(5, 9))), NEXT_DAY)
    at = genesis(JOURNAL)
    for row in rows_of(audit, JOURNAL):
        assert row.previous == at
        assert row.sealed is not None
        at = link(at, row.sequence, row.sealed)
    assert at == chain.chain


def test_rows_of_a_journal_whose_days_are_out_of_order_come_in_order(audit: AuditStore) -> None:
    frames = ChainedJournal().frames(*(new_record(number) for number in range(6)))
    fill(audit, [frames[0], frames[3], frames[5]], DAY)
    fill(audit, [frames[1], frames[4]], NEXT_DAY)
    fill(audit, [frames[2]], THIRD_DAY)
    assert rows_of(audit, JOURNAL) == [_row(frame) for frame in frames]
    assert [one.sequence for one in audit.rows(JOURNAL, 2, 4)] == [2, 3, 4]


def test_records_may_come_while_rows_are_read(audit: AuditStore) -> None:
    chain = ChainedJournal()
    frames = chain.frames(*(new_record(number) for number in range(1_200)))
    fill(audit, frames, DAY)
    rows = audit.rows(JOURNAL, 1, 1_200)
    seen = [next(rows)]
    fill(audit, chain.frames(new_record(5_000)), NEXT_DAY)
    assert [place_of(frame).sequence for frame in frames] == [row.sequence for row in (*seen, *rows)]
