"""Appending to a journal: numbering, rotation, syncing, and the end of a journal whose disk fails."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.errors import AuditUnavailable
from gateway.journal import Journal
from gateway.journal.segment import segment_numbers, segment_path
from gateway.metrics import Board, Slot
from tests.journals import Synced, assert_chained, ids, made, read_all, sequences, wait
from tests.journals import open_journal as open_a_journal

OPEN = Callable[..., Journal]


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "worker-0.board")
    yield board
    board.close()


@pytest.fixture
def open_journal(tmp_path: Path, board: Board) -> Iterator[OPEN]:
    """Open journals in the test's folder; they are closed with the test."""
    opened: list[Journal] = []

    def open_one(segment_bytes: int = 2**20, name: str = "w0") -> Journal:
        opened.append(open_a_journal(tmp_path / "journal", board, segment_bytes, name))
        return opened[-1]

    yield open_one
    for journal in opened:
        journal.close()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Synced:
    return Synced(monkeypatch)


def _descriptors_of(folder: Path) -> list[int]:
    """Return the descriptors of this process that are open on segments in `folder`."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = entry.readlink()
        except OSError:
            continue
        if target.parent == folder and target.suffix == ".journal":
            found.append(int(entry.name))
    return found


def test_records_are_numbered_from_one_and_read_in_order(tmp_path: Path, open_journal: OPEN, board: Board) -> None:
    journal = open_journal()
    given = [made(number, b"body %d" % number, b"answer") for number in range(1, 6)]
    for number, one in enumerate(given, 1):
        journal.append(*one)
        assert board[Slot.JOURNAL_SEQUENCE] == journal.sequence == number
    frames = read_all(tmp_path / "journal" / "w0")
    assert [(frame.journal, frame.sequence) for frame in frames] == [(journal.name, number) for number in range(1, 6)]
    assert [(frame.record, frame.request, frame.response) for frame in frames] == given
    assert re.fullmatch(r"g/w0\.[0-9a-f]{12}", journal.name)


def test_a_record_can_be_read_as_soon_as_it_is_appended(tmp_path: Path, open_journal: OPEN) -> None:
    journal = open_journal()
    journal.append(*made(1))
    assert len(read_all(tmp_path / "journal" / "w0")) == 1


def test_the_sequence_goes_on_over_segments_and_restarts(tmp_path: Path, open_journal: OPEN) -> None:
    folder = tmp_path / "journal" / "w0"
    names = set()
    for life in range(3):
        journal = open_journal(segment_bytes=1000)
        names.add(journal.name)
        for number in range(10):
            journal.append(*made(life * 10 + number, bytes(300)))
        journal.close()
    frames = read_all(folder)
    assert sequences(frames) == list(range(1, 31))
    assert ids(frames) == [f"r-{number}" for number in range(30)]
    assert_chained(frames)
    assert {frame.journal for frame in frames} == names
    assert len(names) == 1
    numbers = segment_numbers(folder)
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 6


def test_a_segment_is_closed_at_its_size_and_never_grows_by_more_than_one_record(
    tmp_path: Path, open_journal: OPEN
) -> None:
    journal = open_journal(segment_bytes=2000)
    for number in range(40):
        journal.append(*made(number, bytes(400)))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "journal" / "w0").glob("*.journal"))]
    assert all(2000 <= size < 2000 + 800 for size in sizes[:-1])


def test_a_record_larger_than_a_segment_is_kept_whole(tmp_path: Path, open_journal: OPEN) -> None:
    journal = open_journal(segment_bytes=4096)
    large, small = made(1, os.urandom(3_000_000)), made(2)
    journal.append(*large)
    journal.append(*small)
    frames = read_all(tmp_path / "journal" / "w0")
    assert [(frame.record, frame.request, frame.response) for frame in frames] == [large, small]


def test_nobody_else_may_read_the_files(tmp_path: Path, open_journal: OPEN) -> None:
    open_journal(segment_bytes=100).append(*made(1))
    folder = tmp_path / "journal" / "w0"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_second_writer_is_refused_while_the_first_is_there(open_journal: OPEN) -> None:
    first = open_journal()
    with pytest.raises(AuditUnavailable, match="another process"):
        open_journal()
    other = open_journal(name="w1")
    first.close()
    assert open_journal().name == first.name != other.name


def test_what_is_appended_is_synced_in_the_background(tmp_path: Path, open_journal: OPEN, synced: Synced) -> None:
    journal = open_journal(segment_bytes=1000)
    for number in range(20):
        journal.append(*made(number, bytes(300)))
    segments = sorted((tmp_path / "journal" / "w0").glob("*.journal"))
    assert len(segments) > 3
    wait(lambda: all(synced.holds(path, path.stat().st_size) for path in segments), "everything synced")
    wait(lambda: len(_descriptors_of(segments[0].parent)) == 1, "the full segments closed")


def test_rotation_leaves_no_file_open_behind_it(tmp_path: Path, open_journal: OPEN) -> None:
    journal = open_journal(segment_bytes=1000)
    for number in range(20):
        journal.append(*made(number, bytes(300)))
    journal.sync()
    assert len(_descriptors_of(tmp_path / "journal" / "w0")) == 1
    journal.close()
    assert _descriptors_of(tmp_path / "journal" / "w0") == []


def test_appending_is_refused_after_close_and_close_may_be_repeated(open_journal: OPEN) -> None:
    journal = open_journal()
    journal.close()
    journal.close()
    assert journal.failed
    with pytest.raises(AuditUnavailable):
        journal.append(*made(1))
    with pytest.raises(AuditUnavailable):
        journal.sync()


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_the_journal_is_closed_for_good_when_a_write_fails(
    tmp_path: Path, open_journal: OPEN, board: Board, device: str
) -> None:
    """The segment's descriptor is put on a device that is full, or on one that cannot be written through it."""
    folder = tmp_path / "journal" / "w0"
    journal = open_journal()
    journal.append(*made(1))
    journal.sync()
    [descriptor] = _descriptors_of(folder)
    kept = os.dup(descriptor)
    broken = os.open(device, os.O_WRONLY if device == "/dev/full" else os.O_RDONLY)
    os.dup2(broken, descriptor)
    with pytest.raises(AuditUnavailable):
        journal.append(*made(2))
    os.dup2(kept, descriptor)
    os.close(kept)
    os.close(broken)
    assert journal.failed
    with pytest.raises(AuditUnavailable):
        journal.append(*made(3))
    assert board[Slot.JOURNAL_SEQUENCE] == 1
    journal.close()
    successor = open_journal()
    successor.append(*made(4))
    assert ids(read_all(folder)) == ["r-1", "r-4"]


def test_the_journal_is_closed_for_good_when_a_sync_fails(tmp_path: Path, open_journal: OPEN) -> None:
    """A pipe takes what is written to it but cannot be synced."""
    journal = open_journal()
    [descriptor] = _descriptors_of(tmp_path / "journal" / "w0")
    reading, writing = os.pipe()
    os.dup2(writing, descriptor)
    journal.append(*made(1))
    wait(lambda: journal.failed, "the failed sync noticed")
    with pytest.raises(AuditUnavailable):
        journal.append(*made(2))
    with pytest.raises(AuditUnavailable):
        journal.sync()
    os.close(reading)
    os.close(writing)


def test_the_journal_is_closed_for_good_when_no_segment_can_be_made(tmp_path: Path, open_journal: OPEN) -> None:
    journal = open_journal(segment_bytes=200)
    journal.append(*made(1, bytes(300)))
    segment_path(tmp_path / "journal" / "w0", 2).mkdir()
    with pytest.raises(AuditUnavailable):
        journal.append(*made(2))
    assert journal.failed


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, open_journal: OPEN) -> None:
    (tmp_path / "journal").write_text("in the way")
    with pytest.raises(AuditUnavailable, match="journal/w0 cannot be written"):
        open_journal()


def test_a_record_that_cannot_be_encoded_is_refused_and_the_next_one_is_taken(
    tmp_path: Path, open_journal: OPEN
) -> None:
    journal = open_journal()
    record, request, response = made(1)
    impossible = msgspec.structs.replace(record, oip_id=object())
    with pytest.raises(AuditUnavailable):
        journal.append(impossible, request, response)
    assert not journal.failed
    journal.append(*made(2))
    assert sequences(read_all(tmp_path / "journal" / "w0")) == [1]


FILL_UNTIL_THE_LIMIT = """
import json, resource, sys
from pathlib import Path
from gateway.errors import AuditUnavailable
from gateway.metrics import Board
from tests.journals import made, open_journal

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
board = Board(folder / "worker-0.board")
journal = open_journal(folder / "journal", board)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
written, refused = 0, []
for number in range(200):
    try:
        journal.append(*made(number, bytes(300)))
        written += 1
        assert not refused, "appended after a failure"
    except AuditUnavailable:
        refused.append(number)
failed = journal.failed
journal.close()
board.close()
(folder / "told.json").write_text(json.dumps({"written": written, "refused": len(refused), "failed": failed}))
"""


# A limit on the size of files makes the last write come out short, as a full disk does.
def test_a_short_write_closes_the_journal_and_its_torn_frame_is_cut_by_the_next_life(
    tmp_path: Path, open_journal: OPEN
) -> None:
    subprocess.run([sys.executable, "-c", FILL_UNTIL_THE_LIMIT, str(tmp_path), "20001"], check=True, timeout=60)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["failed"] is True
    assert told["written"] + told["refused"] == 200
    assert 20 < told["written"] < 100
    folder = tmp_path / "journal" / "w0"
    assert segment_path(folder, 1).stat().st_size == 20001
    journal = open_journal()
    assert journal.sequence == told["written"]
    assert segment_path(folder, 1).stat().st_size < 20001
    journal.append(*made(7))
    frames = read_all(folder)
    assert sequences(frames) == list(range(1, told["written"] + 2))
    assert_chained(frames)
