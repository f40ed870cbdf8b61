"""A data port in front of backends that stream, all of it real but the rules store: sockets, server, client, executor.

on_world(check)     runs `check(world)` on the loop of production; `world.call()` begins a request to model `talk`
Events              a backend that answers every request with what the test tells it to, when it tells it to
Call                one request: `head()`, then `piece()` by `piece()`, or `rest()`
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from ssl import SSLContext
from typing import Any

from msgspec import Struct

from gateway.capture import Contents, fits, open_part
from gateway.catalog import Manifest, encode_manifest, parse_manifest
from gateway.config import LimitSettings, RulesSettings, ShadowSettings, TlsSettings
from gateway.dataplane import DataPlane
from gateway.executors.http import HttpExecutor
from gateway.flight import Origin
from gateway.guards import Guards
from gateway.inquiries import Inquiries
from gateway.metrics import Board
from gateway.ports import Executor, Kind, StoredDocument
from gateway.protocols.oip_v2 import OipV2Face
from gateway.record import Record
from gateway.request_lines import RequestLines
from gateway.shadow import Shadows
from gateway.snapshot import PreparedVersion, Rules
from gateway.wire.asgi import AsgiFace
from gateway.wire.client import PooledClient
from gateway.wire.listening import Listening, bind
from gateway.wire.port import Port
from gateway.wire.serving import serve_data_until
from routing import encode_document, parse_route
from tests.conftest import until
from tests.gateway.protocols.conftest import FixedRules
from tests.gateway.test_dataplane import Kept
from tests.gateway.wire.backends import Server, read_request
from tests.gateway.wire.open_port import PATIENCE, run

INFER = "/v2/models/talk/infer"
BODY = b'{"id": "said", "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'
EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = EVENTS + b"transfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = EVENTS + b"\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Answering:
    """One request that has come to a backend, and what it is told to answer."""

    def __init__(self, head: list[str], body: bytes, writer: asyncio.StreamWriter) -> None:
        self.head, self.body, self._writer = head, body, writer
        self.over = asyncio.Event()
        self.hung_up = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    def begin(self) -> None:
        self.write(CHUNKED)

    def send(self, event: bytes) -> None:
        self.write(chunk(event))

    def end(self) -> None:
        """End the answer in order; the connection may be used again."""
        self.write(b"0\r\n\r\n")
        self.over.set()

    def cut(self, reset: bool = False) -> None:
        """Break it off."""
        if reset:
            self._writer.transport.abort()
        else:
            self._writer.close()
        self.over.set()

    async def drain(self) -> None:
        await self._writer.drain()

    async def given_up(self) -> None:
        """Wait until the gateway has closed the connection; that is to be long before any deadline."""
        async with asyncio.timeout(5):
            await self.hung_up.wait()

    @property
    def unsent(self) -> int:
        return self._writer.transport.get_write_buffer_size()


class Events:
    """A backend. `next()` gives the next request that comes; `connections` counts those that it was given."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[Answering] = asyncio.Queue()
        self.server = Server(self._script)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def connections(self) -> int:
        return self.server.connections

    async def next(self) -> Answering:
        async with asyncio.timeout(PATIENCE):
            return await self._came.get()

    async def _script(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            answering = Answering(*await read_request(reader), writer)
            self._came.put_nowait(answering)
            over = asyncio.create_task(answering.over.wait())
            gone = asyncio.create_task(reader.read(1))  # nobody sends a request behind one that is not answered
            try:
                await asyncio.wait({over, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.over.is_set():
                    answering.hung_up.set()
                    return
            finally:
                for task in (over, gone):
                    task.cancel()
                await asyncio.gather(over, gone, return_exceptions=True)


class Call:
    """One request of a caller, and what comes back of it; several may follow each other on a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}

    async def head(self) -> "Call":
        """Read the head of the next reply."""
        async with asyncio.timeout(PATIENCE):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        self.status = int(lines[0].split()[1])
        self.headers = dict(line.split(": ", 1) for line in lines[1:])
        assert len(self.headers) == len(lines) - 1, f"a header stands twice: {lines}"
        return self

    async def piece(self) -> bytes:
        """Read the next chunk; empty when it is the last."""
        async with asyncio.timeout(PATIENCE):
            size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
            data = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        return data

    async def rest(self) -> bytes:
        """Read chunks to the last."""
        body = b""
        while piece := await self.piece():
            body += piece
        return body

    async def all_that_comes(self) -> bytes:
        """Read until the gateway closes, and have that be of no error."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read()

    async def in_step(self, answering: Answering, count: int) -> None:
        """Have `count` events sent, each once the one before it is here as a piece of its own."""
        for number in range(count):
            event = b"data: %d\n\n" % number
            answering.send(event)
            assert await self.piece() == event

    async def pieces_until_cut(self) -> bytes:
        """Read chunks until the connection is closed, which must come before the last of them."""
        body = b""
        with suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                piece = await self.piece()
                assert piece, "a reply that broke off looks as if it were whole"
                body += piece
        return body

    def ask(self, path: str = INFER, *lines: str, version: str = "1.1", body: bytes = BODY) -> None:
        head = [f"POST {path} HTTP/{version}", "Host: test", f"Content-Length: {len(body)}", *lines, "", ""]
        self.writer.write("\r\n".join(head).encode("latin-1") + body)

    def hang_up(self) -> None:
        self.writer.close()


class World(Struct):
    """What a test can look at and do."""

    number: int
    backends: dict[str, Events]
    plane: DataPlane
    kept: Kept
    board: Board
    port: Port
    rules: Rules
    shadows: Shadows
    stop: asyncio.Event
    calls: list[Call]

    async def connect(self, number: int | None = None, tls: SSLContext | None = None) -> Call:
        """Open a connection to the port, or to another one that leads there."""
        call = Call(*await asyncio.open_connection("127.0.0.1", number or self.number, ssl=tls))
        self.calls.append(call)
        return call

    async def call(self, path: str = INFER, *lines: str, **more: Any) -> Call:
        """Send a request on a connection of its own."""
        call = await self.connect()
        call.ask(path, *lines, **more)
        return call

    async def begun(self, *lines: str, version: str = "1", http: str = "1.1") -> tuple[Call, Answering]:
        """Have a request sent, and the head of its answer come back."""
        call = await self.call(INFER, *lines, version=http)
        answering = await self.backends[version].next()
        answering.begin()
        await call.head()
        assert call.status == 200
        return call, answering

    async def record(self, number: int = 0) -> Record:
        """Return a record, by the order in which they are written."""
        await until(lambda: len(self.kept.records) > number)
        return self.kept.records[number]

    def response(self, number: int = 0) -> Contents:
        """Return what was kept of the response of a record, after checking it against the record."""
        payload, part = self.kept.records[number].response, self.kept.parts[number][1]
        assert fits(part, payload)
        contents = open_part(part, payload)
        assert contents is not None
        return contents

    def prepared(self, version: str = "1") -> PreparedVersion:
        snapshot = self.rules.snapshot
        assert snapshot is not None
        return snapshot.versions["talk", version]


def _documents(route: dict[str, Any], urls: dict[str, str], backend: dict[str, Any]) -> Any:
    documents: dict[tuple[Kind, str], StoredDocument] = {}
    for number, (version, url) in enumerate(urls.items(), 1):
        http = {"urls": [url], **backend}
        manifest = parse_manifest({"model": "talk", "version": version, "backend": {"http": http}})
        documents["version", f"talk/{version}"] = StoredDocument(number, encode_manifest(manifest))
    parsed = parse_route({"model": "talk", "split": {"1": 10_000}, "timeout_ms": 20_000, **route})
    documents["route", "talk"] = StoredDocument(9, encode_document(parsed))
    return documents


@asynccontextmanager
async def world(
    folder: Path,
    *,
    route: dict[str, Any] | None = None,
    versions: tuple[str, ...] = ("1",),
    backend: dict[str, Any] | None = None,
    limits: dict[str, Any] | None = None,
    drain_seconds: float = 5.0,
    tls: TlsSettings | None = None,
) -> AsyncIterator[World]:
    """Serve `talk` by `route`, each of its `versions` at a backend of its own."""
    async with AsyncExitStack() as stack:
        backends = {version: Events() for version in versions}
        for events in backends.values():
            await stack.enter_async_context(events.server)
        client = PooledClient(max_connections=128, keepalive_seconds=30.0, connect_timeout_ms=2_000)
        stack.push_async_callback(client.close)

        def executor_for(manifest: Manifest) -> Executor:
            return HttpExecutor(manifest, client)

        board, kept = Board(folder / "board"), Kept()
        stack.callback(board.close)
        urls = {version: events.url for version, events in backends.items()}
        source = FixedRules(_documents(route or {}, urls, backend or {}))
        rules = Rules(source, executor_for, folder, board, RulesSettings(), "w-0")
        await rules.start()
        stack.push_async_callback(rules.close)
        shadows = Shadows(ShadowSettings(), kept, board)
        plane = DataPlane(rules, kept, shadows, board, Origin("g", "w-0"), RequestLines("info"), Guards(board))
        face = OipV2Face(plane, Inquiries(rules, kept))
        port = Port(face, AsgiFace(face.handle, 2**20), LimitSettings(**(limits or {})))
        listening = bind("127.0.0.1", 0, "port")
        number, stop = listening.getsockname()[1], asyncio.Event()
        serving = asyncio.create_task(
            serve_data_until(stop, port, Listening(listening), tls or TlsSettings(), drain_seconds)
        )
        made = World(number, backends, plane, kept, board, port, rules, shadows, stop, [])
        try:
            yield made
        finally:
            for call in made.calls:
                call.writer.close()
            stop.set()
            await serving
            await shadows.drain(1.0)
            assert not port.connections


Check = Callable[[World], Awaitable[None]]


def on_world(folder: Path, check: Check, **options: Any) -> None:
    """Run `check` in a world of its own, within a minute."""

    async def whole() -> None:
        async with world(folder, **options) as made:
            await check(made)

    run(whole())
