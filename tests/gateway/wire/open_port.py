"""A real data port on loopback, what answers behind it, and a client that speaks and reads bytes.

open_port       serves an `Echo` on a free port; `async with open_port(...) as opened`
Echo            a face whose answers say what was asked, and which does what some paths ask of it
tell            sends bytes and returns all that comes back until the server closes
replies_in      those bytes as replies; fails when they are anything else
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvloop
from msgspec import Struct

from gateway.config import LimitSettings, TlsSettings
from gateway.errors import GatewayError
from gateway.messages import HUNG_UP, Answer, WireReply, WireRequest
from gateway.protocols.oip_v2 import OipV2
from gateway.wire.asgi import AsgiFace
from gateway.wire.asgi_calls import Application
from gateway.wire.listening import Listening, bind
from gateway.wire.port import Port
from gateway.wire.serving import serve_data_until

PATIENCE = 20.0
INFER = "/v2/models/m/infer"


class Echo:
    """Answers an inference with what it was asked, as JSON; `seen` are the requests that came, in order.

    Of a path `…/wait/…` the answer waits for `release`; `…/break/…` is a defect, `…/large/…` answers 4 MiB. `ended`
    says how each answer that waited came to its end.
    """

    def __init__(self) -> None:
        self.seen: list[WireRequest] = []
        self.ended: list[str] = []
        self.sent: list[str] = []
        self.release = asyncio.Event()
        self._protocol = OipV2()

    def is_inference(self, path: str) -> bool:
        return path.endswith("/infer")

    async def handle(self, request: WireRequest) -> WireReply:
        self.seen.append(request)
        if request.refused is not None:
            return self.refuse(request.refused)
        if "/break/" in request.path:
            raise ZeroDivisionError("a defect of the face")
        if "/wait/" in request.path:
            await self._wait()
        if "/large/" in request.path:
            return WireReply(200, (("x-path", request.path),), b"x" * (4 * 2**20))
        what = {"method": request.method, "path": request.path, "body": request.body.decode("latin-1")}
        headers = (("content-type", "application/json"), ("x-split", "\n" if "/split/" in request.path else ""))
        return WireReply(200, headers, json.dumps(what).encode(), lambda: self.sent.append(request.path))

    async def _wait(self) -> None:
        try:
            await self.release.wait()
            self.ended.append("answered")
        except asyncio.CancelledError as cancelled:
            self.ended.append("hung up" if HUNG_UP in cancelled.args else "stopped")
            raise

    def reply(self, answer: Answer) -> WireReply:
        rendered = answer.rendered
        return WireReply(rendered.status, (("content-type", rendered.content_type), *rendered.headers), rendered.body)

    def refuse(self, error: GatewayError) -> WireReply:
        rendered = self._protocol.render_error(error)
        return WireReply(rendered.status, (("content-type", rendered.content_type), *rendered.headers), rendered.body)


class Opened(Struct):
    """A port that is open: its number, its face, what the server holds, and what ends it."""

    number: int
    echo: Echo
    port: Port
    stop: asyncio.Event
    serving: asyncio.Task[None]


@asynccontextmanager
async def open_port(
    application: Application | None = None,
    echo: Echo | None = None,
    drain_seconds: float = 5.0,
    tls: TlsSettings | None = None,
    **limits: Any,
) -> AsyncIterator[Opened]:
    """Serve `echo`, and everything that is no inference through `application` (an AsgiFace around the same)."""
    echo = echo or Echo()
    port = Port(echo, application or AsgiFace(echo.handle, 2**20), LimitSettings(**{"max_body_bytes": 2**16, **limits}))
    listening = bind("127.0.0.1", 0, "port")
    number, stop = listening.getsockname()[1], asyncio.Event()
    serving = asyncio.create_task(
        serve_data_until(stop, port, Listening(listening), tls or TlsSettings(), drain_seconds)
    )
    try:
        yield Opened(number, echo, port, stop, serving)
    finally:
        echo.release.set()
        stop.set()
        await serving
        assert not port.connections


def run(work: Coroutine[Any, Any, None], seconds: float = 60.0) -> None:
    """Run a test's coroutine on the loop of the product, and fail rather than hang."""

    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await work

    uvloop.run(bounded())


class Reply(Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def echoed(self) -> dict[str, str]:
        """What an `Echo` was asked."""
        echoed: dict[str, str] = json.loads(self.body)
        return echoed


async def tell(number: int, pieces: bytes | Iterable[bytes], half_close: bool = False) -> bytes:
    """Send bytes, piece by piece, and return everything until the server closes. It must, within `PATIENCE`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    answers = asyncio.create_task(reader.read(), name="answers")
    try:
        with suppress(ConnectionError):
            for piece in [pieces] if isinstance(pieces, bytes) else pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if half_close:
                writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            return await answers
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def replies_in(data: bytes, methods: Iterable[str] = ()) -> list[Reply]:
    """Return the replies that `data` consists of; `methods` are those asked with, as far as they matter (HEAD)."""
    replies = []
    asked = iter(methods)
    while data:
        head, found, data = data.partition(b"\r\n\r\n")
        assert found, head
        lines = head.decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ", 2)[:2]
        assert version == "HTTP/1.1"
        if status == "100":
            replies.append(Reply(100, {}, b""))
            continue
        fields = [line.partition(": ")[::2] for line in lines[1:]]
        headers = dict(fields)
        assert len(headers) == len(fields), f"a header stands twice: {lines}"
        reply = Reply(int(status), headers, b"")
        replies.append(reply)
        if next(asked, "GET") == "HEAD" or status in {"204", "304"}:
            continue
        if headers.get("transfer-encoding") == "chunked":
            reply.body, data = _chunks(data)
        elif "content-length" in headers:
            length = int(headers["content-length"])
            assert len(data) >= length, "the body of a reply is cut off"
            reply.body, data = data[:length], data[length:]
        else:
            reply.body, data = data, b""
    return replies


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, found, data = data.partition(b"\r\n")
        assert found
        length = int(size, 16)
        body += data[:length]
        assert data[length : length + 2] == b"\r\n"
        data = data[length + 2 :]
        if not length:
            return body, data


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: test", *lines, "", ""]).encode("latin-1")


def post(path: str, body: bytes, *lines: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def chunked(path: str, chunks: Iterable[bytes], *lines: str, end: bytes = b"0\r\n\r\n") -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: test", "Transfer-Encoding: chunked", *lines, "", ""]
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return "\r\n".join(head).encode("latin-1") + body + end


async def settled(number: Callable[[], int]) -> int:
    """Wait until a number has stopped changing, and return it."""
    before = -1
    while before != (before := number()):  # noqa: ASYNC110 - nothing tells when nothing more happens
        await asyncio.sleep(0.1)
    return before


async def ask(opened: Opened, message: bytes) -> list[Reply]:
    """Send a message on a connection of its own, and return the replies; it must lead to a close."""
    return replies_in(await tell(opened.number, message))


Check = Callable[[Opened], Coroutine[Any, Any, None]]


def on_port(check: Check, application: Application | None = None, *, seconds: float = 60.0, **options: Any) -> None:
    """Run `check` with an open port."""

    async def whole() -> None:
        async with open_port(application, **options) as opened:
            await check(opened)

    run(whole(), seconds)
