"""Real backends on loopback for tests of versions behind HTTP, and the executor in front of them.

backend(reply)            serves what `reply` says; `http(…)` makes the bytes of an answer; `never()` waits for ever
executor(*urls, …)        the executor of a manifest with these URLs and further fields of `backend.http`
work(…), execute(…)       one request, with a deadline that most tests do not care about
closed_url()              where nobody listens
run(test)                 runs a coroutine to its end, within a bound
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from gateway.catalog import parse_manifest
from gateway.executors.http import HttpExecutor
from gateway.messages import Headers, Lane, Result, Work
from gateway.ports import InferProtocol
from gateway.wire.client import PooledClient

BODY = b'{"inputs": [ {"name":"x", "data":[1,2.50]} ],  "id":"\xc3\xa9"}\n'
ANSWER = b'{"outputs":[ ]}'
NOT_ASKED = cast(InferProtocol, None)
"""Forwarding touches no body, so no protocol is needed."""
Reply = Callable[[str, list[str], bytes], bytes | Awaitable[bytes]]
"""A backend: the request line, the other lines of the head in lower case, and the body give the bytes to answer."""


def http(body: bytes = ANSWER, status: str = "200 OK", headers: tuple[str, ...] = ()) -> bytes:
    head = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


@asynccontextmanager
async def backend(reply: Reply, url: str | None = None) -> AsyncIterator[str]:
    """Serve on loopback, at `url` if that is given, and give the URL.

    A connection is closed after an answer that is not complete HTTP.
    """
    running: set[asyncio.Task[None]] = set()

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
                lines = [line.lower() for line in lines]
                length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), 0)
                answer = reply(first, lines, await reader.readexactly(length))
                writer.write(answer if isinstance(answer, bytes) else await answer)
                await writer.drain()
                if not isinstance(answer, bytes) or not answer.startswith(b"HTTP/1.1 ") or b"\r\n\r\n" not in answer:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, or the test is over
        finally:
            running.discard(task)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    listener = await asyncio.start_server(answer_all, "127.0.0.1", int(url.rpartition(":")[2]) if url else 0)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in tuple(running):
            task.cancel()
        if running:
            await asyncio.wait(tuple(running))


@asynccontextmanager
async def executor(*urls: str, **options: Any) -> AsyncIterator[HttpExecutor]:
    client = PooledClient(max_connections=32, keepalive_seconds=30.0, connect_timeout_ms=2_000)
    version = HttpExecutor(manifest(*urls, **options), client)
    try:
        await version.prepare()
        yield version
    finally:
        await version.release()
        await client.close()


def manifest(*urls: str, **options: Any) -> Any:
    return parse_manifest({"model": "fraud", "version": "2", "backend": {"http": {"urls": list(urls), **options}}})


def work(
    headers: Mapping[str, str] | None = None,
    forward: Headers = (),
    seconds: float = 10.0,
    lane: Lane = "primary",
    body: bytes = BODY,
    **more: Any,
) -> Work:
    return Work(body, headers or {}, forward, time.monotonic_ns() + int(seconds * 1e9), lane, **more)


async def execute(version: HttpExecutor, request: Work | None = None) -> Result:
    return await version.execute(request or work(), NOT_ASKED)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(bounded())


def closed_url() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


async def never() -> bytes:
    await asyncio.Event().wait()
    raise AssertionError
