"""Appending to a journal: numbering, rotation, syncing, and the end of a journal whose disk fails."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.errors import AuditUnavailable
from gateway.journal import Journal
from gateway.journal.segment import Corruption, segment_numbers, segment_path
from gateway.journal.tail import Budget, Tail
from gateway.metrics import Board, Slot
from gateway.record import Frame, Payload, Record

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
        opened.append(Journal(tmp_path / "journal", name, segment_bytes, board))
        return opened[-1]

    yield open_one
    for journal in opened:
        journal.close()


def _record(number: int, size: int = 10) -> Record:
    return Record(
        record_id=f"r-{number}",
        request_id=f"q-{number}",
        role="primary",
        received_ns=number,
        model="fraud",
        protocol="oip-v2",
        outcome="served",
        status=200,
        request=Payload(size, "a" * 64, b"x" * size),
        response=Payload(0, "b" * 64),
    )


def _frames(folder: Path) -> list[Frame]:
    damage: list[Corruption] = []
    tail = Tail(folder, {}, lambda _, found: damage.append(found))
    try:
        frames = tail.read(Budget(10**6, 10**9))
    finally:
        tail.close()
    assert damage == []
    return frames


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
    for number in range(1, 6):
        journal.append(_record(number))
        assert board[Slot.JOURNAL_SEQUENCE] == journal.sequence == number
    frames = _frames(tmp_path / "journal" / "w0")
    assert frames == [Frame(journal.name, number, _record(number)) for number in range(1, 6)]
    assert journal.name.startswith("w0.")


def test_a_record_can_be_read_as_soon_as_it_is_appended(tmp_path: Path, open_journal: OPEN) -> None:
    journal = open_journal()
    journal.append(_record(1))
    assert len(_frames(tmp_path / "journal" / "w0")) == 1


def test_the_sequence_goes_on_over_segments_and_restarts(tmp_path: Path, open_journal: OPEN) -> None:
    folder = tmp_path / "journal" / "w0"
    names = set()
    for life in range(3):
        journal = open_journal(segment_bytes=1000)
        names.add(journal.name)
        for number in range(10):
            journal.append(_record(life * 10 + number, size=300))
        journal.close()
    frames = _frames(folder)
    assert [frame.sequence for frame in frames] == list(range(1, 31))
    assert [frame.record.record_id for frame in frames] == [f"r-{number}" for number in range(30)]
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
        journal.append(_record(number, size=400))
    sizes = [path.stat().st_size for path in sorted((tmp_path / "journal" / "w0").glob("*.journal"))]
    assert all(2000 <= size < 2000 + 800 for size in sizes[:-1])


def test_a_record_larger_than_a_segment_is_kept_whole(tmp_path: Path, open_journal: OPEN) -> None:
    journal = open_journal(segment_bytes=4096)
    journal.append(_record(1, size=3_000_000))
    journal.append(_record(2))
    assert _frames(tmp_path / "journal" / "w0") == [
        Frame(journal.name, 1, _record(1, size=3_000_000)),
        Frame(journal.name, 2, _record(2)),
    ]


def test_nobody_else_may_read_the_files(tmp_path: Path, open_journal: OPEN) -> None:
    open_journal(segment_bytes=100).append(_record(1))
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


def test_what_is_appended_is_synced_in_the_background(open_journal: OPEN) -> None:
    journal = open_journal(segment_bytes=1000)
    for number in range(20):
        journal.append(_record(number, size=300))
    deadline = time.monotonic() + 10
    while journal._unsynced or journal._retired:
        assert time.monotonic() < deadline, "nothing was synced"
        time.sleep(0.005)


def test_rotation_leaves_no_file_open_behind_it(tmp_path: Path, open_journal: OPEN) -> None:
    journal = open_journal(segment_bytes=1000)
    for number in range(20):
        journal.append(_record(number, size=300))
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
        journal.append(_record(1))
    with pytest.raises(AuditUnavailable):
        journal.sync()


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_the_journal_is_closed_for_good_when_a_write_fails(
    tmp_path: Path, open_journal: OPEN, board: Board, device: str
) -> None:
    """The segment's descriptor is put on a device that is full, or on one that cannot be written through it."""
    folder = tmp_path / "journal" / "w0"
    journal = open_journal()
    journal.append(_record(1))
    journal.sync()
    [descriptor] = _descriptors_of(folder)
    kept = os.dup(descriptor)
    broken = os.open(device, os.O_WRONLY if device == "/dev/full" else os.O_RDONLY)
    os.dup2(broken, descriptor)
    with pytest.raises(AuditUnavailable):
        journal.append(_record(2))
    os.dup2(kept, descriptor)
    os.close(kept)
    os.close(broken)
    assert journal.failed
    with pytest.raises(AuditUnavailable):
        journal.append(_record(3))
    assert board[Slot.JOURNAL_SEQUENCE] == 1
    journal.close()
    successor = open_journal()
    successor.append(_record(4))
    assert [frame.record.record_id for frame in _frames(folder)] == ["r-1", "r-4"]


def test_the_journal_is_closed_for_good_when_a_sync_fails(tmp_path: Path, open_journal: OPEN) -> None:
    """A pipe takes what is written to it but cannot be synced."""
    journal = open_journal()
    [descriptor] = _descriptors_of(tmp_path / "journal" / "w0")
    reading, writing = os.pipe()
    os.dup2(writing, descriptor)
    journal.append(_record(1))
    deadline = time.monotonic() + 10
    while not journal.failed:
        assert time.monotonic() < deadline, "the failed sync went unnoticed"
        time.sleep(0.005)
    with pytest.raises(AuditUnavailable):
        journal.append(_record(2))
    with pytest.raises(AuditUnavailable):
        journal.sync()
    os.close(reading)
    os.close(writing)


def test_the_journal_is_closed_for_good_when_no_segment_can_be_made(tmp_path: Path, open_journal: OPEN) -> None:
    journal = open_journal(segment_bytes=200)
    journal.append(_record(1, size=300))
    segment_path(tmp_path / "journal" / "w0", 2).mkdir()
    with pytest.raises(AuditUnavailable):
        journal.append(_record(2))
    assert journal.failed


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, open_journal: OPEN) -> None:
    (tmp_path / "journal").write_text("in the way")
    with pytest.raises(AuditUnavailable, match="journal/w0 cannot be written"):
        open_journal()


def test_a_record_that_cannot_be_encoded_is_refused_and_the_next_one_is_taken(
    tmp_path: Path, open_journal: OPEN
) -> None:
    journal = open_journal()
    impossible = msgspec.structs.replace(_record(1), oip_id=object())
    with pytest.raises(AuditUnavailable):
        journal.append(impossible)
    assert not journal.failed
    journal.append(_record(2))
    assert [frame.sequence for frame in _frames(tmp_path / "journal" / "w0")] == [1]


FILL_UNTIL_THE_LIMIT = """
import json, resource, sys
from pathlib import Path
from gateway.errors import AuditUnavailable
from gateway.journal import Journal
from gateway.metrics import Board
from gateway.record import Payload, Record

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
board = Board(folder / "worker-0.board")
journal = Journal(folder / "journal", "w0", 2**20, board)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
written, refused = 0, []
for number in range(200):
    try:
        journal.append(Record(record_id=f"r-{number}", request_id="q", role="primary", received_ns=1, model="m",
            protocol="p", outcome="served", status=200, request=Payload(300, "a" * 64, b"x" * 300),
            response=Payload(0, "b" * 64)))
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
    journal.append(_record(7))
    assert [frame.sequence for frame in _frames(folder)] == list(range(1, told["written"] + 2))
