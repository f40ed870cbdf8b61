"""Backends for forwarding tests: small real HTTP servers on loopback, each with one way of behaving."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

Behaviour = Callable[["Backend", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Backend:
    """One server in a thread of its own. `release` lets held replies go; `connections` are the open ones."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._started = threading.Event()
        self.arrived = threading.Event()
        self.release = threading.Event()
        self.connections = 0
        self.requests: list[tuple[bytes, bytes]] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="backend", daemon=True)

    def __enter__(self) -> "Backend":
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._started.set()
        await self._stop.wait()
        server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports let go of their sockets in the next turn of the loop

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                size = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
                self.requests.append((head, await reader.readexactly(size)))
                self.arrived.set()
                await self._behaviour(self, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.connections -= 1
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def reply(status: str, body: bytes, content_type: str = "application/json") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


ANSWER = json.dumps(
    {"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}]}
).encode()


async def answers(_: Backend, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(reply("200 OK", ANSWER))


async def hangs(_: Backend, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Answer nothing until the caller gives up."""
    await reader.read()


async def holds(backend: Backend, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer when `release` is set."""
    while not backend.release.is_set():  # noqa: ASYNC110 - it is set from another thread
        await asyncio.sleep(0.01)
    writer.write(reply("200 OK", ANSWER))


async def garbage_body(_: Backend, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(reply("200 OK", b"\x00<garbage>", "text/plain"))


async def garbage_protocol(_: Backend, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    writer.close()


async def teapot(_: Backend, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(reply("418 I'm a teapot", b'{"error": "short and stout"}'))


async def overloaded(_: Backend, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(reply("503 Service Unavailable", b'{"error": "busy"}'))


@contextmanager
def backend(behaviour: Behaviour) -> Iterator[Backend]:
    with Backend(behaviour) as running:
        yield running
