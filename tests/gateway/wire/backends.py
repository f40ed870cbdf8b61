"""Backends for tests of the upstream client: listeners on loopback that answer exactly the bytes a test wants.

Server(script)      runs `script` on each connection; scripts: answering(…), keep_answering, hang
make_client, send   the client, and one request with a deadline that most tests do not care about
open_sockets        how many sockets this process has, so that none is left behind
"""

import asyncio
import ssl
import time
from asyncio.trsock import TransportSocket
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.messages import Headers
from gateway.ports import UpstreamClient, UpstreamReply, UpstreamStream
from gateway.wire.client import PooledClient

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """A listener on loopback that runs `script` on each connection and closes it afterwards."""

    def __init__(
        self, script: Script, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._script = script
        self._tls = tls
        self._address = (host, port)
        self._running: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.sockets: list[TransportSocket] = []
        self.closed = 0
        self.url = ""
        self.port = 0

    async def __aenter__(self) -> Self:
        host, port = self._address
        self._listener = await asyncio.start_server(self._accept, host, port, ssl=self._tls)
        self.port = self._listener.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://{host}:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        await self.cut()

    async def cut(self) -> None:
        """Close every connection, but listen on."""
        for task in tuple(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(tuple(self._running))

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.sockets.append(writer.get_extra_info("socket"))
        try:
            await self._script(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, or the test is over
        except RuntimeError:
            if not writer.transport.is_closing():  # what uvloop says to who writes after the client hung up
                raise
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            self.closed += 1


async def read_head(reader: asyncio.StreamReader) -> list[str]:
    """Return the lines of the head of one request."""
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]


async def read_request(reader: asyncio.StreamReader) -> tuple[list[str], bytes]:
    """Return the lines of the head and the body of one request, whose length is said."""
    head = await read_head(reader)
    length = next((int(line.split(":")[1]) for line in head if line.lower().startswith("content-length:")), 0)
    return head, await reader.readexactly(length)


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """Return the next chunk of a request's body, empty at its end; anything but strict framing fails."""
    size = await reader.readuntil(b"\r\n")
    chunk = await reader.readexactly(int(size[:-2], 16))
    assert await reader.readexactly(2) == b"\r\n"
    return chunk


def answering(*answers: bytes) -> Script:
    """A script that answers the first request of a connection with the first of `answers`, and so on, then closes."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_request(reader)
            writer.write(answer)
            await writer.drain()

    return script


def answering_each(answers: Iterable[bytes]) -> Script:
    """A script that answers requests with `answers` in turn, whatever connection they come over, and never closes."""
    left = iter(answers)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(next(left))

    return script


async def keep_answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await read_request(reader)
        writer.write(OK)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def make_client(**options: Any) -> PooledClient:
    usual: dict[str, Any] = {
        "max_connections": 8,
        "keepalive_seconds": 30.0,
        "connect_timeout_ms": 2_000,
        "max_response_bytes": 2**20,
    }
    return PooledClient(**usual | options)


async def send(
    client: UpstreamClient,
    url: str,
    *,
    headers: Headers = (),
    body: bytes = b"{}",
    seconds: float = 10.0,
    lane: str = "primary",
    method: str = "POST",
) -> UpstreamReply:
    deadline = time.monotonic_ns() + int(seconds * 1e9)
    return await client.request(method=method, url=url, headers=headers, body=body, deadline_ns=deadline, lane=lane)


def stream(
    client: PooledClient, url: str, *, body: Any = b"{}", seconds: float = 10.0, method: str = "POST"
) -> AbstractAsyncContextManager[UpstreamStream]:
    deadline = time.monotonic_ns() + int(seconds * 1e9)
    return client.stream(method=method, url=url, headers=(), body=body, deadline_ns=deadline, lane="primary")


def open_sockets() -> int:
    """Count this process's sockets, listeners and both ends of loopback connections included."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:
            continue  # the descriptor of this very listing
    return count


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)
