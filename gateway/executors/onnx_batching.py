"""Dynamic batching: requests that wait for a slow model share one run, and each gets exactly its rows.

While one run is under way, what arrives queues; the next run takes as many of the queued requests as fit together, at
most `max_batch` rows, and waits at most `max_wait_ms` for more when it is not full. Only requests of one version meet
here, and only those whose inputs agree in everything but their first dimension and that ask for the same outputs.

A batch that fails is run again one by one, so that a bad request fails alone. A model whose outputs do not have one
row for each row of its inputs is not to be batched: that shows in its first shared run, whose requests are run again
one by one, too, and from then on nothing of the version is batched.

Belongs here: who shares a run, and the splitting of what comes back. Never here: decoding, when a run is fast enough
for the event loop, or sessions.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic_ns
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.catalog import Batching, Signature
from gateway.errors import DeadlineExceeded, InvalidInput, ModelFailed, Overloaded
from gateway.logs import logger
from gateway.tasks import Tasks

Feed = Mapping[str, NDArray[Any]]
Ran = tuple[list[NDArray[Any]], int, int]
"""Outputs, and when their run started and ended (monotonic ns)."""


class Started(Struct):
    """A run in a thread. `outcome` raises `InvalidInput` or `ModelFailed`; `stop` ends it early."""

    outcome: Awaitable[Ran]
    stop: Callable[[], None]


Start = Callable[[Sequence[str], Feed], Started]
"""Starts a run of the model; names of outputs and arrays by name of input go in."""


class _Waiting(Struct):
    """One request in the queue. Its `answer` is done as soon as nobody waits for it any more."""

    names: Sequence[str]
    feed: Feed
    rows: int
    kind: tuple[object, ...]
    deadline_ns: int
    answer: "asyncio.Future[Ran]"


def can_batch(signature: Signature) -> bool:
    """Tell whether every input and output of a version has a free first dimension."""
    specs = (*signature.inputs, *signature.outputs)
    return bool(signature.inputs) and all(spec.shape and spec.shape[0] == -1 for spec in specs)


class Batcher:
    """Batches the slow runs of one version. Belongs to one event loop.

    `start` starts a run; at most `at_once` are under way. `depth` bounds how many requests wait.
    """

    def __init__(self, name: str, batching: Batching, start: Start, *, at_once: int, depth: int) -> None:
        self._name = name
        self._max_rows = batching.max_batch
        self._max_wait_s = batching.max_wait_ms / 1e3
        self._start_run = start
        self._at_once = at_once
        self._depth = depth
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._runs = Tasks()
        self._filling = False
        self._under_way = 0
        self._closed = False
        self.splits = True

    async def submit(self, names: Sequence[str], feed: Feed, deadline_ns: int) -> Ran:
        """Return the outputs of these inputs alone, from a run that may have been shared.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: the deadline passed first.
            InvalidInput, ModelFailed: the model fails on these inputs.
        """
        if len(self._queue) >= self._depth:
            raise Overloaded(f"{self._depth} requests wait for this version already; try again shortly")
        rows = len(next(iter(feed.values())))
        kind = (tuple(names), *((name, array.dtype.str, array.shape[1:]) for name, array in sorted(feed.items())))
        answer: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(names, feed, rows, kind, deadline_ns, answer))
        self._arrived.set()
        self._start()
        try:
            async with asyncio.timeout(max(0.0, (deadline_ns - monotonic_ns()) / 1e9)):
                return await answer
        except TimeoutError:
            raise DeadlineExceeded("the request was stopped at its time-out", "onnx") from None
        finally:
            answer.cancel()  # whoever gave up or was answered: the run sees who still waits

    def _start(self) -> None:
        """See that a run gathers requests whenever one may."""
        if not self._closed and not self._filling and self._queue and self._under_way < self._at_once:
            self._filling = True
            self._under_way += 1
            self._runs.start(f"batch {self._name}", self._one_run())

    async def _one_run(self) -> None:
        batch: list[_Waiting] = []
        try:
            try:
                batch = await self._gather()
            finally:
                self._filling = False
            self._start()  # the next one may gather while this one runs
            if batch:
                await self._serve(batch)
        finally:
            for one in batch:
                one.answer.cancel()  # only where this run was itself cancelled is there one that is not done
            self._under_way -= 1
            self._start()

    async def _gather(self) -> list[_Waiting]:
        """Return the next requests that go together, after waiting for more of them as long as is allowed."""
        until = monotonic_ns() / 1e9 + self._max_wait_s
        while True:
            self._drop_gone()
            batch, full = self._next()
            left = until - monotonic_ns() / 1e9
            if full or not batch or left <= 0:
                taken = {id(one) for one in batch}
                self._queue = deque(one for one in self._queue if id(one) not in taken)
                return batch
            self._arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self._arrived.wait()
            except TimeoutError:
                pass

    def _drop_gone(self) -> None:
        now = monotonic_ns()
        self._queue = deque(one for one in self._queue if not one.answer.done() and one.deadline_ns > now)

    def _next(self) -> tuple[list[_Waiting], bool]:
        """Return the oldest request with those that fit to it, and whether there is no room for more."""
        if not self._queue:
            return [], False
        first = self._queue[0]
        if not self.splits or first.rows >= self._max_rows:
            return [first], True
        batch: list[_Waiting] = []
        rows = 0
        for one in self._queue:
            if one.kind == first.kind:
                if rows + one.rows > self._max_rows:
                    return batch, True
                batch.append(one)
                rows += one.rows
        return batch, rows >= self._max_rows

    async def _serve(self, batch: Sequence[_Waiting]) -> None:
        if len(batch) == 1:
            await self._alone(batch[0])
            return
        first = batch[0]
        feed = {name: np.concatenate([one.feed[name] for one in batch]) for name in first.feed}
        try:
            arrays, started, ended = await self._until_nobody_waits(first.names, feed, batch)
        except (InvalidInput, ModelFailed):
            await self._one_by_one(batch)
            return
        rows = sum(one.rows for one in batch)
        if any(array.ndim == 0 or len(array) != rows for array in arrays):
            self.splits = False
            logger().warning(
                "not_batched", version=self._name, why="its outputs have not one row for each of its inputs"
            )
            await self._one_by_one(batch)
            return
        at = 0
        for one in batch:
            # Copied, so that one caller's answer does not keep the rows of all the others in memory.
            _tell(one, ([array[at : at + one.rows].copy() for array in arrays], started, ended))
            at += one.rows

    async def _one_by_one(self, batch: Sequence[_Waiting]) -> None:
        for one in batch:
            if not one.answer.done():
                await self._alone(one)

    async def _alone(self, one: _Waiting) -> None:
        try:
            _tell(one, await self._until_nobody_waits(one.names, one.feed, [one]))
        except (InvalidInput, ModelFailed) as error:
            if not one.answer.done():
                one.answer.set_exception(error)

    async def _until_nobody_waits(self, names: Sequence[str], feed: Feed, batch: Sequence[_Waiting]) -> Ran:
        """Run the model, and stop it when nobody waits for the outcome any more."""
        run = self._start_run(names, feed)

        def look(_: object) -> None:
            if all(one.answer.done() for one in batch):
                run.stop()

        for one in batch:
            one.answer.add_done_callback(look)
        return await run.outcome

    async def close(self) -> None:
        """End what is under way; whoever waits is told that the version is gone."""
        self._closed = True
        await self._runs.cancel()
        for one in self._queue:
            one.answer.cancel()
        self._queue.clear()


def _tell(one: _Waiting, ran: Ran) -> None:
    if not one.answer.done():
        one.answer.set_result(ran)
