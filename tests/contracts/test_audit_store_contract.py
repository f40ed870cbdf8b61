"""What every audit store does when the recorder writes, whatever it is made of."""

from msgspec.structs import replace
from structlog.testing import capture_logs

from gateway.ports import AuditStore, Batch, Filter, Place
from tests.contracts.audit_store import everything, fill, frames_of, rows_of, scanned
from tests.records import (
    DAY,
    JOURNAL,
    NEXT_DAY,
    OTHER_JOURNAL,
    ChainedJournal,
    batch,
    control_record,
    new_gap,
    new_record,
    position_of,
)

LARGEST = 2**64 - 1


def test_an_empty_store_has_nothing(audit: AuditStore) -> None:
    assert dict(audit.positions()) == {}
    assert list(audit.find("r-1")) == []
    assert audit.last_checkpoint("gw-a") is None
    assert audit.checkpoint_of(Place(JOURNAL, 1)) is None
    assert list(audit.holdings(0, LARGEST)) == []
    assert audit.count(Filter()) == 0
    assert list(audit.sample("fraud", 0, 10)) == []
    assert not any(everything(audit).values())


# ── positions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_positions_are_those_of_the_last_write_for_each_journal(audit: AuditStore) -> None:
    frames = ChainedJournal().frames(new_record(1))
    other = position_of(OTHER_JOURNAL, 5, b"c" * 32)
    audit.write(Batch(DAY, frames, [position_of(JOURNAL, 1, frames[0].chain), other]))
    audit.write(Batch(DAY, (), [position_of(JOURNAL, 1, frames[0].chain, segment=2)]))
    assert dict(audit.positions()) == {
        JOURNAL: position_of(JOURNAL, 1, frames[0].chain, segment=2),
        OTHER_JOURNAL: other,
    }


def test_positions_alone_are_kept_by_a_store_that_has_no_record(audit: AuditStore) -> None:
    audit.write(Batch(DAY, (), [position_of(JOURNAL, 7)]))
    assert dict(audit.positions()) == {JOURNAL: position_of(JOURNAL, 7)}
    assert list(audit.days()) == []


def test_positions_go_on_when_a_new_day_begins_also_those_of_journals_that_have_ended(audit: AuditStore) -> None:
    ended, living = ChainedJournal(OTHER_JOURNAL), ChainedJournal()
    fill(audit, [*ended.frames(new_record(1)), *living.frames(new_record(2))], DAY)
    fill(audit, living.frames(new_record(3)), NEXT_DAY)
    assert dict(audit.positions()) == {OTHER_JOURNAL: ended.position, JOURNAL: living.position}
    audit.write(Batch("2026-11-27", (), [replace(living.position, segment=9)]))
    assert audit.positions()[JOURNAL].segment == 9
    assert [day.day for day in audit.days()] == [DAY, NEXT_DAY]


def test_a_position_holds_numbers_as_large_as_files_get(audit: AuditStore) -> None:
    far = replace(position_of(JOURNAL, 2**62), segment=2**62, offset=2**62)
    audit.write(Batch(DAY, (), [far]))
    assert dict(audit.positions()) == {JOURNAL: far}


# ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_frame_is_kept_as_it_was_written(audit: AuditStore) -> None:
    chain = ChainedJournal()
    frames = [
        chain.frame(new_record(1), b"q" * 5_000, b"a" * 5_000),
        chain.frame(new_record(2), b"", b""),
        chain.frame(new_record(3), None, b"only an answer"),
        chain.frame(new_record(4), b"only a question", None),
        chain.frame(control_record(5, "audit.lookup"), None, None),
        chain.frame(new_record(6), bytes(range(256)) * 4_096 * 8, b"large"),
    ]
    fill(audit, frames, DAY)
    assert frames_of(scanned(audit)) == frames
    assert [frames_of(audit.find(frame.record.record_id)) for frame in frames] == [[frame] for frame in frames]


def test_a_frame_that_is_written_again_is_there_once_and_raises_no_alarm(audit: AuditStore) -> None:
    frames = ChainedJournal().frames(*(new_record(number) for number in range(1, 5)))
    fill(audit, frames[:2], DAY)
    with capture_logs() as logs:
        fill(audit, frames[:3], DAY)
        fill(audit, [frames[2], frames[3], frames[3]], DAY)
    assert logs == []
    assert frames_of(scanned(audit)) == frames


def test_a_frame_that_is_written_again_under_a_later_day_stays_under_its_first(audit: AuditStore) -> None:
    frames = ChainedJournal().frames(*(new_record(number) for number in range(1, 4)))
    fill(audit, frames[:2], DAY)
    with capture_logs() as logs:
        fill(audit, frames, NEXT_DAY)
    assert logs == []
    assert [(kept.day, kept.frame) for kept in scanned(audit)] == [
        (DAY, frames[0]),
        (DAY, frames[1]),
        (NEXT_DAY, frames[2]),
    ]


def test_another_record_in_a_place_that_is_taken_raises_an_alarm_and_leaves_the_first_and_keeps_the_rest(
    audit: AuditStore,
) -> None:
    first = ChainedJournal().frames(new_record(1), new_record(2))
    fill(audit, first, DAY)
    forged = ChainedJournal().frames(new_record(9), new_record(8), new_record(3))
    with capture_logs() as logs:
        fill(audit, forged, DAY)
    assert [(line["event"], line["record_id"], line["journal"], line["sequence"]) for line in logs] == [
        ("record_conflict", forged[0].record.record_id, JOURNAL, 1),
        ("record_conflict", forged[1].record.record_id, JOURNAL, 2),
    ]
    assert all(line["log_level"] == "error" for line in logs)
    assert frames_of(scanned(audit)) == [*first, forged[2]]
    assert list(audit.find(forged[0].record.record_id)) == []


def test_of_two_frames_for_one_place_in_one_batch_the_first_is_kept(audit: AuditStore) -> None:
    first, second = (ChainedJournal().frame(new_record(number)) for number in (1, 2))
    with capture_logs() as logs:
        fill(audit, [first, second], DAY)
    assert [line["event"] for line in logs] == ["record_conflict"]
    assert frames_of(scanned(audit)) == [first]


def test_frames_whose_parts_alone_differ_are_the_same_record(audit: AuditStore) -> None:
    frame = ChainedJournal().frame(new_record(1))
    fill(audit, [frame], DAY)
    fill(audit, [replace(frame, request=bytes(len(frame.request)))], DAY)
    assert frames_of(scanned(audit)) == [frame]


def test_the_same_sequence_of_another_journal_is_another_place(audit: AuditStore) -> None:
    frames = [*ChainedJournal().frames(new_record(1)), *ChainedJournal(OTHER_JOURNAL).frames(new_record(2))]
    fill(audit, frames, DAY)
    assert frames_of(scanned(audit)) == frames


def test_one_record_id_in_two_places_is_two_records(audit: AuditStore) -> None:
    frames = [*ChainedJournal().frames(new_record(1)), *ChainedJournal(OTHER_JOURNAL).frames(new_record(1))]
    fill(audit, frames, DAY)
    assert sorted(frames_of(audit.find(frames[0].record.record_id)), key=lambda one: one.journal) == frames


def test_frames_that_come_out_of_order_are_kept_each_in_its_place(audit: AuditStore) -> None:
    frames = ChainedJournal().frames(*(new_record(number) for number in range(1, 7)))
    fill(audit, [frames[4], frames[1]], DAY)
    fill(audit, [frames[0], frames[5], frames[3], frames[2]], DAY)
    assert [row.sequence for row in rows_of(audit, JOURNAL)] == [1, 2, 3, 4, 5, 6]
    assert [frame.sequence for frame in frames_of(scanned(audit))] == [5, 2, 1, 6, 4, 3]


# ── gaps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_gaps_are_kept_once_and_come_in_order_of_journal_and_sequence(audit: AuditStore) -> None:
    late, early, other = new_gap(JOURNAL, 90), new_gap(JOURNAL, 5, count=0), new_gap(OTHER_JOURNAL, 1, why="ü\x00")
    chain = ChainedJournal()
    audit.write(batch(chain.frames(new_record(1)), gaps=[other, late]))
    audit.write(batch(chain.frames(new_record(2)), gaps=[early]))
    audit.write(batch(chain.frames(new_record(3)), gaps=[early, late]))
    assert list(audit.gaps()) == [early, late, other]


def test_gaps_are_kept_without_any_record_and_through_the_days(audit: AuditStore) -> None:
    chain = ChainedJournal()
    audit.write(Batch(DAY, (), [position_of(JOURNAL, 0)], [new_gap(JOURNAL, 1)]))
    fill(audit, chain.frames(new_record(1)), DAY)
    fill(audit, chain.frames(new_record(2)), NEXT_DAY)
    audit.write(Batch(NEXT_DAY, (), [chain.position], [new_gap(JOURNAL, 3)]))
    assert list(audit.gaps()) == [new_gap(JOURNAL, 1), new_gap(JOURNAL, 3)]
