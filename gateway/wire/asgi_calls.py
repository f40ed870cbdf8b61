"""One request through an ASGI application, from a connection's point of view: https://asgi.readthedocs.io.

Belongs here: scope, `receive` and `send` of one HTTP request whose body has arrived whole. Never here: connections,
deadlines, or what the application does.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from gateway.errors import GatewayError, InternalError, Stopping
from gateway.logs import logger
from gateway.wire.asgi import Message, Receive, Scope, Send
from gateway.wire.heads import Head
from gateway.wire.replies import BODILESS, connection_line, write_head

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
_OURS = frozenset({"connection", "date", "transfer-encoding"})
"""Headers of a reply that the connection writes, whatever the application says."""


class Outlet(Protocol):
    """Where a reply is written."""

    def write(self, data: bytes) -> None:
        """Send bytes of the reply."""

    async def writable(self) -> None:
        """Wait until the caller has taken enough of what was written."""


class AsgiCall:
    """One call of an application. `begun` and `complete` tell how much of its reply has been written."""

    def __init__(
        self,
        head: Head,
        body: bytes,
        outlet: Outlet,
        *,
        date: Callable[[], str],
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        scheme: str,
    ) -> None:
        """`client` and `server` are addresses. `head.keep_alive` is taken back where the reply ends with a close."""
        self._head = head
        self._body: bytes | None = body
        self._outlet = outlet
        self._date = date
        self._status = 0
        self._headers: list[tuple[str, str]] = []
        self._left: int | None = None  # bytes of the body still to come, where its length was announced
        self._chunked = False
        self._over = asyncio.Event()
        self.begun = False
        self.complete = False
        path, _, query = head.target.partition(b"?")
        self._scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "method": head.method,
            "scheme": scheme,
            "path": head.path,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in head.fields],
            "client": client,
            "server": server,
        }

    async def run(self, application: Application) -> GatewayError | None:
        """Have the application answer; return what went wrong, if anything did."""
        try:
            await application(self._scope, self._receive, self._send)
        except asyncio.CancelledError:
            return Stopping("the gateway stopped before the request had ended; send it again")
        except Exception as defect:  # noqa: BLE001 - a defect is one failed request, never a connection that hangs
            return defect_of(defect)
        return None if self.complete else defect_of(RuntimeError("the application ended before its reply did"))

    async def _receive(self) -> Message:
        """Give the body, whole, and after the reply is complete the news that the request is over."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()  # a caller that hangs up cancels this
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        """Write a part of the reply.

        Raises:
            RuntimeError: it is not the part that is due, or not of the length that was announced.
            ValueError: a header that would break out of its line.
        """
        kind = message["type"]
        if kind == "http.response.start" and not self._status:
            self._status = message["status"]
            self._headers = _decoded(message.get("headers", ()))
        elif kind == "http.response.body" and self._status and not self.complete:
            await self._send_body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} is not due in this reply")

    async def _send_body(self, body: bytes, more: bool) -> None:
        await self._outlet.writable()
        head = b"" if self.begun else self._write_head()
        if self._head.method == "HEAD" or self._status in BODILESS:
            body = b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the body of the reply is not of the length that was announced")
        elif self._chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        if head or body:
            self._outlet.write(head + body)
        self.begun = True
        if not more:
            self.complete = True
            self._over.set()

    def _write_head(self) -> bytes:
        head, framing = self._head, ""
        names = dict(self._headers)
        if "content-length" in names:
            self._left = int(names["content-length"])
        elif head.method != "HEAD" and self._status not in BODILESS:
            self._chunked = head.version == "1.1"
            head.keep_alive &= self._chunked  # the end of the connection is the end of the body
            framing = "transfer-encoding: chunked\r\n" if self._chunked else ""
        if names.get("connection", "").lower() == "close":
            head.keep_alive = False
        framing += connection_line(head)
        headers = [(name, value) for name, value in self._headers if name not in _OURS]
        return write_head(self._status, headers, self._date(), framing)


def defect_of(defect: Exception) -> InternalError:
    """Log a defect of ours, and return what a caller may know of it."""
    logger().error("defect", exc_info=defect)
    return InternalError("the gateway failed; its log has the details")


def _decoded(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
