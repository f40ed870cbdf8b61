"""Reading journals that are being written, were damaged, or belong to workers that are gone."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.journal import Journal
from gateway.journal.reading import JournalReader
from gateway.journal.segment import Corruption, SegmentHeader, pack_frame, pack_header, segment_path
from gateway.journal.tail import CHUNK_BYTES, Budget, Tail
from gateway.metrics import Board
from gateway.ports import JournalPosition
from gateway.record import Frame, Payload, Record, encode_record

NAME = "w0.0123456789ab"
READ = Callable[..., "Reading"]


class Reading:
    """A tail on the test's folder with the alarms that it raised."""

    def __init__(self, folder: Path, positions: dict[str, JournalPosition]) -> None:
        self.alarms: list[Corruption] = []
        self.tail = Tail(folder, positions, lambda _, damage: self.alarms.append(damage))

    def frames(self, frames: int = 10**6, size: int = 10**9) -> list[Frame]:
        return self.tail.read(Budget(frames, size))

    def sequences(self) -> list[int]:
        return [frame.sequence for frame in self.frames()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "journal" / "w0"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def read(folder: Path) -> Iterator[READ]:
    opened: list[Reading] = []

    def begin(positions: dict[str, JournalPosition] | None = None) -> Reading:
        opened.append(Reading(folder, positions or {}))
        return opened[-1]

    yield begin
    for reading in opened:
        reading.tail.close()


def _record(number: int, body: bytes = b"xxxxxxxxxx") -> Record:
    return Record(
        record_id=f"r-{number}",
        request_id=f"q-{number}",
        role="primary",
        received_ns=number,
        model="fraud",
        protocol="oip-v2",
        outcome="served",
        status=200,
        request=Payload(len(body), "a" * 64, body),
        response=Payload(0, "b" * 64),
    )


def _frame(sequence: int, body: bytes = b"xxxxxxxxxx") -> bytes:
    return pack_frame(sequence, encode_record(_record(sequence, body)))


def _segment(folder: Path, number: int, first: int, frames: bytes, name: str = NAME) -> Path:
    path = segment_path(folder, number)
    path.write_bytes(pack_header(SegmentHeader(name, number, first, 1)) + frames)
    return path


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_frames_of_all_segments_come_in_order_each_once(folder: Path, read: READ) -> None:
    _segment(folder, 1, 1, _frame(1) + _frame(2))
    newest = _segment(folder, 4, 3, _frame(3))
    reading = read()
    assert reading.frames() == [Frame(NAME, number, _record(number)) for number in (1, 2, 3)]
    assert reading.frames() == []
    _append(newest, _frame(4))
    assert reading.sequences() == [4]
    _segment(folder, 5, 5, _frame(5))
    assert reading.sequences() == [5]
    assert reading.alarms == []


def test_a_frame_that_is_half_written_is_read_when_the_rest_has_come(folder: Path, read: READ) -> None:
    frame = _frame(2)
    for cut in (1, 4, 8, 15, 16, 17, len(frame) - 1):
        path = _segment(folder, 1, 1, _frame(1))
        reading = read()
        assert reading.sequences() == [1]
        _append(path, frame[:cut])
        assert reading.sequences() == []
        _append(path, frame[cut:])
        assert reading.sequences() == [2]
        assert reading.alarms == []


def test_a_segment_whose_header_is_half_written_is_read_when_the_rest_has_come(folder: Path, read: READ) -> None:
    path = _segment(folder, 1, 1, _frame(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    reading = read()
    assert reading.sequences() == []
    path.write_bytes(whole)
    assert reading.sequences() == [1]
    assert reading.alarms == []


def test_what_was_appended_before_the_next_segment_is_read_before_it(folder: Path, read: READ) -> None:
    first = _segment(folder, 1, 1, _frame(1))
    reading = read()
    assert reading.sequences() == [1]
    _append(first, _frame(2) + _frame(3))
    _segment(folder, 2, 4, _frame(4))
    assert reading.sequences() == [2, 3, 4]
    assert reading.alarms == []


def test_a_budget_bounds_each_round_and_nothing_is_left_out(folder: Path, read: READ) -> None:
    _segment(folder, 1, 1, b"".join(_frame(number) for number in range(1, 8)))
    _segment(folder, 2, 8, b"".join(_frame(number) for number in range(8, 12)))
    reading = read()
    rounds = []
    while frames := reading.frames(frames=3):
        rounds.append([frame.sequence for frame in frames])
    assert rounds == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11]]
    by_size = read()
    assert [frame.sequence for frame in by_size.frames(size=len(_frame(1)) + 1)] == [1, 2]


def test_frames_larger_than_what_is_read_at_once_come_whole(folder: Path, read: READ) -> None:
    large = os.urandom(3 * CHUNK_BYTES)
    _segment(folder, 1, 1, _frame(1) + _frame(2, large) + _frame(3) + _frame(4, large[: CHUNK_BYTES - 200]))
    reading = read()
    frames = reading.frames()
    assert [frame.sequence for frame in frames] == [1, 2, 3, 4]
    assert frames[1].record.request.body == large
    assert reading.alarms == []


def test_reading_goes_on_from_a_position(folder: Path, read: READ) -> None:
    _segment(folder, 1, 1, _frame(1))
    second = _segment(folder, 2, 2, _frame(2) + _frame(3))
    _segment(folder, 3, 4, _frame(4))
    offset = second.stat().st_size - len(_frame(3))
    reading = read({NAME: JournalPosition(NAME, 2, offset, 2)})
    assert reading.sequences() == [3, 4]
    assert reading.alarms == []
    [place] = reading.tail.positions()
    assert place == JournalPosition(NAME, 3, segment_path(folder, 3).stat().st_size, 4)


def test_reading_goes_on_when_the_segment_of_the_position_is_deleted(folder: Path, read: READ) -> None:
    _segment(folder, 3, 4, _frame(4))
    reading = read({NAME: JournalPosition(NAME, 2, 500, 3)})
    assert reading.sequences() == [4]
    assert reading.alarms == []


def test_another_journal_in_the_same_folder_is_read_from_its_beginning(folder: Path, read: READ) -> None:
    other = "w0.ffffffffffff"
    _segment(folder, 1, 1, _frame(1) + _frame(2))
    _segment(folder, 2, 1, _frame(1), name=other)
    reading = read({NAME: JournalPosition(NAME, 1, segment_path(folder, 1).stat().st_size, 2)})
    assert [(frame.journal, frame.sequence) for frame in reading.frames()] == [(other, 1)]
    assert {place.journal: place.sequence for place in reading.tail.positions()} == {NAME: 2, other: 1}
    assert reading.alarms == []


def test_a_damaged_payload_costs_its_record_only_and_raises_one_alarm(folder: Path, read: READ) -> None:
    damaged = _frame(2)[:-1] + b"!"
    path = _segment(folder, 1, 1, _frame(1) + damaged + _frame(3))
    reading = read()
    assert reading.sequences() == [1, 3]
    assert reading.sequences() == []
    [alarm] = reading.alarms
    assert (alarm.segment, alarm.sequence, alarm.missing, alarm.frames_follow) == (1, 2, 1, True)
    assert alarm.offset == path.stat().st_size - len(damaged) - len(_frame(3))


def test_a_damaged_payload_larger_than_what_is_read_at_once_costs_its_record_only(folder: Path, read: READ) -> None:
    damaged = _frame(2, b"x" * 2 * CHUNK_BYTES)[:-1] + b"!"
    _segment(folder, 1, 1, _frame(1) + damaged + _frame(3))
    reading = read()
    assert reading.sequences() == [1, 3]
    assert [alarm.missing for alarm in reading.alarms] == [1]


def test_frames_that_were_taken_out_are_missed(folder: Path, read: READ) -> None:
    _segment(folder, 1, 1, _frame(1) + _frame(4) + _frame(5))
    reading = read()
    assert reading.sequences() == [1, 4, 5]
    assert [(alarm.sequence, alarm.missing) for alarm in reading.alarms] == [(2, 2)]


def test_a_payload_that_is_no_record_costs_itself_only(folder: Path, read: READ) -> None:
    _segment(folder, 1, 1, pack_frame(1, msgspec.msgpack.encode({"not": "a record"})) + _frame(2))
    reading = read()
    assert reading.sequences() == [2]
    assert [(alarm.sequence, alarm.missing, alarm.frames_follow) for alarm in reading.alarms] == [(1, 1, True)]


@pytest.mark.parametrize("length", [b"\x00\x00\x00\x00", b"\xff\xff\x00\x00", b"\xff\xff\xff\xff", b"\x05\x00\x00\x00"])
def test_a_damaged_length_costs_the_rest_of_its_segment_and_the_alarm_counts_it(
    folder: Path, read: READ, length: bytes
) -> None:
    _segment(folder, 1, 1, _frame(1) + length + _frame(2)[4:] + _frame(3) + _frame(4))
    _segment(folder, 2, 5, _frame(5))
    reading = read()
    assert reading.sequences() == [1, 5]
    assert sum(max(1, alarm.missing) for alarm in reading.alarms) == 3
    assert {(alarm.segment, alarm.sequence, alarm.frames_follow) for alarm in reading.alarms} == {(1, 2, False)}


def test_damage_in_a_live_segment_raises_the_alarm_without_waiting_for_the_next_one(
    folder: Path, read: READ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.journal.tail.STUCK_SECONDS", 0.0)
    path = _segment(folder, 1, 1, _frame(1) + b"\xff\xff\x00\x00" + _frame(2)[4:])
    reading = read()
    assert reading.sequences() == [1]
    assert reading.sequences() == []
    assert reading.alarms == []
    _append(path, _frame(3))
    assert reading.sequences() == []
    assert reading.sequences() == []
    assert [(alarm.sequence, alarm.frames_follow) for alarm in reading.alarms] == [(2, False)]
    _segment(folder, 2, 4, _frame(4))
    assert reading.sequences() == [4]
    assert sum(max(1, alarm.missing) for alarm in reading.alarms) == 2


def test_damage_that_raised_the_alarm_is_not_counted_again_when_another_journal_follows(
    folder: Path, read: READ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.journal.tail.STUCK_SECONDS", 0.0)
    _segment(folder, 1, 1, _frame(1) + b"\xff\xff\x00\x00" + _frame(2)[4:] + _frame(3))
    reading = read()
    assert reading.sequences() + reading.sequences() == [1]
    _segment(folder, 2, 1, _frame(1), name="w0.ffffffffffff")
    assert reading.sequences() == [1]
    assert len(reading.alarms) == 1


def test_a_bad_frame_at_the_end_costs_itself_only_when_another_and_a_segment_follow(folder: Path, read: READ) -> None:
    path = _segment(folder, 1, 1, _frame(1) + _frame(2)[:-1] + b"!")
    reading = read()
    assert reading.sequences() == [1]
    _append(path, _frame(3))
    _segment(folder, 2, 4, _frame(4))
    assert reading.sequences() == [3, 4]
    assert [alarm.missing for alarm in reading.alarms] == [1]


def test_every_frame_is_read_while_a_writer_rotates_as_fast_as_it_can(tmp_path: Path, folder: Path, read: READ) -> None:
    board = Board(tmp_path / "worker-0.board")
    journal = Journal(tmp_path / "journal", "w0", 1_000, board)
    last = 1_500

    def write() -> None:
        for number in range(last):
            journal.append(_record(number))

    writer = threading.Thread(target=write)
    reading = read()
    writer.start()
    seen: list[int] = []
    deadline = time.monotonic() + 60
    while len(seen) < last and time.monotonic() < deadline:
        seen += reading.sequences()
    writer.join()
    journal.close()
    board.close()
    assert seen == list(range(1, last + 1))
    assert reading.alarms == []


def test_a_lost_segment_is_missed(folder: Path, read: READ) -> None:
    _segment(folder, 1, 1, _frame(1))
    _segment(folder, 3, 5, _frame(5))
    reading = read()
    assert reading.sequences() == [1, 5]
    assert [(alarm.segment, alarm.missing) for alarm in reading.alarms] == [(3, 3)]


def test_a_journal_whose_beginning_is_gone_is_read_with_an_alarm(folder: Path, read: READ) -> None:
    _segment(folder, 3, 5, _frame(5))
    reading = read()
    assert reading.sequences() == [5]
    assert [alarm.missing for alarm in reading.alarms] == [4]


def test_sequences_that_begin_again_are_read_with_an_alarm(folder: Path, read: READ) -> None:
    _segment(folder, 1, 1, _frame(1) + _frame(2) + _frame(3))
    _segment(folder, 2, 3, _frame(3) + _frame(4))
    reading = read()
    assert reading.sequences() == [1, 2, 3, 3, 4]
    assert len(reading.alarms) == 1


def test_a_segment_with_an_unreadable_header_is_passed_over_with_an_alarm(folder: Path, read: READ) -> None:
    _segment(folder, 1, 1, _frame(1))
    broken = _segment(folder, 2, 2, _frame(2))
    broken.write_bytes(b"X" + broken.read_bytes()[1:])
    reading = read()
    assert reading.sequences() == [1]
    assert [alarm.segment for alarm in reading.alarms] == [2]
    _segment(folder, 3, 3, _frame(3))
    assert reading.sequences() == [3]
    assert [(alarm.segment, alarm.missing) for alarm in reading.alarms] == [(2, 0), (3, 1)]


def test_bytes_that_a_caller_sent_are_never_taken_for_a_frame(folder: Path, read: READ) -> None:
    forged = pack_frame(3, encode_record(_record(666)))
    carrier = _frame(2, b"a" * 50 + forged + b"z" * 50)
    whole = _frame(1) + carrier
    for cut in range(len(whole) - len(carrier) + 1, len(whole)):
        path = _segment(folder, 1, 1, whole[:cut])
        reading = read()
        assert reading.sequences() == [1]
        assert reading.sequences() == []
        reading.tail.close()
        path.unlink()
    _segment(folder, 1, 1, _frame(1) + b"\xff\xff\x00\x00" + carrier[4:] + _frame(3))
    _segment(folder, 2, 4, _frame(4))
    reading = read()
    assert [frame.record.record_id for frame in reading.frames()] == ["r-1", "r-4"]
    assert reading.alarms != []


def test_a_file_that_cannot_be_read_raises_the_alarm_and_leaves_the_others_alone(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "journal" / "w1"
    other.mkdir()
    segment_path(folder, 1).mkdir()
    _segment(other, 1, 1, _frame(1), name="w1.0123456789ab")
    alarms: list[Corruption] = []
    reader = JournalReader(tmp_path / "journal", {}, lambda _, damage: alarms.append(damage))
    reader.discover()
    try:
        assert [frame.journal for frame in reader.read(Budget(10, 10**6))] == ["w1.0123456789ab"]
        assert reader.read(Budget(10, 10**6)) == []
        assert len(alarms) == 1
    finally:
        reader.close()


def test_folders_of_new_workers_are_taken_up_and_every_journal_gets_its_turn(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    reader = JournalReader(folder, {}, lambda _, damage: pytest.fail(str(damage)))
    reader.discover()
    assert reader.read(Budget(10, 10**6)) == []
    for worker in ("w0", "w1", "w2"):
        (folder / worker).mkdir(parents=True)
        _segment(folder / worker, 1, 1, _frame(1) + _frame(2), name=f"{worker}.0123456789ab")
    (folder / "not-a-folder").touch()
    reader.discover()
    first = {frame.journal for _ in range(3) for frame in reader.read(Budget(1, 10**6))}
    assert first == {"w0.0123456789ab", "w1.0123456789ab", "w2.0123456789ab"}
    assert len(reader.read(Budget(10, 10**6))) == 3
    assert sorted((place.journal, place.sequence) for place in reader.positions()) == [
        (f"{worker}.0123456789ab", 2) for worker in ("w0", "w1", "w2")
    ]
    reader.sync()
    reader.close()
