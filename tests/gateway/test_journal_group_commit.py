"""Durability `power`: what was waited for is on the disk, in groups; and after a failed sync nobody is acknowledged."""

import asyncio
import errno
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.errors import AuditUnavailable
from gateway.journal import Journal
from gateway.journal.segment import segment_path
from gateway.metrics import Board
from tests.conftest import until
from tests.journals import Synced, assert_chained, ids, made, open_journal, read_all

Run = Callable[[Callable[[Journal], Awaitable[None]]], None]


class Disk:
    """The real disk, made slow or broken: while `shut`, a sync waits; with `breaks` the next one of that kind fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = 0
        self.breaks: str | None = None
        self._open = threading.Event()
        self._open.set()
        self._calls = {"fdatasync": os.fdatasync, "fsync": os.fsync}
        monkeypatch.setattr(os, "fdatasync", lambda descriptor: self._sync("fdatasync", descriptor))
        monkeypatch.setattr(os, "fsync", lambda descriptor: self._sync("fsync", descriptor))

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def _sync(self, kind: str, descriptor: int) -> None:
        if kind == "fdatasync":
            self.began += 1
        assert self._open.wait(20)
        if self.breaks == kind:
            raise OSError(errno.EIO, "Input/output error")
        self._calls[kind](descriptor)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    disk.open()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "worker-0.board")
    yield board
    board.close()


@pytest.fixture
def run(tmp_path: Path, board: Board) -> Run:
    """Run a scenario on a journal of durability `power`; whatever a task leaves unheard fails it."""

    def run_scenario(scenario: Callable[[Journal], Awaitable[None]]) -> None:
        async def whole() -> None:
            unheard: list[object] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
            journal = open_journal(tmp_path / "journal", board, 2_000, durability="power")
            try:
                await scenario(journal)
            finally:
                await asyncio.to_thread(journal.close)
            assert unheard == []

        asyncio.run(whole())

    return run_scenario


def _descriptor_of(path: Path) -> int:
    """Return the descriptor of this process that is open on a file."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if entry.readlink() == path:
                return int(entry.name)
    raise AssertionError(f"{path} is not open")


async def _append(journal: Journal, number: int) -> int:
    waiting = journal.append(*made(number, b"x" * 300))
    assert waiting is not None
    await waiting
    return number


def _begin(journal: Journal, *numbers: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(_append(journal, number)) for number in numbers]


async def _outcomes(tasks: list[asyncio.Task[int]]) -> list[object]:
    """Return what came of tasks: numbers that were acknowledged, and the types of errors."""
    found = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(one) if isinstance(one, BaseException) else one for one in found]


def test_what_was_waited_for_is_on_the_disk_with_the_name_of_its_segment(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced(monkeypatch)
    folder = tmp_path / "journal" / "w0"

    async def scenario(journal: Journal) -> None:
        known: set[Path] = set()
        for number in range(30):
            await _append(journal, number)
            for path in set(folder.glob("*.journal")) - known:
                assert synced.holds_names_in(folder)
                known.add(path)
            assert all(synced.holds(path, path.stat().st_size) for path in known)
        assert len(known) > 3

    run(scenario)
    assert len(read_all(folder)) == 30


def test_what_arrives_during_a_sync_waits_for_the_next_one_together(run: Run, disk: Disk) -> None:
    async def scenario(journal: Journal) -> None:
        disk.shut()
        began = disk.began
        first = _begin(journal, 0)
        await until(lambda: disk.began == began + 1)
        others = _begin(journal, 1, 2)
        await asyncio.sleep(0)
        assert journal.sequence == 3
        assert not any(task.done() for task in (*first, *others))
        disk.open()
        assert await _outcomes(first + others) == [0, 1, 2]
        assert disk.began == began + 2

    run(scenario)


def test_the_number_of_syncs_is_bounded_by_the_disk_and_not_by_the_records(run: Run, disk: Disk) -> None:
    async def scenario(journal: Journal) -> None:
        async def caller(first: int) -> None:
            for number in range(first, first + 20):
                await _append(journal, number)

        began = disk.began
        await asyncio.gather(*(caller(20 * one) for one in range(40)))
        assert journal.sequence == 800
        # Every sync takes what had come during the one before; the full segments have a sync of their own each.
        assert disk.began - began < 800 / 2

    run(scenario)


@pytest.mark.parametrize("kind", ["fdatasync", "fsync"])
def test_nobody_is_acknowledged_after_a_failed_sync_and_the_journal_is_closed(
    tmp_path: Path, board: Board, run: Run, disk: Disk, kind: str
) -> None:
    async def scenario(journal: Journal) -> None:
        await _append(journal, 0)
        disk.shut()
        began = disk.began
        first = _begin(journal, 1)
        await until(lambda: disk.began == began + 1)
        others = _begin(journal, *range(2, 9))  # so many that a segment is full, which makes the folder change
        await asyncio.sleep(0)
        disk.breaks = kind
        disk.open()
        outcomes = await _outcomes(first + others)
        # The folder is synced with the second group only.
        assert outcomes == [AuditUnavailable if kind == "fdatasync" else 1] + [AuditUnavailable] * 7
        disk.breaks = None
        assert journal.failed
        assert await _outcomes(_begin(journal, 9)) == [AuditUnavailable]
        with pytest.raises(AuditUnavailable):
            journal.sync()

    with capture_logs() as logs:
        run(scenario)
    assert [line["at"] for line in logs if line["event"] == "journal_failed"] == ["sync"]
    open_journal(tmp_path / "journal", board).close()
    frames = read_all(tmp_path / "journal" / "w0")
    assert_chained(frames)
    assert ids(frames)[:2] == ["r-0", "r-1"]
    assert "r-9" not in ids(frames)


def test_a_full_segment_that_cannot_be_synced_closes_the_journal_though_the_present_one_can(
    tmp_path: Path, run: Run, disk: Disk
) -> None:
    async def scenario(journal: Journal) -> None:
        full = tmp_path / "journal" / "w0"
        disk.shut()
        tasks = _begin(journal, *range(8))
        await asyncio.sleep(0)
        assert segment_path(full, 2).exists()
        reading, writing = os.pipe()  # which cannot be synced
        os.dup2(writing, _descriptor_of(segment_path(full, 1)))
        disk.open()
        outcomes = await _outcomes(tasks)
        assert outcomes[-1] is AuditUnavailable
        assert journal.failed
        os.close(reading)
        os.close(writing)

    run(scenario)


def test_whoever_hangs_up_while_waiting_hurts_nobody_and_leaves_its_record(
    tmp_path: Path, run: Run, disk: Disk
) -> None:
    async def scenario(journal: Journal) -> None:
        disk.shut()
        tasks = _begin(journal, *range(6))
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.sleep(0)
        disk.open()
        cancelled = asyncio.CancelledError
        assert await _outcomes(tasks) == [cancelled, 1, cancelled, 3, cancelled, 5]
        assert await _append(journal, 6) == 6

    run(scenario)
    assert ids(read_all(tmp_path / "journal" / "w0")) == [f"r-{number}" for number in range(7)]


def test_all_hanging_up_before_a_sync_fails_hurts_nobody(run: Run, disk: Disk) -> None:
    async def scenario(journal: Journal) -> None:
        disk.shut()
        disk.breaks = "fdatasync"
        tasks = _begin(journal, *range(3))
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        assert await _outcomes(tasks) == [asyncio.CancelledError] * 3
        disk.open()
        await until(lambda: journal.failed)

    run(scenario)


def test_those_who_wait_when_the_journal_is_closed_are_told_and_nobody_waits_for_ever(run: Run, disk: Disk) -> None:
    async def scenario(journal: Journal) -> None:
        disk.shut()
        began = disk.began
        tasks = _begin(journal, 0)
        await until(lambda: disk.began == began + 1)
        tasks += _begin(journal, 1, 2)
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(journal.close))
        await until(lambda: journal._closed)
        late = _begin(journal, 3)
        assert await _outcomes(late) == [AuditUnavailable]
        disk.open()
        assert await _outcomes(tasks) == [0, 1, 2]
        await closing
        assert await _outcomes(_begin(journal, 4)) == [AuditUnavailable]

    run(scenario)


def test_a_loop_that_ended_while_its_records_were_synced_leaves_them_there(
    tmp_path: Path, board: Board, disk: Disk
) -> None:
    async def scenario() -> Journal:
        journal = open_journal(tmp_path / "journal", board, durability="power")
        disk.shut()
        journal.append(*made(1))
        return journal

    journal = asyncio.run(scenario())
    disk.open()
    journal.close()
    assert ids(read_all(tmp_path / "journal" / "w0")) == ["r-1"]


def test_what_is_called_at_every_tick_may_fail_without_anybody_waiting_for_ever(tmp_path: Path, board: Board) -> None:
    ticks = 0

    def fail() -> None:
        nonlocal ticks
        ticks += 1
        raise ValueError("a defect of the watch")

    async def scenario() -> None:
        journal = open_journal(tmp_path / "journal", board, durability="power", tick=fail)
        for number in range(5):
            await _append(journal, number)
        await until(lambda: ticks > 3)
        await _append(journal, 5)
        journal.close()

    with capture_logs() as logs:
        asyncio.run(scenario())
    assert [line["event"] for line in logs] == ["defect"]
    assert len(read_all(tmp_path / "journal" / "w0")) == 6


def test_a_sync_that_fails_in_any_way_at_all_closes_the_journal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(journal: Journal) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fdatasync", lambda _: (_ for _ in ()).throw(MemoryError()))
            assert await _outcomes(_begin(journal, 1, 2)) == [AuditUnavailable] * 2
        assert journal.failed

    run(scenario)


def test_with_durability_process_nobody_waits_for_the_disk(tmp_path: Path, board: Board, disk: Disk) -> None:
    journal = open_journal(tmp_path / "journal", board)
    disk.shut()
    for number in range(20):
        assert journal.append(*made(number, b"x" * 300)) is None
    assert len(read_all(tmp_path / "journal" / "w0")) == 20
    disk.open()
    journal.close()
