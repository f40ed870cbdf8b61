"""One connection to a backend: one exchange at a time goes out as bytes and comes back as a reply.

Belongs here: the life of one connection as asyncio tells it, and when it must not be used again. Never here: which
exchange goes over which connection (that is `pool`), or what a reply looks like (that is `reply`).

A connection is used again only after a reply that ended cleanly, that came after the whole request had left, and that
nothing followed. In every other case it is closed: whatever might still come over it belongs to a caller who is gone.
"""

import asyncio
import select
import ssl
from collections.abc import Callable
from typing import Final, Protocol, cast

from gateway.errors import BackendProtocolError, BackendUnreachable, DeadlineExceeded, Progress, ServingError
from gateway.wire.alarm import NEVER
from gateway.wire.exchange import Exchange
from gateway.wire.reply import NotHttp, ReplyReader, TooLarge

_COPIED: Final = 65_536
"""Up to so many bytes, copying a body behind its head costs less than a second call."""


class Owner(Protocol):
    """The pool, as its connections know it."""

    def free(self, connection: "Connection") -> None:
        """Take back a connection that can be used again."""

    def lost(self, connection: "Connection") -> None:
        """Take note that a connection is gone."""

    def repeat(self, exchange: Exchange) -> None:
        """Send an exchange again, over a connection that has not been used, when the one that had it is lost."""


class Connection:
    """A connection, an `asyncio.Protocol` in all but name. `due_ns` is when it has to be looked at next: its exchange's
    deadline, or its own while idle; `descriptor` the number of its open socket.
    """

    __slots__ = (
        "_backend",
        "_exchange",
        "_heard",
        "_owner",
        "_paused",
        "_reply",
        "_transport",
        "_unasked",
        "_unsent",
        "_used",
        "_writable",
        "closing",
        "descriptor",
        "due_ns",
        "lost",
        "retire_ns",
    )

    def __init__(self, owner: Owner, backend: str, retire_ns: int) -> None:
        """Belong to `owner`, and take no new exchange after `retire_ns`."""
        self._owner = owner
        self._backend = backend
        self.retire_ns = retire_ns
        self.due_ns = NEVER
        self.closing = self.lost = False
        self._exchange: Exchange | None = None
        self._reply = ReplyReader()
        self._used = False
        self._heard = False
        self._unasked = False
        self._unsent = False
        self._paused = False
        self._writable: asyncio.Future[None] | None = None

    # ── what the pool does ───────────────────────────────────────────────────────────────────────────────────────

    def send(self, exchange: Exchange) -> None:
        """Take a request, which leaves with `depart`; its exchange hears of the reply."""
        self._exchange = exchange
        self._heard = False
        self.due_ns = exchange.deadline_ns
        self._reply.begin(exchange.head_only, exchange.limit)
        self._unsent = True
        exchange.placed(self)

    def depart(self, heard: bool) -> None:
        """Write the request that is put off, if nothing was `heard` since the last reply.

        The event loop may have had no turn to say so, and what a backend sends on its own would be taken for the
        answer to this request. (What it sends only after that has left cannot be told from its answer, by any client of
        HTTP/1.1.)
        """
        exchange = self._exchange
        if not self._unsent or exchange is None or self._transport.is_closing():
            return
        if self._used and heard:
            self.abort()
            return
        self._unsent = False
        body = exchange.body
        if len(body) <= _COPIED:
            self._transport.write(exchange.head + body)
        else:
            self._transport.write(exchange.head)
            self._transport.write(body)

    def abandon(self, exchange: Exchange) -> None:
        """Give an exchange up, and with it the connection, unless it is over already."""
        if self._exchange is exchange:
            self._release()
            self.abort()

    def overdue(self) -> None:
        """Give up what has taken until `due_ns`: the exchange, or being idle."""
        if self._exchange is None:
            self.close()
            return
        late = f"{self._backend} did not answer within {self._exchange.allowed_ms:.0f} ms"
        self.fail(DeadlineExceeded(late, self._backend))

    def fail(self, error: ServingError) -> None:
        """End the exchange, if there is one, with an error, and the connection with it."""
        exchange = self._release()
        self.abort()
        if exchange is not None:
            exchange.fail(error)

    def close(self) -> None:
        """Close it in order."""
        self._go(self._transport.close)

    def abort(self) -> None:
        """Close it at once, whatever is still under way."""
        self._go(self._transport.abort)

    def unusable(self) -> ServingError:
        """Return why a new connection is closing before anything was asked."""
        return self._why_lost(None, "nothing")

    # ── what an exchange does ────────────────────────────────────────────────────────────────────────────────────

    def send_part(self, data: bytes) -> None:
        """Send a piece of the request's body."""
        if self._unsent:
            self.depart(_is_heard(self.descriptor))
        self._transport.write(data)

    async def writable(self) -> None:
        """Return when the backend has taken enough of what was sent, or is gone."""
        if self._writable is not None:
            await self._writable

    def pause(self) -> None:
        """Read no more for now."""
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        self._transport.resume_reading()

    # ── what asyncio calls ───────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.descriptor: int = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes) -> None:
        """Read on in the reply."""
        exchange = self._exchange
        if exchange is None or self._unsent:
            self._unasked = True
            self.abort()
            return
        self._heard = True
        try:
            complete = self._reply.feed(data)
        except NotHttp as error:
            if self._reply.status:
                exchange.deliver(self._reply)  # what was right before it went wrong
            self.fail(BackendProtocolError(f"the answer of {self._backend} is not HTTP/1.1: {error}", self._backend))
        except TooLarge:
            too_much = f"{self._backend} answered with more than the {exchange.limit} bytes that are allowed"
            self.fail(BackendProtocolError(too_much, self._backend))
        else:
            if complete:
                self._complete(exchange)
            elif self._reply.status:
                exchange.deliver(self._reply)

    def eof_received(self) -> None:
        """Take the end of the stream for the end of the reply where that is how it ends; it is the connection's too."""
        exchange = self._exchange
        if exchange is not None and self._ended_in_order() and self._reply.end():
            self._complete(exchange)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Have the exchange sent again if the backend cannot have begun with it, else let it fail."""
        self.closing = self.lost = True
        self.resume_writing()
        exchange = self._release()
        # An idle connection is the backend's to close at any time, and a request may be on its way meanwhile.
        again = exchange is not None and self._used and not self._heard and exchange.repeatable and exchange.wanted
        if exchange is not None and again:
            self._owner.repeat(exchange)
        self._owner.lost(self)
        if exchange is not None and not again:
            progress: Progress = "answer" if self._heard else "nothing" if self._unsent else "request"
            exchange.fail(self._why_lost(exc, progress))
        self._reply.let_go()

    def pause_writing(self) -> None:
        """Let those who send wait."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Let them go on."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # ── endings ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _complete(self, exchange: Exchange) -> None:
        self._exchange = exchange.carrier = None
        exchange.finish(self._reply)
        if not exchange.sent or self._transport.get_write_buffer_size():
            self.abort()  # the answer did not wait for the request, the rest of which would go before the next one
        elif not self._reply.reusable:
            self.close()
        else:
            self._used = True
            if self._paused:
                self.resume()
            self._owner.free(self)
        exchange.tell()  # last, since the caller goes on in here and may send the next request

    def _ended_in_order(self) -> bool:
        """Tell the end of a TLS stream that the backend meant from one by somebody who cut it (RFC 8446, 6.1)."""
        tls: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        if tls is None:
            return True
        try:
            return not tls.read(1)
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError:  # it would still read on
            return False

    def _release(self) -> Exchange | None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.carrier = None
        return exchange

    def _go(self, way: Callable[[], None]) -> None:
        self.closing = True
        self.due_ns = NEVER
        way()

    def _why_lost(self, exc: Exception | None, progress: Progress) -> ServingError:
        if self._unasked:
            return BackendProtocolError(f"{self._backend} speaks before it is asked, so it is not HTTP", self._backend)
        why = f": {exc.reason or exc}" if isinstance(exc, ssl.SSLError) else ""
        cut = f"{self._backend} closed the connection before its whole answer had come{why}"
        error = BackendUnreachable(cut, self._backend)
        error.progress = progress
        return error


def _is_heard(descriptor: int) -> bool:
    """Tell whether anything has come that has not been read."""
    asking = select.poll()
    asking.register(descriptor, select.POLLIN)
    return bool(asking.poll(0))
