"""How contents, records of a model and whole days are taken out of every audit store, and what stays."""

import pytest

from gateway.chain import link
from gateway.errors import InvalidInput
from gateway.ports import AuditStore, Dropped, Filter, Holding, Place
from gateway.record import Frame, Record
from tests.contracts.audit_store import OpenAudit, everything, fill, frames_of, listed, rows_of, scanned
from tests.records import (
    DAY,
    JOURNAL,
    NEXT_DAY,
    NOON_NS,
    OTHER_JOURNAL,
    ChainedJournal,
    batch,
    control_record,
    new_checkpoint,
    new_gap,
    new_record,
    place_of,
    record_id_at,
    shadow_of,
)

ERASURE = record_id_at(NOON_NS + 10**9, 1)
PRUNING = record_id_at(NOON_NS + 10**9, 2)
THIRD_DAY = "2026-11-27"


# ── callers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_places_of_a_caller_are_those_of_their_records_and_shadows_on_all_days(audit: AuditStore) -> None:
    unit = "0123456789abcdef0123456789abcdef"
    mine, others = ChainedJournal(), ChainedJournal(OTHER_JOURNAL)
    first, second = new_record(1, unit=unit), new_record(2, unit=unit, outcome="refused", intended=None)
    fill(audit, [*others.frames(new_record(3), second), *mine.frames(new_record(4), first)], DAY)
    fill(audit, mine.frames(shadow_of(first, 1), new_record(5)), NEXT_DAY)
    assert list(audit.places_of(bytes.fromhex(unit))) == [
        Place(JOURNAL, 2),
        Place(JOURNAL, 3),
        Place(OTHER_JOURNAL, 2),
    ]
    assert list(audit.places_of(b"nobody")) == []
    assert list(audit.places_of(b"")) == []


# ── erasing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _frames(audit: AuditStore) -> list[Frame]:
    """Fill two days, and return the frames: a primary, its shadow without a request of its own, three more."""
    chain = ChainedJournal()
    primary = new_record(1, request_id="q")
    frames = [
        chain.frame(primary, b"a secret", b"an answer"),
        chain.frame(shadow_of(primary, 1), None, b"another answer"),
        *chain.frames(new_record(2), new_record(3)),
    ]
    fill(audit, frames, DAY)
    late = chain.frame(new_record(4))
    fill(audit, [late], NEXT_DAY)
    return [*frames, late]


def test_erased_contents_are_gone_everywhere_and_all_else_is_as_it_was(audit: AuditStore) -> None:
    frames = _frames(audit)
    before = rows_of(audit, JOURNAL)
    assert audit.erase([place_of(frames[at]) for at in (0, 1, 4)], ERASURE) == 3
    found = {place_of(kept.frame): kept for kept in scanned(audit)}
    for nth, frame in enumerate(frames):
        kept = found[place_of(frame)]
        erased = nth in {0, 1, 4}
        assert kept.erasure == (ERASURE if erased else None)
        assert (kept.frame.request, kept.frame.response) == ((b"", b"") if erased else (frame.request, frame.response))
        assert (kept.frame.sealed, kept.frame.chain, kept.frame.record) == (frame.sealed, frame.chain, frame.record)
    assert [(kept.erasure, kept.frame.response) for kept in audit.find("q")] == [(ERASURE, b"")] * 2
    rows = rows_of(audit, JOURNAL)
    assert [(row.sequence, row.previous, row.sealed, row.damage) for row in rows] == [
        (row.sequence, row.previous, row.sealed, "") for row in before
    ]
    assert [row.erasure for row in rows] == [ERASURE, ERASURE, None, None, ERASURE]
    assert [row.request + row.response for row in rows if row.erasure] == [b""] * 3


def test_what_was_erased_before_is_left_as_it_is_and_not_counted(audit: AuditStore) -> None:
    frames = _frames(audit)
    places = [place_of(frame) for frame in frames]
    assert audit.erase(places[:2], ERASURE) == 2
    assert audit.erase([*places[:3], places[2]], "a later one") == 1
    assert audit.erase(places[:3], "the last one") == 0
    assert [row.erasure for row in rows_of(audit, JOURNAL)[:3]] == [ERASURE, ERASURE, "a later one"]


def test_places_that_hold_nothing_are_not_counted(audit: AuditStore) -> None:
    _frames(audit)
    nowhere = [Place(JOURNAL, 99), Place("gw-a/w9.000000000000", 1), Place(JOURNAL, 0), Place(JOURNAL, 2**62)]
    assert audit.erase(nowhere, ERASURE) == 0
    assert audit.erase([], ERASURE) == 0
    assert not any(row.erasure for row in rows_of(audit, JOURNAL))


def test_a_record_without_contents_is_noted_as_erased_too(audit: AuditStore) -> None:
    frame = ChainedJournal().frame(new_record(1), None, None)
    fill(audit, [frame], DAY)
    assert audit.erase([place_of(frame)], ERASURE) == 1
    assert scanned(audit)[0].erasure == ERASURE


def test_a_frame_that_is_written_again_does_not_bring_erased_contents_back(audit: AuditStore) -> None:
    frames = _frames(audit)
    audit.erase([place_of(frames[0]), place_of(frames[4])], ERASURE)
    fill(audit, frames, NEXT_DAY)
    rows = rows_of(audit, JOURNAL)
    assert [(row.erasure, row.request) for row in (rows[0], rows[4])] == [(ERASURE, b"")] * 2


def test_many_records_are_erased_at_once(audit: AuditStore) -> None:
    chain = ChainedJournal()
    frames = chain.frames(*(new_record(number) for number in range(3_000)))
    fill(audit, frames[:1_500], DAY)
    fill(audit, frames[1_500:], NEXT_DAY)
    assert audit.erase([place_of(frame) for frame in frames[::2]], ERASURE) == 1_500
    assert [bool(row.erasure) for row in rows_of(audit, JOURNAL)] == [True, False] * 1_500


# ── thinning ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _two_models(audit: AuditStore) -> list[Frame]:
    """Fill two days; on the first, every second record is of the model `old`, and the last is a control record."""
    mine, others = ChainedJournal(), ChainedJournal(OTHER_JOURNAL)
    records: list[Record] = [
        new_record(number, model="old" if number % 2 else "fraud", request_id=f"q-{number}") for number in range(10)
    ]
    frames = [*mine.frames(*records[:6]), *others.frames(*records[6:], control_record(10, "audit.list"))]
    fill(audit, frames, DAY)
    fill(audit, mine.frames(new_record(20, model="old")), NEXT_DAY)
    return frames


def test_thinning_leaves_stubs_that_carry_the_chain_on(audit: AuditStore) -> None:
    frames = _two_models(audit)
    gone = sorted(place_of(frame) for frame in frames if frame.record.model == "old")
    assert list(audit.places_in(DAY, ["old"])) == gone
    assert list(audit.thin(DAY, ["old"], PRUNING).places) == gone
    stands = {
        (row.journal, row.sequence): row for journal in (JOURNAL, OTHER_JOURNAL) for row in rows_of(audit, journal)
    }
    for frame in frames:
        row = stands[frame.journal, frame.sequence]
        assert row.previous == frame.previous
        assert row.damage == ""
        if frame.record.model == "old":
            assert (row.sealed, row.request, row.response) == (None, b"", b"")
            assert (row.chain, row.pruning) == (frame.chain, PRUNING)
        else:
            assert (row.sealed, row.request, row.response) == (frame.sealed, frame.request, frame.response)
            assert row.pruning is None
            assert link(row.previous, row.sequence, frame.sealed) == frame.chain


def test_thinned_records_are_found_nowhere_and_the_others_everywhere(audit: AuditStore) -> None:
    frames = _two_models(audit)
    audit.thin(DAY, ["old"], PRUNING)
    for frame in frames:
        left = [] if frame.record.model == "old" else [frame]
        assert frames_of(audit.find(frame.record.record_id)) == left
        assert frames_of(audit.find(frame.record.request_id)) == left
    assert {record.model for record in listed(audit, Filter(until_ns=NOON_NS + 10**9 // 100))} == {"fraud"}
    assert audit.count(Filter(model="old")) == 1
    assert len(scanned(audit)) == 7
    assert len(audit.sample("old", 0, 10)) == 1
    assert list(audit.places_of((3).to_bytes(16, "big"))) == []
    assert list(audit.places_in(DAY, ["old"])) == []


def test_what_a_thinned_day_tells_of_itself(audit: AuditStore) -> None:
    _two_models(audit)
    checkpoint = new_checkpoint(1, ())
    audit.seal(checkpoint)
    positions = dict(audit.positions())
    audit.thin(DAY, ["old"], PRUNING)
    assert [one for one in audit.holdings() if one.day == DAY] == [
        Holding(JOURNAL, DAY, 1, 6, 3, 3),
        Holding(OTHER_JOURNAL, DAY, 1, 5, 3, 2),
    ]
    assert dict(audit.days()[0].records) == {"fraud": 5, "": 1}
    assert dict(audit.positions()) == positions
    assert list(audit.checkpoints()) == [checkpoint]
    assert list(audit.dropped()) == []


def test_thinning_again_or_what_is_not_there_takes_nothing(audit: AuditStore) -> None:
    _two_models(audit)
    audit.thin(DAY, ["old"], PRUNING)
    before = everything(audit)
    assert list(audit.thin(DAY, ["old"], "again").places) == []
    assert list(audit.thin(DAY, ["nobody"], "again").places) == []
    assert list(audit.thin(DAY, [], "again").places) == []
    assert list(audit.thin("2026-01-01", ["old"], "again").places) == []
    assert list(audit.places_in("2026-01-01", ["old"])) == []
    assert everything(audit) == before


def test_all_models_of_a_day_can_be_thinned(audit: AuditStore) -> None:
    frames = _two_models(audit)
    assert len(audit.thin(DAY, ["old", "fraud", ""], PRUNING).places) == len(frames)
    assert [row.pruning for row in rows_of(audit, OTHER_JOURNAL)] == [PRUNING] * 5
    assert Holding(OTHER_JOURNAL, DAY, 1, 5, 0, 5) in audit.holdings()


def test_erased_records_can_be_thinned_and_stubs_cannot_be_erased(audit: AuditStore) -> None:
    frames = _two_models(audit)
    places = [place_of(frame) for frame in frames]
    assert audit.erase(places[:2], ERASURE) == 2
    audit.thin(DAY, ["old"], PRUNING)
    assert audit.erase(places[:2], "later") == 0
    assert [(row.erasure, row.pruning) for row in rows_of(audit, JOURNAL)[:2]] == [(ERASURE, None), (None, PRUNING)]


def test_a_frame_that_is_written_again_does_not_bring_a_thinned_record_back(audit: AuditStore) -> None:
    frames = _two_models(audit)
    audit.thin(DAY, ["old"], PRUNING)
    before = everything(audit)
    audit.write(batch(frames[:3], NEXT_DAY))
    assert everything(audit)["rows"] == before["rows"]


def test_the_newest_day_is_neither_thinned_nor_dropped(audit: AuditStore) -> None:
    _two_models(audit)
    before = everything(audit)
    for refused in (lambda: audit.thin(NEXT_DAY, ["old"], PRUNING), lambda: audit.drop(NEXT_DAY, PRUNING)):
        with pytest.raises(InvalidInput, match=NEXT_DAY):
            refused()
    assert everything(audit) == before


# ── dropping ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dropped_day_is_gone_with_its_checkpoints_and_what_it_held_is_told(open_audit: OpenAudit) -> None:
    audit = open_audit()
    frames = _two_models(audit)
    last = ChainedJournal("gw-a/w2.222222222222")
    audit.write(batch(last.frames(new_record(30)), NEXT_DAY, [new_gap(JOURNAL, 5)]))
    audit.seal(new_checkpoint(1, frames))
    kept = new_checkpoint(2, (), NEXT_DAY)
    audit.seal(kept)
    positions, gaps = dict(audit.positions()), list(audit.gaps())
    gone = [Dropped(DAY, JOURNAL, 1, 6, 6, PRUNING), Dropped(DAY, OTHER_JOURNAL, 1, 5, 5, PRUNING)]
    assert list(audit.drop(DAY, PRUNING)) == gone
    for store in (audit, open_audit()):
        assert list(store.dropped()) == gone
        assert [day.day for day in store.days()] == [NEXT_DAY]
        assert {one.day for one in store.holdings()} == {NEXT_DAY}
        assert rows_of(store, OTHER_JOURNAL) == []
        assert [row.sequence for row in rows_of(store, JOURNAL)] == [7]
        assert list(store.find(frames[0].record.record_id)) == []
        assert list(store.find("q-3")) == []
        assert len(listed(store)) == len(scanned(store)) == 2
        assert list(store.checkpoints()) == [kept]
        assert store.checkpoint_of(place_of(frames[0])) is None
        assert store.last_checkpoint("gw-a") == kept
        assert (dict(store.positions()), list(store.gaps())) == (positions, gaps)


def test_a_day_that_is_not_there_drops_nothing(audit: AuditStore) -> None:
    _two_models(audit)
    assert list(audit.drop("2026-01-01", PRUNING)) == []
    audit.drop(DAY, PRUNING)
    assert list(audit.drop(DAY, "again")) == []
    assert {one.pruning for one in audit.dropped()} == {PRUNING}


def test_a_thinned_day_can_be_dropped_and_tells_its_places_and_what_records_were_left(audit: AuditStore) -> None:
    _two_models(audit)
    audit.thin(DAY, ["old"], PRUNING)
    assert list(audit.drop(DAY, "the drop")) == [
        Dropped(DAY, JOURNAL, 1, 6, 3, "the drop"),
        Dropped(DAY, OTHER_JOURNAL, 1, 5, 3, "the drop"),
    ]


def test_the_store_goes_on_after_days_were_dropped(audit: AuditStore) -> None:
    chain = ChainedJournal()
    for day in (DAY, NEXT_DAY, THIRD_DAY):
        fill(audit, chain.frames(new_record(1), new_record(2)), day)
    audit.drop(NEXT_DAY, "second")
    audit.drop(DAY, "first")
    more = chain.frames(new_record(3, request_id="q"))
    fill(audit, more, "2026-11-28")
    assert [(one.day, one.pruning) for one in audit.dropped()] == [(DAY, "first"), (NEXT_DAY, "second")]
    assert [row.sequence for row in rows_of(audit, JOURNAL)] == [5, 6, 7]
    assert frames_of(audit.find("q")) == more
    assert audit.positions()[JOURNAL] == chain.position
