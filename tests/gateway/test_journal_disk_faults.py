"""A journal on a disk that fails: every write, sync and name of it in turn, under strace(1), in both durabilities.

Nothing is acknowledged that a power cut at the end could take back (durability `power`), the next life finds
everything that was acknowledged and nothing damaged, and no error of the disk is anything but the end of the journal.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog

from gateway.journal.segment import segment_path
from gateway.metrics import Board
from tests.gateway.crash_images import strictest
from tests.gateway.faulty_journal import RECORDS, SEGMENT_BYTES
from tests.gateway.syscall_trace import Trace, image_of, strace, trace_in, why_not
from tests.journals import assert_chained, made, open_journal, read_all

FULL = os.environ.get("FULL_COUNT") == "1"
SEGMENTS = 12  # more than any life here fills
MOST_CALLS = 40
pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


class Lives:
    """Starts lives that wait to be attached to; importing everything once for all of them."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.gateway.faulty_journal"]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, folder: Path, durability: str, fault: str, *, opened: bool) -> tuple[Trace, bool]:
        """Let one life meet a fault; return its trace, and whether it met the fault at all."""
        pid = self._order(json.dumps({"folder": str(folder), "durability": durability, "opened": opened}))
        before, out = image_of(folder, "journal"), folder / f"strace.{pid}"
        watched = [folder / "told", folder / "journal", folder, folder / "journal" / "w0"]
        watched += [segment_path(folder / "journal" / "w0", number) for number in range(1, SEGMENTS + 1)]
        paths = [word for path in watched for word in ("-P", str(path))]
        command = [*strace("read"), "-o", str(out), *paths, "-e", f"inject={fault}", "-p", str(pid)]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert tracer.stderr is not None
        for line in tracer.stderr:
            if "attached" in line:
                break
        exit_code = self._order("go")
        tracer.stderr.read()
        tracer.wait(60)
        tracer.stderr.close()
        assert exit_code == 0, "something else was raised than AuditUnavailable"
        return trace_in(out, folder, "journal", "told", before), "(INJECTED)" in out.read_text()

    def _order(self, line: str) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(line + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def end(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()


@pytest.fixture(scope="module")
def lives() -> Iterator[Lives]:
    lives = Lives()
    yield lives
    lives.end()


class Told:
    """What the lives in a folder promised."""

    def __init__(self, folder: Path) -> None:
        lines: list[dict[str, Any]] = [json.loads(line) for line in (folder / "told").read_text().splitlines()]
        self.acked = {(line["journal"], line["sequence"]): line["acked"] for line in lines if "acked" in line}
        self.failed = [line["failed"] for line in lines if "failed" in line]


def _left_behind(folder: Path) -> None:
    """Leave what a killed writer may: two segments with records, a torn frame, and a segment without its header."""
    board = Board(folder / "worker-0.board")
    journal = open_journal(folder / "journal", board, SEGMENT_BYTES)
    for number in range(6):
        journal.append(*made(f"before-{number}", bytes(600)))
    journal.close()
    board.close()
    newest = max((folder / "journal" / "w0").glob("*.journal"))
    with newest.open("ab") as file:
        file.write(newest.read_bytes()[-700:-100])
    segment_path(newest.parent, int(newest.stem) + 1).write_bytes(newest.read_bytes()[:20])


def _assert_the_next_life_is_clean(folder: Path, before: int) -> None:
    board = Board(folder / "worker-0.board")
    journal = open_journal(folder / "journal", board, SEGMENT_BYTES)
    journal.append(*made("next"))
    last = (journal.name, journal.sequence)
    journal.close()
    board.close()
    frames = read_all(folder / "journal" / "w0")
    assert_chained(frames)
    found = {(frame.journal, frame.sequence): frame.record.record_id for frame in frames}
    assert found[last] == "r-next"
    assert max(found) == last
    told = Told(folder) if (folder / "told").exists() else None
    if told is not None:
        assert last not in told.acked
        assert told.acked.items() <= found.items()
    counted = Counter(found.values())
    assert max(counted.values()) == 1
    assert sum(record.startswith("r-before-") for record in counted) == before


def _assert_acknowledged_is_on_the_disk(folder: Path, trace: Trace, scratch: Path) -> None:
    """Take away all that was not synced: what was acknowledged must be there all the same."""
    scratch.mkdir()
    for path, data in strictest(trace).items():
        if data is None:
            (scratch / path).mkdir()
        else:
            (scratch / path).write_bytes(data)
    acked = Told(folder).acked
    if acked:
        board = Board(scratch / "worker-0.board")
        open_journal(scratch / "journal", board).close()
        board.close()
        found = {(one.journal, one.sequence): one.record.record_id for one in read_all(scratch / "journal" / "w0")}
        assert acked.items() <= found.items()


FAULTS = [
    ("write", "error=EIO"),
    ("write", "error=ENOSPC"),
    ("write", "retval=7"),
    ("fdatasync", "error=EIO"),
    ("fdatasync", "error=ENOSPC"),
    ("fsync", "error=EIO"),
    ("openat", "error=ENOSPC"),
    ("openat", "error=EMFILE"),
]
RECOVERY_FAULTS = [
    ("ftruncate", "error=EIO"),
    ("unlink", "error=EIO"),
    ("read", "error=EIO"),
    ("mkdir", "error=EACCES"),
]


class Case(NamedTuple):
    """Which call fails and how, and whether the journal is open before the first one does."""

    call: str
    how: str
    durability: str
    opened: bool


# The long run has every fault in every case; here each has the ones in which it goes another way.
CASES = [
    pytest.param(
        Case(call, how, durability, opened), id=f"{call} {how} {durability} {'later' if opened else 'at start'}"
    )
    for call, how in FAULTS
    for durability in ("process", "power")
    for opened in (False, True)
    if FULL or (durability == "power" and not opened) or (how == "error=EIO" and call in ("write", "fdatasync"))
]


@pytest.mark.parametrize("case", CASES)
def test_a_fault_of_the_disk_at_any_call_takes_back_nothing_that_was_acknowledged(
    tmp_path: Path, lives: Lives, case: Case
) -> None:
    assert _meet_each(tmp_path, lives, case) > 0


@pytest.mark.parametrize(("call", "how"), RECOVERY_FAULTS, ids=[f"{call} {how}" for call, how in RECOVERY_FAULTS])
def test_a_fault_of_the_disk_while_recovering_loses_nothing(tmp_path: Path, lives: Lives, call: str, how: str) -> None:
    _meet_each(tmp_path, lives, Case(call, how, "power", False))


@pytest.mark.parametrize("durability", ["process", "power"])
@pytest.mark.parametrize("call", ["write", "fdatasync", "fsync", "ftruncate"])
def test_a_call_that_is_interrupted_by_a_signal_is_made_again_and_nobody_notices(
    tmp_path: Path, lives: Lives, call: str, durability: str
) -> None:
    for number in range(1, MOST_CALLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        _left_behind(folder)
        _, met = lives.run(folder, durability, f"{call}:error=EINTR:when={number}", opened=False)
        told = Told(folder)
        assert told.failed == []
        assert len(told.acked) == RECORDS
        _assert_the_next_life_is_clean(folder, before=6)
        if not met:
            assert number > 1
            return
    raise AssertionError("there was no end to the calls")


def _meet_each(tmp_path: Path, lives: Lives, case: Case) -> int:
    """Run a life for each call of its kind, which fails; return how many lives told of a failure."""
    failures = 0
    with structlog.testing.capture_logs():
        for number in range(1, MOST_CALLS):
            folder = tmp_path / str(number)
            folder.mkdir()
            if not case.opened:
                _left_behind(folder)
            trace, met = lives.run(folder, case.durability, f"{case.call}:{case.how}:when={number}", opened=case.opened)
            told = Told(folder)
            if case.durability == "power":
                _assert_acknowledged_is_on_the_disk(folder, trace, tmp_path / f"{number}-strict")
            _assert_the_next_life_is_clean(folder, before=0 if case.opened else 6)
            if not met:
                assert number > 1, "the fault was never met"
                assert told.failed == []
                assert len(told.acked) == RECORDS
                return failures
            failures += bool(told.failed)
    raise AssertionError("there was no end to the calls")
