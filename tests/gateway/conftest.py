"""A rules store and the workers that follow it, all real: `run_bench(scenario)` runs one test's coroutine on them."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.config import RulesSettings
from gateway.metrics import Board, Slot
from gateway.ports import Acknowledgement, ChangeSet, ExecutorFactory, Head, Kind, Resettlement, Write
from gateway.snapshot import Rules, Snapshot
from gateway.stores.redis_link import TIMEOUT_SECONDS
from gateway.stores.rules_redis import RedisRules
from tests.conftest import READY_SECONDS, AddingExecutor, AddingVersions, RunningValkey, until

Document = tuple[Kind, str, bytes | None]


class Worker:
    """One worker's rules. `follow` starts them, `stop` ends them as the end of the process would."""

    def __init__(
        self, name: str, source: RedisRules, folder: Path, executor_for: ExecutorFactory, settings: RulesSettings
    ) -> None:
        self.name = name
        self.board = Board(folder.with_name(f"{name}.board"))
        self.source = source
        self.rules = Rules(self.source, executor_for, folder, self.board, settings, name)
        self._running: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def snapshot(self) -> Snapshot:
        assert self.rules.snapshot is not None, "nothing is in force"
        return self.rules.snapshot

    @property
    def alarm(self) -> bool:
        return bool(self.board[Slot.RULES_ALARM])

    def executor(self, model: str, version: str) -> AddingExecutor:
        executor = self.snapshot.versions[model, version].executor
        assert isinstance(executor, AddingExecutor)
        return executor

    async def start(self) -> "Worker":
        await self.rules.start()
        return self

    def run(self) -> None:
        self._running = asyncio.create_task(self.rules.run(), name=f"{self.name} follows")

    async def follow(self) -> "Worker":
        await self.start()
        self.run()
        return self

    async def reach(self, revision: int) -> None:
        await until(lambda: self.rules.snapshot is not None and self.snapshot.head.revision >= revision)

    async def pause(self) -> None:
        """Follow no longer, and keep what is in force."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        await self.pause()
        await self.rules.close()
        await self.source.close()
        self.board.close()


class Bench:
    """The store, written to past the control plane, and workers on one gateway's folder.

    `timeout_s` is how long the store may be silent. On a busy machine a disk can hold it up for a second.
    """

    def __init__(
        self, valkey: RunningValkey, folder: Path, adding: AddingVersions, timeout_s: float = READY_SECONDS
    ) -> None:
        self.valkey = valkey
        self._timeout_s = timeout_s
        self.adding = adding
        self.folder = folder / "rules"
        self.store = RedisRules(valkey.url, timeout_s=timeout_s)
        self.opened = ExitStack()  # what tests open beside; it is closed with the bench
        self._workers: list[Worker] = []
        self._operations = 0

    def worker(
        self,
        name: str = "w0",
        *,
        poll_ms: int = 5,
        behind_ms: int = 10_000,
        executor_for: ExecutorFactory | None = None,
        url: str | None = None,
    ) -> Worker:
        settings = RulesSettings(poll_ms=poll_ms, stale_after_ms=250, behind_not_ready_ms=behind_ms)
        source = RedisRules(url or self.valkey.url, timeout_s=self._timeout_s)
        made = Worker(name, source, self.folder, executor_for or self.adding, settings)
        self._workers.append(made)
        return made

    async def write(self, *documents: Document) -> int:
        """Write documents in one change as they are, whatever stands there, and return its revision."""
        writes = []
        for kind, name, document in documents:
            present = await self.store.read(kind, name)
            writes.append(Write(kind, name, document, present.revision if present is not None else 0))
        self._operations += 1
        return await self.store.apply(ChangeSet(f"bench-{self._operations}", "bench", "", 1, tuple(writes)))

    async def resettle(self, epoch: str, follows: Mapping[str, int], *documents: Document, beyond: int = 0) -> Head:
        """Begin a new life of the store with these documents written, as an operator's word does."""
        self._operations += 1
        writes = tuple(Write(kind, name, document, 0) for kind, name, document in documents)
        return await self.store.resettle(
            Resettlement(
                operation_id=f"bench-{self._operations}",
                actor="bench",
                comment="",
                at_ns=1,
                epoch=epoch,
                seen=await self.store.head(),
                beyond=beyond,
                follows=follows,
                writes=writes,
            )
        )

    def version(self, model: str, version: str, addend: str = "1", **fields: Any) -> Document:
        return "version", f"{model}/{version}", self.adding.manifest(model, version, addend, **fields)

    def route(self, model: str, split: Mapping[str, int], **fields: Any) -> Document:
        return "route", model, json.dumps({"model": model, "split": split} | fields).encode()

    def cohort(self, name: str, **fields: Any) -> Document:
        return "cohort", name, json.dumps({"name": name} | fields).encode()

    async def acknowledgement(
        self,
        worker: str,
        revision: int,
        when: Callable[[Mapping[str, str]], object] = lambda _: True,
        *,
        alarm: str = "",
    ) -> Acknowledgement:
        """Return what a worker says once it acknowledges a revision with problems, and an alarm, that are as wanted."""
        async with asyncio.timeout(READY_SECONDS):
            while True:
                for said in await self.store.acknowledgements():
                    ours = said.worker == worker and said.head.revision >= revision
                    if ours and when(said.problems) and (not alarm or alarm in said.alarms):
                        return said
                await asyncio.sleep(0.002)

    async def healthy(self, worker: str, revision: int) -> None:
        """Wait until a worker acknowledges a revision without any problem."""
        await self.acknowledgement(worker, revision, lambda problems: not problems)

    async def close(self) -> None:
        for worker in self._workers:
            await worker.stop()
        self.opened.close()
        await self.store.close()


async def see_closed_connections() -> None:
    """Let the loop, which stood still while the store was started again, see which of its connections have ended."""
    for _ in range(5):
        await asyncio.sleep(0)


Scenario = Callable[[Bench], Awaitable[None]]
RunBench = Callable[[Scenario], None]


def _run(
    valkey: RunningValkey,
    folder: Path,
    adding: AddingVersions,
    scenario: Scenario,
    timeout_s: float = READY_SECONDS,
) -> None:
    async def whole() -> None:
        bench = Bench(valkey, folder, adding, timeout_s)
        try:
            await bench.store.initialise()
            await scenario(bench)
        finally:
            await bench.close()

    asyncio.run(whole())


@pytest.fixture
def run_bench(valkey: RunningValkey, tmp_path: Path, adding: AddingVersions) -> RunBench:
    """Run a scenario on the session's Valkey."""
    return lambda scenario: _run(valkey, tmp_path, adding, scenario)


@pytest.fixture
def run_private_bench(start_valkey: Callable[[], RunningValkey], tmp_path: Path, adding: AddingVersions) -> RunBench:
    """Run a scenario on a Valkey of its own, which it may kill and freeze."""
    return lambda scenario: _run(start_valkey(), tmp_path, adding, scenario, TIMEOUT_SECONDS)
