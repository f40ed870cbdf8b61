"""Background tasks that are named, referenced and drained; a bare `create_task` can be collected while it runs.

Belongs here: the life of asyncio tasks. Never here: what a task does.
"""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from gateway.logs import logger

T = TypeVar("T")
_AGAIN_SECONDS = 0.5


async def in_task(name: str, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns, run in a task of its own that ends with whoever waits.

    For what asks for the current task, as `asyncio.timeout` does: a request has none (`gateway.arrival.Run`).
    """
    return await asyncio.get_running_loop().create_task(work, name=name)


async def within(seconds: float, job: Awaitable[T]) -> T:
    """Return what `job` returns. Raises `TimeoutError` when it takes longer."""
    async with asyncio.timeout(seconds):
        return await job


class Tasks:
    """A set of running tasks with one owner. A task that dies of an exception is logged, never silent."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a task named `name` and hold a reference to it until it ends."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger().error("task_died", task=task.get_name(), exc_info=error)

    async def drain(self, seconds: float) -> int:
        """Wait up to `seconds` for the running tasks, cancel the rest and return how many had to be cancelled."""
        if not self._running:
            return 0
        _, late = await asyncio.wait(self._running, timeout=seconds)
        return await _cancel(late)

    async def cancel(self) -> None:
        """Cancel every running task and wait until each has ended."""
        await _cancel(set(self._running))


async def _cancel(tasks: set[asyncio.Task[Any]]) -> int:
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        # On Python 3.11 a cancellation that meets the end of an `asyncio.wait_for` can be lost; so it is sent again.
        _, pending = await asyncio.wait(pending, timeout=_AGAIN_SECONDS)
    return len(tasks)
