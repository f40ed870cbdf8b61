"""Notices of changes: with them a change is seen at once, without them at the next poll, and never not at all."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.snapshot import lookout
from tests.conftest import until
from tests.gateway.conftest import Bench, RunBench, Worker

WHOLE = {"1": 10_000}
NEVER_MS = 3_600_000


class Between:
    """A door before the store that can hold back what it says on the connections that listen for notices."""

    def __init__(self, store: Path, door: Path) -> None:
        self._store = os.fspath(store)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: list[asyncio.StreamWriter] = []
        self.door = door
        self.frozen = False

    @property
    def url(self) -> str:
        return f"unix://{self.door}"

    @property
    def listeners(self) -> int:
        """How many connections have listened so far."""
        return len(self._listening)

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.door)

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop(self) -> None:
        """End the connections that listen."""
        for writer in self._listening:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_unix_connection(self._store)
        listens = asyncio.Event()

        def asked(data: bytes) -> None:
            if b"SUBSCRIBE" in data:
                listens.set()
                self._listening.append(writer)

        for copying in (
            self._copy(reader, store_writer, asked, lambda: False),
            self._copy(store_reader, writer, lambda _: None, lambda: self.frozen and listens.is_set()),
        ):
            task = asyncio.create_task(copying)
            self._tasks.add(task)

    async def _copy(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        look: Callable[[bytes], None],
        held_back: Callable[[], bool],
    ) -> None:
        try:
            while data := await reader.read(65_536):
                look(data)
                if not held_back():
                    writer.write(data)
        except ConnectionError:
            pass
        finally:
            writer.close()


def run_between(run_bench: RunBench, scenario: Callable[[Bench, Between], Awaitable[None]]) -> None:
    async def whole(bench: Bench) -> None:
        between = Between(bench.valkey.socket, bench.folder.with_name("door"))
        await between.open()
        try:
            await bench.write(bench.version("fraud", "1"), bench.route("fraud", WHOLE))
            await scenario(bench, between)
        finally:
            await bench.close()
            await between.close()

    run_bench(whole)


async def change(bench: Bench, worker: Worker, timeout_ms: int) -> None:
    revision = await bench.write(bench.route("fraud", WHOLE, timeout_ms=timeout_ms))
    await worker.reach(revision)
    assert worker.snapshot.routes["fraud"].route.timeout_ms == timeout_ms


def test_notice_brings_a_change_into_force_without_waiting_for_the_poll(run_bench: RunBench) -> None:
    async def scenario(bench: Bench, between: Between) -> None:
        worker = await bench.worker(poll_ms=NEVER_MS, url=between.url).follow()
        await until(lambda: between.listeners == 1)
        for number in range(1, 6):
            await change(bench, worker, number)

    run_between(run_bench, scenario)


def test_change_made_before_listening_began_is_seen_when_it_has(run_bench: RunBench) -> None:
    async def scenario(bench: Bench, between: Between) -> None:
        worker = await bench.worker(poll_ms=NEVER_MS, url=between.url).start()
        revision = await bench.write(bench.route("fraud", WHOLE, timeout_ms=7))
        worker.run()
        await worker.reach(revision)

    run_between(run_bench, scenario)


def test_connection_for_notices_that_is_lost_is_opened_again(
    run_bench: RunBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_LISTEN_AGAIN_SECONDS", 0.01)

    async def scenario(bench: Bench, between: Between) -> None:
        worker = await bench.worker(poll_ms=NEVER_MS, url=between.url).follow()
        for listeners in (1, 2, 3):
            await until(lambda: between.listeners == listeners)  # noqa: B023 - it is waited for here
            await change(bench, worker, listeners)
            between.drop()
        assert not worker.alarm

    run_between(run_bench, scenario)


def test_frozen_connection_for_notices_costs_the_poll_and_is_opened_again(
    run_bench: RunBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "_LISTEN_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(lookout, "_NOTICE_SECONDS", 0.05)

    async def scenario(bench: Bench, between: Between) -> None:
        worker = await bench.worker(poll_ms=5, url=between.url).follow()
        await until(lambda: between.listeners == 1)
        await change(bench, worker, 1)
        between.frozen = True
        for number in range(2, 5):
            await change(bench, worker, number)
        await until(lambda: between.listeners >= 2)
        between.frozen = False
        await change(bench, worker, 9)
        assert not worker.alarm
        assert not worker.rules.stale

    run_between(run_bench, scenario)


def test_connection_for_notices_stays_while_they_come(run_bench: RunBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "_NOTICE_SECONDS", 0.02)

    async def scenario(bench: Bench, between: Between) -> None:
        worker = await bench.worker(poll_ms=1, url=between.url).follow()
        await until(lambda: between.listeners == 1)
        for number in range(1, 60):
            await change(bench, worker, number)
        assert between.listeners == 1

    run_between(run_bench, scenario)


def test_many_notices_at_once_make_for_few_looks(run_bench: RunBench) -> None:
    async def scenario(bench: Bench, between: Between) -> None:
        worker = await bench.worker(poll_ms=NEVER_MS, url=between.url).follow()
        await change(bench, worker, 1)
        bench.valkey.command("CONFIG", "RESETSTAT")
        bench.valkey.command("EVAL", "for i = 1, 1000 do redis.call('PUBLISH', '{pm}:notice', 'x') end", "0")
        await change(bench, worker, 2)
        stats = bench.valkey.command("INFO", "commandstats").decode()
        looks = int(stats.partition("cmdstat_hmget:calls=")[2].partition(",")[0])
        assert looks < 100

    run_between(run_bench, scenario)
