"""The data port as pure ASGI, for what is no inference: bytes in, one `WireRequest`; one `WireReply`, bytes out.

Inference goes past this, from the server straight to the same `handle`; served by another server, this does for all.
Then all replies are whole, also those that our own server sends piece by piece: ASGI does not say what a server does
with a reply whose application ends in the middle, so one that broke off might look whole.

Belongs here: reading bodies within their limit, headers, framing. Never here: models, versions, rules, or paths of
a protocol; the `handle` that is passed in knows those.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from time import monotonic_ns, time_ns
from typing import Any

from gateway.errors import BodyTooLarge, ClientClosed, RequestError
from gateway.messages import WireReply, WireRequest

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handle = Callable[[WireRequest], Awaitable[WireReply]]


class AsgiFace:
    """An ASGI application around one `handle`. Bodies above `max_body_bytes` are refused without being kept."""

    def __init__(self, handle: Handle, max_body_bytes: int) -> None:
        self._handle = handle
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request (https://asgi.readthedocs.io, HTTP connection scope 2.3)."""
        if scope["type"] != "http":
            raise RuntimeError(f"the data port speaks HTTP, not {scope['type']}")
        received_ns, started_ns = time_ns(), monotonic_ns()
        headers = read_headers(scope["headers"])
        body, refused, size = await self._read_body(headers, receive)
        client = scope.get("client")
        reply = await self._handle(
            WireRequest(
                method=scope["method"],
                path=scope["path"],
                headers=headers,
                body=body,
                client=client[0] if client else "",
                received_ns=received_ns,
                started_ns=started_ns,
                refused=refused,
                declared_size=size,
            )
        )
        await _send(reply, send)
        if reply.after_sent is not None:
            reply.after_sent()

    async def _read_body(self, headers: Mapping[str, str], receive: Receive) -> tuple[bytes, RequestError | None, int]:
        """Return (body, why it is refused, its size as far as known). A refused body is empty."""
        announced = headers.get("content-length", "")
        size = int(announced) if announced.isdecimal() else 0
        if size > self._max_body_bytes:
            return b"", self._too_large(size), size
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            return message.get("body", b""), None, size
        chunks: list[bytes] = []
        arrived = 0
        while message["type"] == "http.request":
            chunks.append(message.get("body", b""))
            arrived += len(chunks[-1])
            if arrived > self._max_body_bytes:
                return b"", self._too_large(arrived), max(size, arrived)
            if not message.get("more_body", False):
                return b"".join(chunks), None, arrived
            message = await receive()
        return b"", ClientClosed("the caller hung up before its body had arrived"), max(size, arrived)

    def _too_large(self, size: int) -> BodyTooLarge:
        return BodyTooLarge(
            f"body: {size} bytes or more; the limit is {self._max_body_bytes} bytes (limits.max_body_bytes)"
        )


def read_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers by lower-case name, the first of each. Values are UTF-8, or Latin-1 where they are not."""
    headers: dict[str, str] = {}
    for name, value in raw:
        headers.setdefault(name.decode("latin-1"), _text(value))
    return headers


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def _send(reply: WireReply, send: Send) -> None:
    lines = (line.partition(": ") for line in reply.lines.split("\r\n") if line)
    fields = (*((name, value) for name, _, value in lines), *reply.headers)
    headers = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in fields]
    headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
