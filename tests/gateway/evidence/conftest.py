"""Recorded inferences of the example models, in a real store, and a bench to run them again on.

with_bench      with_bench(test) runs `async test(at)`; `at` is a `Replays`
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic_ns
from typing import Any

import msgspec
import pytest

from gateway.capture import capture
from gateway.catalog import Backend, Manifest, OnnxBackend, parse_manifest
from gateway.config import OnnxSettings
from gateway.errors import GatewayError
from gateway.evidence.bench import Bench
from gateway.evidence.replay import Replayed, Replaying
from gateway.evidence.trial import Trial, TrialRun
from gateway.examples import digit_samples, digits_folder
from gateway.executors.http import HttpExecutor
from gateway.executors.onnx import OnnxExecutor
from gateway.messages import Work
from gateway.ports import Executor, Filter
from gateway.protocols.oip_v2 import OipV2
from gateway.protocols.oip_v2_answers import read_answer
from gateway.record import Attempt, Payload, Record, encode_record
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.wire.client import PooledClient
from routing import Capture
from tests.records import ChainedJournal, batch, new_record

FULL = Capture()


class Replays:
    """What a test has in its hands: a store, the versions that are registered, and what replays its records."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self.store = SqliteAudit(folder / "audit")
        self.chain = ChainedJournal()
        self.registered = {version: self._copied(version) for version in ("1", "2", "3")}
        self.protocol = OipV2()
        self.progress: list[tuple[int, int]] = []
        self._pools = {lane: ThreadPoolExecutor(1) for lane in ("primary", "shadow")}
        self._client = PooledClient(max_connections=4, keepalive_seconds=1.0, connect_timeout_ms=1000)
        self._number = 0
        stack.callback(self.store.close)
        stack.push_async_callback(self._client.close)
        for pool in self._pools.values():
            stack.callback(pool.shutdown)

    def _copied(self, version: str) -> Manifest:
        """Copy the artifact of an example version, so that a test may change it."""
        example = digits_folder() / version
        manifest = parse_manifest((example / "manifest.json").read_bytes())
        assert manifest.backend.onnx is not None
        path = self.folder / f"{version}.onnx"
        path.write_bytes((example / "model.onnx").read_bytes())
        return msgspec.structs.replace(
            manifest, backend=Backend(onnx=OnnxBackend(str(path), manifest.backend.onnx.sha256))
        )

    def artifact(self, version: str) -> Path:
        backend = self.registered[version].backend.onnx
        assert backend is not None
        return Path(backend.path)

    def executor(self, manifest: Manifest) -> Executor:
        if manifest.backend.http is not None:
            return HttpExecutor(manifest, self._client)
        return OnnxExecutor(manifest, OnnxSettings(), self._pools)

    async def manifests_of(self, model: str, version: str, _: int | None) -> tuple[Manifest, ...]:
        found = self.registered.get(version)
        return (found,) if model == "digits" and found is not None else ()

    async def answer(self, version: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of what a version really answers."""
        executor = self.executor(self.registered[version])
        await executor.prepare()
        try:
            work = Work(body, {}, (), monotonic_ns() + 10**10)
            result = await executor.execute(work, self.protocol)
            return 200, result.rendered.body
        except GatewayError as error:
            rendered = self.protocol.render_error(error)
            return rendered.status, rendered.body
        finally:
            await executor.release()

    def write(self, record: Record, request: bytes, response: bytes, policy: Capture = FULL) -> Record:
        """Have a record in the store, with its bodies captured by `policy`; a shadow has no request of its own."""
        incoming, sent = capture(request, policy.request, policy)
        outgoing, left = capture(response, policy.response, policy)
        if record.role == "shadow":
            sent = b""
        self.keep(record, (incoming, sent), (outgoing, left))
        return record

    def keep(self, record: Record, request: tuple[Payload, bytes], response: tuple[Payload, bytes]) -> None:
        """Have a record in the store with these very payloads and parts."""
        whole = msgspec.structs.replace(record, request=request[0], response=response[0])
        self.store.write(batch([self.chain.sealed(encode_record(whole), request[1], response[1])]))

    def record(self, version: str = "2", **fields: Any) -> Record:
        """Return the record of an inference that this version served."""
        self._number += 1
        digest = self.registered[version].digest if version in self.registered else None
        given = {
            "model": "digits",
            "protocol": self.protocol.name,
            "intended": version,
            "served": version,
            "digest": digest,
            "infer_us": 100,
            "attempts": (Attempt(version, "onnx", 100, 200),),
        }
        return new_record(self._number, **(given | fields))

    async def serve(self, sample: int = 0, version: str = "2", policy: Capture = FULL, **fields: Any) -> Record:
        """Have the record of a real inference in the store."""
        body = digit(sample)
        status, answer = await self.answer(version, body)
        return self.write(self.record(version, status=status, **fields), body, answer, policy)

    async def replay(
        self, record: Record | str, version: str | None = None, *, allow_backend: bool = False
    ) -> Replayed:
        any_id = record if isinstance(record, str) else record.record_id
        bench = self.bench(allow_backend)
        try:
            return await Replaying(bench, read_answer).replay(self.store.find(any_id), any_id, version)
        finally:
            await bench.close()

    async def trial(self, version: str, sample: int, **fields: Any) -> Trial:
        bench = self.bench(allow_backend=False)
        wanted = Filter(**({"model": "digits", "role": "primary"} | fields))
        try:
            run = TrialRun(self.store, bench, Replaying(bench, read_answer))
            return await run.run(wanted, version, sample, lambda done, total: self.progress.append((done, total)))
        finally:
            await bench.close()

    def bench(self, allow_backend: bool) -> Bench:
        protocols = {self.protocol.name: self.protocol}
        return Bench(self.executor, self.manifests_of, protocols, allow_backend=allow_backend)


def digit(sample: int, **fields: Any) -> bytes:
    """Return the request for one example digit."""
    pixels = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": list(digit_samples()[sample].pixels)}
    return json.dumps({"inputs": [pixels], **fields}).encode()


def changed(answer: bytes, output: str, data: Sequence[Any]) -> bytes:
    """Return an answer with other values in one output."""
    document = json.loads(answer)
    for one in document["outputs"]:
        if one["name"] == output:
            one["data"] = list(data)
    return json.dumps(document).encode()


def outputs_of(answer: bytes) -> Mapping[str, list[Any]]:
    return {one["name"]: one["data"] for one in json.loads(answer)["outputs"]}


Test = Callable[[Replays], Awaitable[None]]


@pytest.fixture
def with_bench(tmp_path: Path) -> Callable[[Test], None]:
    def run(test: Test) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30), AsyncExitStack() as stack:
                await test(Replays(tmp_path, stack))

        asyncio.run(bounded())

    return run
