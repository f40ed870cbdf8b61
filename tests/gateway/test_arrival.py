"""What requests wait for, and the runs that wait: who goes on where and when, and what ends a wait."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from gateway.arrival import Arrival, Run
from tests.conftest import until

Loop = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Loop:
    """Run a coroutine to its end, in asyncio's loop and in uvloop's."""
    run: Loop = request.param
    return run


class Waiter:
    """Waits for one thing after another and notes what came of each."""

    def __init__(self, *awaited: Awaitable[Any]) -> None:
        self.seen: list[object] = []
        self.ended = False
        self.run = Run(self._wait(awaited))

    async def _wait(self, awaited: tuple[Awaitable[Any], ...]) -> None:
        for one in awaited:
            try:
                self.seen.append(await one)
            except (ValueError, asyncio.CancelledError) as error:
                self.seen.append(error)
        self.ended = True


def told(seen: list[object]) -> list[object]:
    """Return what was seen, errors as (kind, arguments)."""
    return [(type(one), one.args) if isinstance(one, BaseException) else one for one in seen]


def test_a_run_begins_where_it_is_told_to_and_goes_on_where_the_outcome_is_set(loop: Loop) -> None:
    async def work() -> None:
        first: Arrival[int] = Arrival()
        second: Arrival[int] = Arrival()
        waiter = Waiter(first, second)
        waiter.run.go()
        assert waiter.seen == []
        first.arrive(1)
        assert waiter.seen == [1]
        second.fail(ValueError("no"))
        assert told(waiter.seen) == [1, (ValueError, ("no",))]
        assert waiter.ended

    loop(work())


def test_an_outcome_that_has_come_is_not_waited_for_and_does_not_change(loop: Loop) -> None:
    async def work() -> None:
        come: Arrival[str] = Arrival()
        come.arrive("first")
        come.arrive("second")
        come.fail(ValueError("third"))
        waiter = Waiter(come)
        waiter.run.go()
        assert waiter.seen == ["first"]
        assert await come == "first"

    loop(work())


def test_any_number_of_runs_and_tasks_wait_for_one_outcome(loop: Loop) -> None:
    async def work() -> None:
        arrival: Arrival[None] = Arrival()
        runs = [Waiter(arrival) for _ in range(3)]

        async def wait() -> str:
            await arrival
            return "task"

        tasks = [asyncio.create_task(wait()) for _ in range(3)]
        for waiter in runs:
            waiter.run.go()
        await asyncio.sleep(0)
        arrival.arrive(None)
        assert [waiter.ended for waiter in runs] == [True] * 3
        assert await asyncio.gather(*tasks) == ["task"] * 3

    loop(work())


def test_a_task_that_is_cancelled_ends_alone(loop: Loop) -> None:
    async def work() -> None:
        arrival: Arrival[str] = Arrival()

        async def wait() -> str:
            return await arrival

        leaving, staying = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        arrival.arrive("here")
        assert await staying == "here"

    loop(work())


def test_a_run_that_is_cancelled_is_told_so_at_once_and_may_wait_on(loop: Loop) -> None:
    async def work() -> None:
        never: Arrival[None] = Arrival()
        after: Arrival[str] = Arrival()
        waiter = Waiter(never, after)
        waiter.run.go()
        waiter.run.cancel("gone")
        assert told(waiter.seen) == [(asyncio.CancelledError, ("gone",))]
        never.arrive(None)
        assert not waiter.ended
        after.arrive("done")
        assert waiter.seen[1:] == ["done"]
        waiter.run.cancel()  # it has ended: nothing to do

    loop(work())


def test_a_run_that_cancels_itself_is_told_where_it_waits_next(loop: Loop) -> None:
    async def work() -> None:
        seen: list[str] = []
        never: Arrival[None] = Arrival()

        async def wait() -> None:
            run.cancel("myself")
            seen.append("still here")
            try:
                await never
            except asyncio.CancelledError as error:
                seen.append(error.args[0])

        run = Run(wait())
        run.go()
        assert seen == ["still here", "myself"]

    loop(work())


def test_a_run_waits_for_tasks_and_futures_too_and_its_end_is_theirs(loop: Loop) -> None:
    async def work() -> None:
        async def answer() -> str:
            await asyncio.sleep(0)
            return "answer"

        quick = asyncio.create_task(answer())
        long = asyncio.create_task(asyncio.Event().wait())
        waiter = Waiter(quick, long, asyncio.sleep(0, "a turn"))
        waiter.run.go()
        await until(lambda: waiter.seen)
        waiter.run.cancel("enough")
        await until(lambda: waiter.ended)
        assert long.cancelled()
        assert told(waiter.seen) == ["answer", (asyncio.CancelledError, ("enough",)), "a turn"]

    loop(work())


def test_a_run_that_breaks_is_logged_and_harms_nobody(loop: Loop, capfd: pytest.CaptureFixture[str]) -> None:
    async def work() -> None:
        arrival: Arrival[None] = Arrival()

        async def breaks() -> None:
            await arrival
            raise RuntimeError("a defect")

        broken, other = Run(breaks()), Waiter(arrival)
        broken.go()
        other.run.go()
        arrival.arrive(None)
        assert other.ended

    loop(work())
    assert "a defect" in capfd.readouterr().out
