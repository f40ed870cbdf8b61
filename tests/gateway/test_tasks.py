"""Background tasks: referenced while they run, drained when their owner stops."""

import asyncio

import pytest

from gateway.tasks import Tasks


def test_a_task_is_held_while_it_runs_and_let_go_when_it_has_ended() -> None:
    async def main() -> None:
        tasks, release = Tasks(), asyncio.Event()
        task = tasks.start("waits", release.wait())
        assert (len(tasks), task.get_name()) == (1, "waits")
        release.set()
        await task
        await asyncio.sleep(0)
        assert len(tasks) == 0

    asyncio.run(main())


def test_draining_waits_for_what_ends_in_time_and_cancels_the_rest() -> None:
    async def main() -> None:
        tasks, ended = Tasks(), []

        async def short() -> None:
            await asyncio.sleep(0)
            ended.append("short")

        tasks.start("short", short())
        endless = tasks.start("endless", asyncio.Event().wait())
        assert await tasks.drain(0.05) == 1
        assert ended == ["short"]
        assert endless.cancelled()

    asyncio.run(main())


def test_a_task_that_loses_its_first_cancellation_is_cancelled_again() -> None:
    async def main() -> None:
        tasks, lost = Tasks(), []

        async def loses_one() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost.append(True)
            await asyncio.Event().wait()

        task = tasks.start("loses one", loses_one())
        await asyncio.sleep(0)
        await tasks.cancel()
        assert task.cancelled()
        assert lost == [True]

    asyncio.run(main())


def test_a_task_that_dies_is_logged_and_never_silent(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        tasks = Tasks()

        async def dies() -> None:
            raise ValueError("on purpose")

        tasks.start("dies", dies())
        await tasks.drain(1)
        await asyncio.sleep(0)

    asyncio.run(main())
    printed = capsys.readouterr().out
    assert "task_died" in printed
    assert "on purpose" in printed
