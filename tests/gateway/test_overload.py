"""When a worker is pressed and sheds, by the looks that it takes; and by a real event loop that really is too slow."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.concurrency import UNLIMITED, Limit, Limits
from gateway.config import OverloadSettings
from gateway.metrics import Board, Slot
from gateway.overload import Overload
from tests.conftest import until

MS = 1_000_000
LAG = 50 * MS


class Worker:
    """An overload with a clock that a test moves on."""

    def __init__(self, board: Board, limits: Limits, **settings: int) -> None:
        self.board = board
        self.overload = Overload(board, OverloadSettings(**settings), limits)
        self.now_ns = 1

    def is_pressed(self) -> bool:
        return self.overload.pressed

    def is_shedding(self) -> bool:
        return self.overload.shedding

    def looks(self, lag_ns: int, milliseconds: int = 200) -> None:
        """Have every turn of the loop take `lag_ns` for a while."""
        for _ in range(milliseconds // 20):
            self.now_ns += 20 * MS
            self.overload.note(self.now_ns, lag_ns)

    def ask(self, key: str | None, times: int, address: str = "127.0.0.1") -> int:
        """Ask for so many requests and return how many are served."""
        return sum(not self.overload.pressed or self.overload.admits(key, address) for _ in range(times))

    def turns(self, lag_ns: int, count: int, **callers: int) -> dict[str, int]:
        """Have callers ask so often in each 100 ms, mixed, and return what each got in all."""
        got = dict.fromkeys(callers, 0)
        for _ in range(count):
            for number in range(max(callers.values())):
                for name, times in callers.items():
                    if number < times:
                        got[name] += self.ask(name, 1)
            self.looks(lag_ns, 100)
        return got


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    board.begin()
    yield board
    board.close()


@pytest.fixture
def worker(board: Board) -> Worker:
    return Worker(board, Limits())


def test_a_worker_is_pressed_when_its_loop_is_slow_for_a_while(worker: Worker) -> None:
    worker.looks(LAG // 2 + MS, 60)
    assert not worker.is_pressed()
    worker.looks(LAG // 2 + MS)
    assert worker.is_pressed()
    assert not worker.is_shedding()


def test_a_single_long_turn_is_no_overload(worker: Worker) -> None:
    for _ in range(20):
        worker.looks(20 * LAG, 20)
        worker.looks(MS, 20)
    assert not worker.is_pressed()


def test_a_worker_that_is_only_pressed_refuses_nobody(worker: Worker) -> None:
    worker.looks(LAG // 2 + MS)
    assert worker.ask("ann", 10_000) == 10_000
    worker.looks(LAG // 2 + MS)
    assert worker.ask("ann", 10_000) == 10_000
    assert worker.board[Slot.SHED] == 0


def test_a_worker_that_sheds_serves_the_modest_and_refuses_the_greedy(worker: Worker) -> None:
    worker.turns(LAG + MS, 5, greedy=500, modest=5)
    got = worker.turns(LAG + MS, 20, greedy=500, modest=5)
    assert worker.is_shedding()
    assert got["modest"] == 100
    assert got["greedy"] < 20 * 500 * 0.7
    assert worker.board[Slot.SHED] >= 20 * 500 - got["greedy"]


def test_callers_without_a_key_are_told_apart_by_their_address(worker: Worker) -> None:
    def turn() -> tuple[int, int]:
        greedy = worker.ask(None, 250, "192.0.2.1")
        modest = worker.ask(None, 5, "192.0.2.2")
        greedy += worker.ask(None, 250, "192.0.2.1")
        worker.looks(LAG + MS, 100)
        return greedy, modest

    for _ in range(5):
        turn()
    greedy, modest = turn()
    assert modest == 5
    assert greedy < 400


def test_a_slow_loop_lowers_the_budget_only_so_far(worker: Worker) -> None:
    worker.turns(LAG + MS, 100, ann=100, bob=100)
    got = worker.turns(LAG + MS, 10, ann=100, bob=100)
    assert sum(got.values()) == pytest.approx(10 * 200 * 0.9 * 0.7, rel=0.1)


def test_shedding_ends_when_the_loop_is_fast_again_and_nobody_is_refused(worker: Worker) -> None:
    worker.turns(LAG + MS, 10, ann=100)
    assert worker.is_shedding()
    worker.turns(MS, 30, ann=10)
    assert not worker.is_shedding()
    assert not worker.is_pressed()
    assert worker.ask("ann", 10_000) == 10_000


def test_the_budget_grows_back_while_the_loop_is_fast(worker: Worker) -> None:
    worker.turns(LAG + MS, 10, ann=100)
    got = worker.turns(MS, 20, ann=100)
    assert got["ann"] > 20 * 60
    assert worker.turns(MS, 5, ann=100)["ann"] == 500


def test_too_many_requests_in_flight_are_an_overload_however_fast_the_loop_is(board: Board) -> None:
    worker = Worker(board, Limits(), max_in_flight=100)
    board[Slot.IN_FLIGHT] = 101
    worker.turns(MS, 10, ann=100)
    assert worker.is_shedding()
    board[Slot.IN_FLIGHT] = 200
    assert worker.ask("ann", 1) == 0  # whatever the budget
    board[Slot.IN_FLIGHT] = 10
    worker.turns(MS, 50, ann=100)
    assert not worker.is_shedding()


def test_limits_are_looked_at_and_counted(board: Board) -> None:
    limits, limit = Limits(), Limit()
    limits.watch(("fraud", "1"), limit)
    limit.slowdown = 2
    worker = Worker(board, limits)
    for took in (1_000, *[100_000] * 100):
        for _ in range(5):
            limit.served(took)
        limit.in_flight = 200
        worker.looks(MS, 20)
    assert limit.most != UNLIMITED
    assert board[Slot.LIMITS_IN_FORCE] == 1


def test_a_real_loop_that_is_kept_busy_is_overloaded_and_recovers(board: Board) -> None:
    async def run() -> None:
        overload = Overload(board, OverloadSettings(lag_ms=10), Limits())
        overload.start()
        busy = True

        def work() -> None:
            time.sleep(0.03)  # as code that never waits
            if busy:
                asyncio.get_running_loop().call_soon(work)

        work()
        await until(lambda: overload.shedding)
        assert board[Slot.LOOP_LAG_US] > 10_000
        busy = False
        await until(lambda: not overload.pressed)
        overload.stop()

    asyncio.run(run())
