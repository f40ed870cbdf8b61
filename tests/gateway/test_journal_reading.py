"""Reading journals that are being written, were damaged, or belong to workers that are gone."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.journal.frames import pack_frame
from gateway.journal.reading import JournalReader
from gateway.journal.segment import Corruption, segment_path
from gateway.journal.tail import CHUNK_BYTES, Budget, Tail
from gateway.metrics import Board
from gateway.ports import JournalPosition
from gateway.record import Frame
from tests.journals import Chain, Synced, made, open_journal, sequences

NAME = "g/w0.0123456789ab"
OTHER = "g/w0.ffffffffffff"
CHAIN = Chain(NAME)
READ = Callable[..., "Reading"]


class Reading:
    """A tail on the test's folder with the alarms that it raised."""

    def __init__(self, folder: Path, positions: dict[str, JournalPosition]) -> None:
        self.alarms: list[Corruption] = []
        self.tail = Tail(folder, positions, lambda _, damage: self.alarms.append(damage))

    def frames(self, frames: int = 10**6, size: int = 10**9) -> list[Frame]:
        return self.tail.read(Budget(frames, size))

    def sequences(self) -> list[int]:
        return sequences(self.frames())


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


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _counted(alarms: list[Corruption]) -> int:
    """Return what the figure of lost records rises by: one at least for each damage, none twice."""
    return sum(max(1, alarm.missing) - alarm.told for alarm in alarms)


def test_a_single_record_lost_with_the_rest_of_its_segment_is_counted_once_and_told(folder: Path, read: READ) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1) + b"\xff\xff\x00\x00" + CHAIN.data(2)[4:] + CHAIN.data(3)[:-1])
    CHAIN.segment(folder, 2, 3, CHAIN.data(3))
    reading = read()
    assert reading.sequences() == [1, 3]
    assert sum(alarm.missing for alarm in reading.alarms) == _counted(reading.alarms) == 1


def test_what_is_missing_is_told_of_the_journal_that_it_is_missing_in(folder: Path, read: READ) -> None:
    other = Chain(OTHER)
    CHAIN.segment(folder, 1, 1, CHAIN.data(1) + b"torn")
    other.segment(folder, 2, 3, other.data(3))
    reading = read()
    assert [(frame.journal, frame.sequence) for frame in reading.frames()] == [(NAME, 1), (OTHER, 3)]
    told = [(alarm.journal, alarm.segment, alarm.sequence, alarm.missing) for alarm in reading.alarms]
    assert told == [(NAME, 1, 2, 0), (OTHER, 2, 1, 2)]


def test_frames_of_all_segments_come_in_order_each_once(folder: Path, read: READ) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1, 2))
    newest = CHAIN.segment(folder, 4, 3, CHAIN.data(3))
    reading = read()
    assert reading.frames() == CHAIN.frames(1, 2, 3)
    assert reading.frames() == []
    _append(newest, CHAIN.data(4))
    assert reading.sequences() == [4]
    CHAIN.segment(folder, 5, 5, CHAIN.data(5))
    assert reading.sequences() == [5]
    assert reading.alarms == []


def test_a_frame_that_is_half_written_is_read_when_the_rest_has_come(folder: Path, read: READ) -> None:
    frame = CHAIN.data(2)
    for cut in (1, 4, 8, 15, 16, 17, len(frame) - 1):
        path = CHAIN.segment(folder, 1, 1, CHAIN.data(1))
        reading = read()
        assert reading.sequences() == [1]
        _append(path, frame[:cut])
        assert reading.sequences() == []
        _append(path, frame[cut:])
        assert reading.sequences() == [2]
        assert reading.alarms == []


def test_a_segment_whose_header_is_half_written_is_read_when_the_rest_has_come(folder: Path, read: READ) -> None:
    path = CHAIN.segment(folder, 1, 1, CHAIN.data(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    reading = read()
    assert reading.sequences() == []
    path.write_bytes(whole)
    assert reading.sequences() == [1]
    assert reading.alarms == []


def test_what_was_appended_before_the_next_segment_is_read_before_it(folder: Path, read: READ) -> None:
    first = CHAIN.segment(folder, 1, 1, CHAIN.data(1))
    reading = read()
    assert reading.sequences() == [1]
    _append(first, CHAIN.data(2, 3))
    CHAIN.segment(folder, 2, 4, CHAIN.data(4))
    assert reading.sequences() == [2, 3, 4]
    assert reading.alarms == []


def test_a_budget_bounds_each_round_and_nothing_is_left_out(folder: Path, read: READ) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(*range(1, 8)))
    CHAIN.segment(folder, 2, 8, CHAIN.data(*range(8, 12)))
    reading = read()
    rounds = []
    while frames := reading.frames(frames=3):
        rounds.append([frame.sequence for frame in frames])
    assert rounds == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11]]
    by_size = read()
    assert [frame.sequence for frame in by_size.frames(size=len(CHAIN.data(1)) + 1)] == [1, 2]


def test_frames_larger_than_what_is_read_at_once_come_whole(folder: Path, read: READ) -> None:
    large = os.urandom(3 * CHUNK_BYTES)
    chain = Chain(NAME, {2: large, 4: large[: CHUNK_BYTES - 200]})
    chain.segment(folder, 1, 1, chain.data(1, 2, 3, 4))
    reading = read()
    assert reading.frames() == chain.frames(1, 2, 3, 4)
    assert reading.alarms == []


def test_reading_goes_on_from_a_position(folder: Path, read: READ) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1))
    second = CHAIN.segment(folder, 2, 2, CHAIN.data(2, 3))
    CHAIN.segment(folder, 3, 4, CHAIN.data(4))
    offset = second.stat().st_size - len(CHAIN.data(3))
    reading = read({NAME: CHAIN.position(2, offset, 2)})
    assert reading.sequences() == [3, 4]
    assert reading.alarms == []
    [place] = reading.tail.positions()
    assert place == CHAIN.position(3, segment_path(folder, 3).stat().st_size, 4)


def test_reading_goes_on_when_the_segment_of_the_position_is_deleted(folder: Path, read: READ) -> None:
    CHAIN.segment(folder, 3, 4, CHAIN.data(4))
    reading = read({NAME: CHAIN.position(2, 500, 3)})
    assert reading.sequences() == [4]
    assert reading.alarms == []


def test_another_journal_in_the_same_folder_is_read_from_its_beginning(folder: Path, read: READ) -> None:
    other = Chain(OTHER)
    CHAIN.segment(folder, 1, 1, CHAIN.data(1, 2))
    other.segment(folder, 2, 1, other.data(1))
    reading = read({NAME: CHAIN.position(1, segment_path(folder, 1).stat().st_size, 2)})
    assert reading.frames() == [other.frame(1)]
    assert {place.journal: place.sequence for place in reading.tail.positions()} == {NAME: 2, OTHER: 1}
    assert reading.alarms == []


def test_a_damaged_payload_costs_its_record_only_and_raises_one_alarm(folder: Path, read: READ) -> None:
    damaged = CHAIN.data(2)[:-1] + b"!"
    path = CHAIN.segment(folder, 1, 1, CHAIN.data(1) + damaged + CHAIN.data(3))
    reading = read()
    assert reading.sequences() == [1, 3]
    assert reading.sequences() == []
    [alarm] = reading.alarms
    assert (alarm.segment, alarm.sequence, alarm.missing, alarm.frames_follow) == (1, 2, 1, True)
    assert alarm.offset == path.stat().st_size - len(damaged) - len(CHAIN.data(3))


def test_a_damaged_payload_larger_than_what_is_read_at_once_costs_its_record_only(folder: Path, read: READ) -> None:
    chain = Chain(NAME, {2: bytes(2 * CHUNK_BYTES)})
    damaged = chain.data(2)[:-1] + b"!"
    chain.segment(folder, 1, 1, chain.data(1) + damaged + chain.data(3))
    reading = read()
    assert reading.sequences() == [1, 3]
    assert [alarm.missing for alarm in reading.alarms] == [1]


def test_frames_that_were_taken_out_are_missed(folder: Path, read: READ) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1, 4, 5))
    reading = read()
    assert reading.sequences() == [1, 4, 5]
    assert [(alarm.sequence, alarm.missing) for alarm in reading.alarms] == [(2, 2)]


def test_a_payload_that_is_no_record_costs_itself_only(folder: Path, read: READ) -> None:
    CHAIN.segment(folder, 1, 1, pack_frame(1, msgspec.msgpack.encode({"not": "a record"})) + CHAIN.data(2))
    reading = read()
    assert reading.sequences() == [2]
    assert [(alarm.sequence, alarm.missing, alarm.frames_follow) for alarm in reading.alarms] == [(1, 1, True)]


@pytest.mark.parametrize("length", [b"\x00\x00\x00\x00", b"\xff\xff\x00\x00", b"\xff\xff\xff\xff", b"\x05\x00\x00\x00"])
def test_a_damaged_length_costs_the_rest_of_its_segment_and_the_alarm_counts_it(
    folder: Path, read: READ, length: bytes
) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1) + length + CHAIN.data(2)[4:] + CHAIN.data(3, 4))
    CHAIN.segment(folder, 2, 5, CHAIN.data(5))
    reading = read()
    assert reading.sequences() == [1, 5]
    # In two places, since nobody could tell how many they are before the next segment said where it begins.
    assert [(alarm.segment, alarm.sequence, alarm.missing) for alarm in reading.alarms] == [(1, 2, 0), (2, 2, 3)]
    assert not any(alarm.frames_follow for alarm in reading.alarms)
    assert _counted(reading.alarms) == 3


def test_damage_in_a_live_segment_raises_the_alarm_without_waiting_for_the_next_one(
    folder: Path, read: READ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.journal.tail.STUCK_SECONDS", 0.0)
    path = CHAIN.segment(folder, 1, 1, CHAIN.data(1) + b"\xff\xff\x00\x00" + CHAIN.data(2)[4:])
    reading = read()
    assert reading.sequences() == [1]
    assert reading.sequences() == []
    assert reading.alarms == []
    _append(path, CHAIN.data(3))
    assert reading.sequences() == []
    assert reading.sequences() == []
    assert [(alarm.sequence, alarm.frames_follow) for alarm in reading.alarms] == [(2, False)]
    CHAIN.segment(folder, 2, 4, CHAIN.data(4))
    assert reading.sequences() == [4]
    assert [(alarm.segment, alarm.sequence, alarm.missing) for alarm in reading.alarms] == [(1, 2, 0), (2, 2, 2)]
    assert _counted(reading.alarms) == 2


def test_damage_that_raised_the_alarm_is_not_counted_again_when_another_journal_follows(
    folder: Path, read: READ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.journal.tail.STUCK_SECONDS", 0.0)
    CHAIN.segment(folder, 1, 1, CHAIN.data(1) + b"\xff\xff\x00\x00" + CHAIN.data(2)[4:] + CHAIN.data(3))
    reading = read()
    assert reading.sequences() + reading.sequences() == [1]
    other = Chain(OTHER)
    other.segment(folder, 2, 1, other.data(1))
    assert reading.sequences() == [1]
    assert len(reading.alarms) == 1


def test_a_bad_frame_at_the_end_costs_itself_only_when_another_and_a_segment_follow(folder: Path, read: READ) -> None:
    path = CHAIN.segment(folder, 1, 1, CHAIN.data(1, 2)[:-1] + b"!")
    reading = read()
    assert reading.sequences() == [1]
    _append(path, CHAIN.data(3))
    CHAIN.segment(folder, 2, 4, CHAIN.data(4))
    assert reading.sequences() == [3, 4]
    assert [alarm.missing for alarm in reading.alarms] == [1]


def test_every_frame_is_read_while_a_writer_rotates_as_fast_as_it_can(tmp_path: Path, folder: Path, read: READ) -> None:
    board = Board(tmp_path / "worker-0.board")
    journal = open_journal(tmp_path / "journal", board, 1_000)
    last = 1_500

    def write() -> None:
        for number in range(last):
            journal.append(*made(number))

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
    CHAIN.segment(folder, 1, 1, CHAIN.data(1))
    CHAIN.segment(folder, 3, 5, CHAIN.data(5))
    reading = read()
    assert reading.sequences() == [1, 5]
    assert [(alarm.segment, alarm.missing) for alarm in reading.alarms] == [(3, 3)]


def test_a_journal_whose_beginning_is_gone_is_read_with_an_alarm(folder: Path, read: READ) -> None:
    CHAIN.segment(folder, 3, 5, CHAIN.data(5))
    reading = read()
    assert reading.sequences() == [5]
    assert [(alarm.journal, alarm.sequence, alarm.missing) for alarm in reading.alarms] == [(NAME, 1, 4)]


def test_sequences_that_begin_again_are_read_with_an_alarm(folder: Path, read: READ) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1, 2, 3))
    CHAIN.segment(folder, 2, 3, CHAIN.data(3, 4))
    reading = read()
    assert reading.sequences() == [1, 2, 3, 3, 4]
    assert len(reading.alarms) == 1


def test_a_segment_with_an_unreadable_header_is_passed_over_with_an_alarm(folder: Path, read: READ) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1))
    broken = CHAIN.segment(folder, 2, 2, CHAIN.data(2))
    broken.write_bytes(b"X" + broken.read_bytes()[1:])
    reading = read()
    assert reading.sequences() == [1]
    assert [alarm.segment for alarm in reading.alarms] == [2]
    CHAIN.segment(folder, 3, 3, CHAIN.data(3))
    assert reading.sequences() == [3]
    assert [(alarm.segment, alarm.missing) for alarm in reading.alarms] == [(2, 0), (3, 1)]


def test_bytes_that_a_caller_sent_are_never_taken_for_a_frame(folder: Path, read: READ) -> None:
    forged = CHAIN.data(3)
    chain = Chain(NAME, {2: b"a" * 50 + forged + b"z" * 50})
    carrier = chain.data(2)
    whole = chain.data(1) + carrier
    for cut in range(len(whole) - len(carrier) + 1, len(whole)):
        path = chain.segment(folder, 1, 1, whole[:cut])
        reading = read()
        assert reading.sequences() == [1]
        assert reading.sequences() == []
        reading.tail.close()
        path.unlink()
    chain.segment(folder, 1, 1, chain.data(1) + b"\xff\xff\x00\x00" + carrier[4:] + chain.data(3))
    chain.segment(folder, 2, 4, chain.data(4))
    reading = read()
    assert [frame.record.record_id for frame in reading.frames()] == ["r-1", "r-4"]
    assert reading.alarms != []


def test_a_file_that_cannot_be_read_raises_the_alarm_and_leaves_the_others_alone(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "journal" / "w1"
    other.mkdir()
    segment_path(folder, 1).mkdir()
    CHAIN.segment(other, 1, 1, CHAIN.data(1))
    alarms: list[Corruption] = []
    reader = JournalReader(tmp_path / "journal", {}, lambda _, damage: alarms.append(damage))
    reader.discover()
    try:
        assert [frame.journal for frame in reader.read(Budget(10, 10**6))] == [NAME]
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
        chain = Chain(f"g/{worker}.0123456789ab")
        chain.segment(folder / worker, 1, 1, chain.data(1, 2))
    (folder / "not-a-folder").touch()
    reader.discover()
    first = {frame.journal for _ in range(3) for frame in reader.read(Budget(1, 10**6))}
    assert first == {"g/w0.0123456789ab", "g/w1.0123456789ab", "g/w2.0123456789ab"}
    assert len(reader.read(Budget(10, 10**6))) == 3
    assert sorted((place.journal, place.sequence) for place in reader.positions()) == [
        (f"g/{worker}.0123456789ab", 2) for worker in ("w0", "w1", "w2")
    ]
    reader.sync()
    reader.close()


def test_what_was_read_is_on_the_disk_with_the_names_of_its_segments_once_it_was_synced(
    folder: Path, read: READ, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = CHAIN.segment(folder, 1, 1, CHAIN.data(1, 2))
    second = CHAIN.segment(folder, 2, 3, CHAIN.data(3))
    synced, reading = Synced(monkeypatch), read()
    assert reading.sequences() == [1, 2, 3]
    reading.tail.sync()
    assert synced.holds(first, first.stat().st_size)
    assert synced.holds(second, second.stat().st_size)
    assert synced.holds_names_in(folder)
    calls = synced.calls
    reading.tail.sync()
    assert synced.calls == calls
    _append(second, CHAIN.data(4))
    assert reading.sequences() == [4]
    reading.tail.sync()
    assert synced.holds(second, second.stat().st_size)
    assert not synced.holds_names_in(folder)


class BadMedium:
    """Segments that the medium has lost from some byte on: reading there fails, as on a disk with a bad sector."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lost: dict[Path, int] = {}
        self._pread = os.pread
        monkeypatch.setattr(os, "pread", self._read)

    def _read(self, descriptor: int, size: int, offset: int) -> bytes:
        lost = self.lost.get(Path(f"/proc/self/fd/{descriptor}").readlink())
        if lost is not None and offset + size > lost:
            if offset >= lost:
                raise OSError(errno.EIO, "Input/output error")
            size = lost - offset
        return self._pread(descriptor, size, offset)


def test_a_bad_sector_costs_the_rest_of_its_segment_and_not_the_next_ones(
    folder: Path, read: READ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.journal.tail.STUCK_SECONDS", 0.0)
    medium = BadMedium(monkeypatch)
    first = CHAIN.segment(folder, 1, 1, CHAIN.data(1))
    medium.lost[first] = first.stat().st_size
    _append(first, CHAIN.data(2, 3))
    reading = read()
    assert reading.sequences() + reading.sequences() == [1]
    assert [(alarm.sequence, alarm.missing) for alarm in reading.alarms] == [(2, 0)]
    second = CHAIN.segment(folder, 2, 4, CHAIN.data(4))
    medium.lost[second] = 0
    assert reading.sequences() + reading.sequences() == []
    CHAIN.segment(folder, 3, 5, CHAIN.data(5))
    assert reading.sequences() + reading.sequences() == [5]
    assert sum(alarm.missing for alarm in reading.alarms) == 3


def test_a_sector_that_can_be_read_the_next_time_costs_nothing(
    folder: Path, read: READ, monkeypatch: pytest.MonkeyPatch
) -> None:
    medium = BadMedium(monkeypatch)
    first = CHAIN.segment(folder, 1, 1, CHAIN.data(1))
    medium.lost[first] = first.stat().st_size
    _append(first, CHAIN.data(2, 3))
    CHAIN.segment(folder, 2, 4, CHAIN.data(4))
    reading = read()
    assert reading.sequences() + reading.sequences() == [1]
    medium.lost.clear()
    assert reading.sequences() == [2, 3, 4]
