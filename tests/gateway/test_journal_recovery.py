"""What a restarted worker does with the journal that the one before it left: torn tails, damage, half a segment."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.journal import Journal
from gateway.journal.frames import pack_frame
from gateway.journal.segment import SegmentHeader, pack_header, parse_header, segment_numbers, segment_path
from gateway.metrics import Board
from tests.journals import Chain, Synced, made, open_journal

RESTART = Callable[[], Journal]


@pytest.fixture
def restart(tmp_path: Path) -> Iterator[RESTART]:
    """Open the journal `w0` as a new life of its worker; the one before is closed first."""
    board = Board(tmp_path / "worker-0.board")
    lives: list[Journal] = []

    def begin() -> Journal:
        for journal in lives:
            journal.close()
        lives.append(open_journal(tmp_path / "journal", board))
        return lives[-1]

    yield begin
    for journal in lives:
        journal.close()
    board.close()


def _written(restart: RESTART, records: int) -> tuple[Path, list[int], str]:
    """Write `records` in one life and return (segment, end of each frame, the journal's name)."""
    journal = restart()
    path = max(journal._folder.glob("*.journal"))
    ends = [path.stat().st_size]
    for number in range(1, records + 1):
        journal.append(*made(number, b"xxxxxxxxxx"))
        ends.append(path.stat().st_size)
    journal.close()
    return path, ends, journal.name


def _events(logs: list[dict[str, object]] | object) -> list[object]:
    assert isinstance(logs, list)
    return [line["event"] for line in logs]


def test_any_torn_tail_is_cut_to_the_last_whole_frame_and_its_size_is_logged(restart: RESTART) -> None:
    path, ends, name = _written(restart, 3)
    whole = path.read_bytes()
    for size in (*range(ends[2] + 1, ends[2] + 20), *range(ends[2] + 20, ends[3], 13), ends[3] - 1):
        for later in path.parent.glob("*.journal"):
            if later != path:
                later.unlink()
        path.write_bytes(whole[:size])
        with capture_logs() as logs:
            journal = restart()
        assert (journal.name, journal.sequence) == (name, 2)
        assert path.read_bytes() == whole[: ends[2]]
        assert [(line["event"], line["bytes"]) for line in logs] == [("journal_torn_tail_cut", size - ends[2])]


@pytest.mark.parametrize("tail", [bytes(5000), b"\xff" * 500, os.urandom(3000)], ids=["zeros", "ones", "noise"])
def test_a_tail_of_anything_that_holds_no_frame_is_cut(restart: RESTART, tail: bytes) -> None:
    path, ends, name = _written(restart, 3)
    with path.open("ab") as file:
        file.write(tail)
    journal = restart()
    assert (journal.name, journal.sequence) == (name, 3)
    assert path.stat().st_size == ends[3]


def test_a_last_frame_that_fails_its_checksum_is_cut(restart: RESTART) -> None:
    path, ends, name = _written(restart, 3)
    _flip(path, ends[3] - 1)
    journal = restart()
    assert (journal.name, journal.sequence) == (name, 2)
    assert path.stat().st_size == ends[2]


def test_nothing_is_cut_and_nothing_logged_when_the_journal_was_left_in_order(restart: RESTART) -> None:
    path, ends, name = _written(restart, 3)
    with capture_logs() as logs:
        journal = restart()
    assert (journal.name, journal.sequence) == (name, 3)
    assert path.stat().st_size == ends[3]
    assert logs == []


def test_a_damaged_payload_in_the_middle_is_told_and_the_sequence_goes_on_behind_the_last_frame(
    restart: RESTART,
) -> None:
    path, ends, name = _written(restart, 5)
    _flip(path, ends[3] - 1)
    before = path.read_bytes()
    with capture_logs() as logs:
        journal = restart()
    assert (journal.name, journal.sequence) == (name, 5)
    assert path.read_bytes() == before
    assert [(line["event"], line["offset"], line["sequence"]) for line in logs] == [("journal_damaged", ends[2], 3)]


@pytest.mark.parametrize("byte", [0, 1, 2, 3])
def test_another_journal_begins_and_no_byte_is_touched_when_a_length_in_the_middle_is_damaged(
    restart: RESTART, byte: int
) -> None:
    path, ends, name = _written(restart, 5)
    _flip(path, ends[2] + byte)
    before = path.read_bytes()
    with capture_logs() as logs:
        journal = restart()
    assert journal.name != name
    assert journal.sequence == 0
    assert path.read_bytes() == before
    assert "journal_damaged" in _events(logs)
    assert segment_numbers(path.parent) == [1, 2]


def test_another_journal_begins_when_the_newest_header_is_damaged(restart: RESTART) -> None:
    path, _, name = _written(restart, 2)
    _flip(path, 0)
    before = path.read_bytes()
    with capture_logs() as logs:
        journal = restart()
    assert journal.name != name
    assert path.read_bytes() == before
    assert "journal_segment_unreadable" in _events(logs)


@pytest.mark.parametrize("kept", [0, 1, 15, 40])
def test_a_segment_whose_header_was_never_finished_is_removed_and_the_one_before_it_counts(
    restart: RESTART, kept: int
) -> None:
    path, _, name = _written(restart, 2)
    unfinished = segment_path(path.parent, 2)
    unfinished.write_bytes(pack_header(SegmentHeader(name, 2, 3, 1, bytes(32)))[:kept])
    journal = restart()
    assert (journal.name, journal.sequence) == (name, 2)
    assert segment_numbers(path.parent) == [1, 3]
    header, _ = parse_header(segment_path(path.parent, 3).read_bytes())
    assert (header.journal, header.segment, header.first_sequence) == (name, 3, 3)


def test_a_torn_record_that_holds_the_bytes_of_a_frame_brings_no_record_back(restart: RESTART) -> None:
    """A caller may send the bytes of a frame in its body, which stand in the journal as they came."""
    path, _, name = _written(restart, 2)
    journal = restart()
    torn = segment_path(path.parent, 2)
    journal.append(*made(3, b"a" * 50 + pack_frame(4, b"\x81\xa4evil\x01") + b"z" * 500))
    journal.close()
    os.truncate(torn, torn.stat().st_size - 100)
    journal = restart()
    assert (journal.sequence, journal.name == name) == (0, False)


def test_an_emptied_folder_begins_another_journal(restart: RESTART) -> None:
    path, _, name = _written(restart, 2)
    path.unlink()
    journal = restart()
    assert (journal.sequence, journal.name == name) == (0, False)


def _flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def test_what_a_killed_writer_left_is_on_the_disk_before_its_successor_goes_on(
    restart: RESTART, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _, name = _written(restart, 3)
    with path.open("ab") as file:
        file.write(b"torn")
    older = Chain(name).segment(path.parent, 2, 4)
    path.rename(segment_path(path.parent, 3))
    path, older = segment_path(path.parent, 3), older.rename(segment_path(path.parent, 1))
    synced = Synced(monkeypatch)
    journal = restart()
    assert (journal.name, journal.sequence) == (name, 3)
    for left in (older, path, segment_path(path.parent, 4)):
        assert synced.holds(left, left.stat().st_size)
    assert synced.holds_names_in(path.parent)
