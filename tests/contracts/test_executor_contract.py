"""What every executor promises (`ports.Executor`), shown on example model `digits` 2 in each way of running it.

A new kind of executor joins by one more entry in EXECUTORS: something that opens it, prepared, and closes all that it
needed.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from time import monotonic_ns
from typing import Any

import msgspec
import pytest

from gateway.catalog import Backend, HttpBackend, Manifest, parse_manifest
from gateway.config import OnnxSettings
from gateway.errors import DeadlineExceeded, RequestError
from gateway.examples import DigitSample, digit_samples, digits_folder
from gateway.executors.http import HttpExecutor
from gateway.executors.onnx import OnnxExecutor
from gateway.messages import Rendered, Result, Work
from gateway.ports import Executor
from gateway.protocols.oip_v2 import OipV2
from gateway.wire.client import PooledClient

PROTOCOL = OipV2()
SECOND = 1_000_000_000


def digits_manifest(version: str) -> Manifest:
    folder = digits_folder() / version
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    assert manifest.backend.onnx is not None
    placed = msgspec.structs.replace(manifest.backend.onnx, path=str(folder / manifest.backend.onnx.path))
    return msgspec.structs.replace(manifest, backend=Backend(onnx=placed))


@asynccontextmanager
async def _onnx(settings: OnnxSettings) -> AsyncIterator[Executor]:
    pools = {lane: ThreadPoolExecutor(2) for lane in ("primary", "shadow")}
    executor = OnnxExecutor(digits_manifest("2"), settings, pools)
    await executor.prepare()
    yield executor
    await executor.release()
    for pool in pools.values():
        pool.shutdown()


@asynccontextmanager
async def _http() -> AsyncIterator[Executor]:
    """A version behind HTTP: another server runs the same model and speaks the protocol."""
    running: set[asyncio.Task[None]] = set()
    async with _onnx(OnnxSettings(inline_below_ms=60_000)) as model:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                    length = re.search(r"\r\ncontent-length: (\d+)", head)
                    body = await reader.readexactly(int(length[1]) if length else 0)
                    answer = await _answer(model, head.split()[1], body)
                    writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n" % (answer.status, len(answer.body)))
                    writer.write(b"content-type: %b\r\n\r\n%b" % (answer.content_type.encode(), answer.body))
            except (OSError, asyncio.IncompleteReadError):
                pass  # the client has closed the connection
            finally:
                writer.close()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(serve(reader, writer), name="backend")
            running.add(task)
            task.add_done_callback(running.discard)

        listener = await asyncio.start_server(accept, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        client = PooledClient(max_connections=64, keepalive_seconds=30, connect_timeout_ms=2_000)
        yield HttpExecutor(Manifest("digits", "2", Backend(http=HttpBackend((url,)))), client)
        await client.close()
        listener.close()
        if running:
            await asyncio.wait(running)


async def _answer(model: Executor, path: str, body: bytes) -> Rendered:
    if path.endswith("/infer"):
        try:
            return (await model.execute(Work(body, {}, (), monotonic_ns() + 30 * SECOND), PROTOCOL)).rendered
        except RequestError as error:
            return PROTOCOL.render_error(error)
    if path.endswith("/ready"):
        return Rendered(200, b'{"ready": true}')
    signature = (await model.ready()).signature
    assert signature is not None
    return Rendered(200, msgspec.json.encode(signature))


EXECUTORS: dict[str, Callable[[], AbstractAsyncContextManager[Executor]]] = {
    "onnx on the event loop": lambda: _onnx(OnnxSettings(inline_below_ms=60_000)),
    "onnx in threads": lambda: _onnx(OnnxSettings(inline_below_ms=0)),
    "http": _http,
}


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Callable[[Callable[[Executor], Awaitable[None]]], None]:
    """Run a coroutine function on an open executor, in an event loop of its own."""

    def on_it(check: Callable[[Executor], Awaitable[None]]) -> None:
        async def main() -> None:
            async with EXECUTORS[request.param]() as opened:
                await check(opened)

        asyncio.run(main())

    return on_it


OnIt = Callable[[Callable[[Executor], Awaitable[None]]], None]


def work(*samples: DigitSample, seconds: float = 30, **more: Any) -> Work:
    pixels = [list(sample.pixels) for sample in samples]
    tensor = {"name": "pixels", "shape": [len(samples), 64], "datatype": "FP32", "data": pixels}
    body = json.dumps({"inputs": [tensor], **more}).encode()
    return Work(body, {"content-type": "application/json"}, (), monotonic_ns() + int(seconds * SECOND))


def outputs_of(result: Result) -> dict[str, Any]:
    return {output["name"]: output for output in json.loads(result.rendered.body)["outputs"]}


def test_a_prepared_version_is_ready_and_tells_its_signature(executor: OnIt) -> None:
    async def check(version: Executor) -> None:
        readiness = await version.ready()
        assert readiness.ready
        assert readiness.signature is not None
        (pixels,) = readiness.signature.inputs
        assert (pixels.name, pixels.datatype, pixels.shape) == ("pixels", "FP32", (-1, 64))
        assert [spec.name for spec in readiness.signature.outputs] == ["label", "probabilities"]

    executor(check)


def test_a_request_is_answered_with_the_tensors_of_the_version(executor: OnIt) -> None:
    sample = digit_samples()[0]

    async def check(version: Executor) -> None:
        result = await version.execute(work(sample, id="r-1"), PROTOCOL)
        assert result.rendered.status == 200
        assert result.rendered.content_type == "application/json"
        assert json.loads(result.rendered.body)["id"] == "r-1"
        outputs = outputs_of(result)
        assert outputs["label"]["data"] == [sample.label]
        assert outputs["probabilities"]["shape"] == [1, 10]
        assert sum(outputs["probabilities"]["data"]) == pytest.approx(1, abs=1e-5)

    executor(check)


def test_a_result_says_where_it_ran_and_how_long_it_took(executor: OnIt) -> None:
    async def check(version: Executor) -> None:
        started = monotonic_ns()
        result = await version.execute(work(digit_samples()[0]), PROTOCOL)
        elapsed = monotonic_ns() - started
        assert result.backend
        assert result.queue_ns >= 0
        assert result.infer_ns > 0
        assert result.queue_ns + result.infer_ns <= elapsed

    executor(check)


def test_requests_at_the_same_time_each_get_their_own_answer(executor: OnIt) -> None:
    samples = digit_samples()[:40]

    async def check(version: Executor) -> None:
        alone = [outputs_of(await version.execute(work(sample), PROTOCOL)) for sample in samples]
        together = await asyncio.gather(*(version.execute(work(sample), PROTOCOL) for sample in samples))
        assert [outputs_of(result) for result in together] == alone

    executor(check)


def test_a_batch_is_answered_row_by_row(executor: OnIt) -> None:
    samples = digit_samples()[:8]

    async def check(version: Executor) -> None:
        outputs = outputs_of(await version.execute(work(*samples), PROTOCOL))
        assert outputs["label"]["shape"] == [8]
        singly = [outputs_of(await version.execute(work(sample), PROTOCOL)) for sample in samples]
        assert outputs["label"]["data"] == [output["label"]["data"][0] for output in singly]

    executor(check)


def test_a_body_that_does_not_fit_is_refused_as_the_callers_mistake(executor: OnIt) -> None:
    async def check(version: Executor) -> None:
        short = work(digit_samples()[0])
        short.body = b'{"inputs":[]}'
        try:
            status = (await version.execute(short, PROTOCOL)).rendered.status
        except RequestError as error:
            status = PROTOCOL.render_error(error).status
        assert 400 <= status < 500

    executor(check)


def test_a_deadline_that_has_passed_ends_the_request(executor: OnIt) -> None:
    async def check(version: Executor) -> None:
        with pytest.raises(DeadlineExceeded):
            await version.execute(work(digit_samples()[0], seconds=-1), PROTOCOL)

    executor(check)


def test_a_cancelled_request_leaves_the_version_able_to_serve(executor: OnIt) -> None:
    async def check(version: Executor) -> None:
        running = asyncio.create_task(version.execute(work(digit_samples()[0]), PROTOCOL), name="running")
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})
        assert (await version.execute(work(digit_samples()[0]), PROTOCOL)).rendered.status == 200

    executor(check)
