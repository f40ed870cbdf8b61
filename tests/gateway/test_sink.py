"""What becomes of records while the disk is full: refusing, or serving and telling what was lost."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.control_records import loss_record
from gateway.errors import AuditUnavailable
from gateway.journal.space import Space
from gateway.metrics import Board, Slot
from gateway.record import Frame
from gateway.sink import OnFull, Sink
from gateway.supervisor import clear_boards
from tests.conftest import until
from tests.journals import GATEWAY, assert_chained, ids, made, open_journal, read_all, wait

OpenSink = Callable[..., Sink]
LOSS = partial(loss_record, GATEWAY, "w0")


class Disk:
    """The disk under the test's folder as it is, or as full as `used` says (percent)."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used: float | None = None
        self._statvfs = os.statvfs
        self._folder = folder
        monkeypatch.setattr(os, "statvfs", self._seen)

    def percent(self) -> float:
        """Return how full it really is, as df(1) says it."""
        real = self._statvfs(self._folder)
        used = real.f_blocks - real.f_bfree
        return 100.0 * used / (used + real.f_bavail)

    def _seen(self, path: Path) -> os.statvfs_result:
        real = self._statvfs(path)
        if self.used is None:
            return real
        blocks = real.f_blocks
        free = round(blocks * (1 - self.used / 100))
        return os.statvfs_result((real.f_bsize, real.f_frsize, blocks, free, free, *tuple(real)[5:]))


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "worker-0.board")
    yield board
    board.close()


def keep(sink: Sink, number: int) -> None:
    """Append a record and wait until it is kept."""

    async def kept() -> None:
        waiting = sink.append(*made(number))
        assert waiting is not None
        await waiting

    asyncio.run(kept())


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr("gateway.journal.space.LOOK_SECONDS", 0.0)
    return Disk(tmp_path, monkeypatch)


@pytest.fixture
def open_sink(tmp_path: Path, board: Board) -> Iterator[OpenSink]:
    """Open sinks on the journal `w0`, looking at the disk as a worker does; they are closed with the test."""
    opened: list[Sink] = []

    def open_one(on_full: OnFull = "refuse", warn: float = 80.0, full: float = 90.0, **fields: Any) -> Sink:
        space = Space(tmp_path, board, warn_percent=warn, full_percent=full)
        journal = open_journal(tmp_path / "journal", board, tick=space.look, **fields)
        opened.append(Sink(journal, space, board, LOSS, on_full=on_full))
        return opened[-1]

    yield open_one
    for sink in opened:
        sink.close()


def _frames(folder: Path) -> list[Frame]:
    frames = read_all(folder / "journal" / "w0")
    assert_chained(frames)
    return frames


def _lost(frames: list[Frame]) -> list[int]:
    """Return how many records each loss record tells of, and check that it is one."""
    told = [frame.record for frame in frames if frame.record.action == "records.lost"]
    for record in told:
        assert (record.role, record.outcome, record.gateway, record.worker) == ("control", "failed", GATEWAY, "w0")
        assert 0 < record.details["first_ns"] <= record.details["last_ns"]
    return [record.details["count"] for record in told]


# ── how full it is ───────────────────────────────────────────────────────────────────────────────────────────────


def test_fullness_is_that_of_the_real_disk_and_both_thresholds_are_told(
    tmp_path: Path, board: Board, disk: Disk
) -> None:
    with capture_logs() as logs:
        present = disk.percent()
        roomy = Space(tmp_path, board, warn_percent=present + 2, full_percent=present + 3)
        assert abs(roomy.percent - present) < 1
        assert not roomy.full
        assert logs == []
        assert not Space(tmp_path, board, warn_percent=present - 2, full_percent=present + 2).full
        assert Space(tmp_path, board, warn_percent=present - 3, full_percent=present - 2).full
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("disk_filling", "warning"),
        ("disk_full", "error"),
    ]
    assert abs(board[Slot.DISK_USED_PERCENT] - present) <= 1


def test_each_change_is_told_once_and_looking_costs_nothing_in_between(
    tmp_path: Path, board: Board, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Space(tmp_path, board, warn_percent=80, full_percent=90)
    events = []
    for used in (50, 79.9, 80, 85, 90, 99, 90, 89, 85, 79, 10, 95):
        disk.used = used
        with capture_logs() as logs:
            space.look()
            space.look()
        events.append([line["event"] for line in logs])
        assert space.full == (used >= 90)
    filling, full, room = ["disk_filling"], ["disk_full"], ["disk_has_room"]
    assert events == [[], [], filling, [], full, [], [], filling, [], room, [], full]
    monkeypatch.setattr("gateway.journal.space.LOOK_SECONDS", 3600.0)
    space.look()
    disk.used = 10
    space.look()
    assert space.full


def test_a_disk_that_cannot_be_measured_is_told_and_changes_nothing(tmp_path: Path, board: Board) -> None:
    with capture_logs() as logs:
        assert not Space(tmp_path / "nowhere", board, warn_percent=80, full_percent=90).full
    assert [line["event"] for line in logs] == ["disk_not_measured"]


# ── refuse ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_refuses_what_is_new_and_still_takes_the_records_of_what_is_under_way(
    tmp_path: Path, board: Board, disk: Disk, open_sink: OpenSink
) -> None:
    sink = open_sink()
    disk.used = 50
    wait(lambda: board[Slot.DISK_USED_PERCENT] == 50, "the first look")
    sink.check()
    disk.used = 95
    wait(lambda: board[Slot.DISK_USED_PERCENT] == 95, "the next look")
    with pytest.raises(AuditUnavailable, match=r"95 % full.*until there is room"):
        sink.check()
    keep(sink, 1)
    assert ids(_frames(tmp_path)) == ["r-1"]
    assert board[Slot.RECORDS_LOST] == 0
    disk.used = 50
    wait(lambda: board[Slot.DISK_USED_PERCENT] == 50, "the look after that")
    sink.check()
    assert not sink.failed


def test_a_journal_that_failed_refuses_for_good(tmp_path: Path, open_sink: OpenSink) -> None:
    sink = open_sink(warn=99.9, full=100.0)
    sink.close()
    assert sink.failed
    with pytest.raises(AuditUnavailable, match="send the request again"):
        sink.check()
    with pytest.raises(AuditUnavailable):
        sink.append(*made(1))


# ── serve ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_served_without_a_record_is_counted_and_told_before_the_next_one(
    tmp_path: Path, board: Board, disk: Disk, open_sink: OpenSink
) -> None:
    sink = open_sink("serve")
    disk.used = 50
    wait(lambda: board[Slot.DISK_USED_PERCENT] == 50, "room")
    keep(sink, 1)
    for life in (1, 2):
        disk.used = 95
        wait(lambda: board[Slot.DISK_USED_PERCENT] == 95, "the full disk")
        sink.check()
        for number in range(3 * life):
            assert sink.append(*made(f"lost-{number}")) is None
        assert len(_frames(tmp_path)) == 2 * life - 1
        disk.used = 50
        wait(lambda: board[Slot.DISK_USED_PERCENT] == 50, "room again")
        keep(sink, 1 + life)
    frames = _frames(tmp_path)
    assert _lost(frames) == [3, 6]
    told = [frame.record.action or frame.record.record_id for frame in frames]
    assert told == ["r-1", "records.lost", "r-2", "records.lost", "r-3"]
    assert board[Slot.RECORDS_LOST] == board[Slot.LOSSES_RECORDED] == 9


def test_what_was_lost_is_told_when_the_worker_stops(
    tmp_path: Path, board: Board, disk: Disk, open_sink: OpenSink
) -> None:
    disk.used = 95
    sink = open_sink("serve")
    sink.append(*made(1))
    sink.append(*made(2))
    sink.close()
    assert _lost(_frames(tmp_path)) == [2]
    open_sink("serve").close()
    assert _lost(_frames(tmp_path)) == [2]


def test_what_was_lost_is_told_with_durability_power_and_is_waited_for(
    tmp_path: Path, board: Board, disk: Disk, open_sink: OpenSink
) -> None:
    async def scenario() -> None:
        disk.used = 95
        sink = open_sink("serve", durability="power")
        assert sink.append(*made(1)) is None
        disk.used = 50
        await until(lambda: board[Slot.DISK_USED_PERCENT] == 50)
        waiting = sink.append(*made(2))
        assert waiting is not None
        await waiting
        await asyncio.to_thread(sink.close)

    asyncio.run(scenario())
    assert _lost(_frames(tmp_path)) == [1]


def test_what_cannot_be_told_because_the_journal_failed_stays_on_the_board(
    tmp_path: Path, board: Board, disk: Disk, open_sink: OpenSink
) -> None:
    disk.used = 95
    sink = open_sink("serve")
    sink.append(*made(1))
    sink._journal.close()
    sink.close()
    assert _frames(tmp_path) == []
    assert (board[Slot.RECORDS_LOST], board[Slot.LOSSES_RECORDED]) == (1, 0)
    open_sink("serve").close()
    assert _lost(_frames(tmp_path)) == [1]


LOSE_AND_DIE = """
import asyncio, json, os, signal, sys
from functools import partial
from pathlib import Path
from gateway.control_records import loss_record
from gateway.journal.space import Space
from gateway.metrics import Board, board_path
from gateway.sink import Sink
from tests.journals import GATEWAY, made, open_journal

folder, full_percent, records = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
board = Board(board_path(folder, 0))
board.begin()
space = Space(folder, board, warn_percent=1.0, full_percent=full_percent)
sink = Sink(open_journal(folder / "journal", board), space, board, partial(loss_record, GATEWAY, "w0"), on_full="serve")

async def lose() -> None:
    for number in range(records):
        waiting = sink.append(*made(number))
        if waiting is not None:
            await waiting

asyncio.run(lose())
print(json.dumps({"full": space.full}), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _lose_and_die(folder: Path, full_percent: float, records: int) -> bool:
    """Run a worker's sink in a process that is killed; return whether the disk was full for it."""
    command = [sys.executable, "-c", LOSE_AND_DIE, str(folder), str(full_percent), str(records)]
    ended = subprocess.run(command, check=False, stdout=subprocess.PIPE, timeout=60)
    assert ended.returncode == -9
    full: bool = json.loads(ended.stdout.splitlines()[-1])["full"]
    return full


def test_losses_survive_the_worker_that_was_killed_and_are_told_by_the_next_one_with_room(
    tmp_path: Path, disk: Disk
) -> None:
    present = disk.percent()
    assert _lose_and_die(tmp_path, present - 1, 5)
    assert _lose_and_die(tmp_path, present - 1, 2)
    assert _frames(tmp_path) == []
    assert not _lose_and_die(tmp_path, min(100.0, present + 5), 1)
    frames = _frames(tmp_path)
    assert _lost(frames) == [7]
    assert [frame.record.action or frame.record.record_id for frame in frames] == ["records.lost", "r-0"]


def test_losses_survive_a_gateway_that_was_killed_as_a_whole_whatever_its_next_life_looks_like(
    tmp_path: Path, disk: Disk
) -> None:
    present = disk.percent()
    assert _lose_and_die(tmp_path, present - 1, 5)
    other = Board(tmp_path / "worker-3.board")  # of a worker that the next life does not have
    other[Slot.RECORDS_LOST], other[Slot.LOSSES_RECORDED], other[Slot.READY] = 7, 4, 1
    other.close()
    clear_boards(tmp_path)
    assert [path.name for path in tmp_path.glob("*.board")] == ["worker-0.board"]
    left = Board(tmp_path / "worker-0.board")
    assert (left[Slot.RECORDS_LOST], left[Slot.LOSSES_RECORDED], left[Slot.READY]) == (8, 0, 0)
    left.close()
    assert not _lose_and_die(tmp_path, min(100.0, present + 5), 1)
    assert _lost(_frames(tmp_path)) == [8]
    clear_boards(tmp_path)
    assert list(tmp_path.glob("*.board")) == []
