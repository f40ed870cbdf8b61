"""One request and its reply, on the way from a caller to whatever connection carries it and back.

Belongs here: what is sent, until when, and how the reply is handed over, whole or as it comes. Never here: which
connection it is.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from time import monotonic_ns
from typing import Final, Protocol, Self

from gateway.arrival import Arrival
from gateway.errors import ServingError
from gateway.messages import Headers
from gateway.ports import UpstreamReply
from gateway.wire.reply import ReplyReader
from gateway.wire.target import Target

_MANY_BYTES: Final = 262_144
"""How much of a streamed reply may wait for its reader before the backend is made to wait; at a quarter it goes on."""


class Carrier(Protocol):
    """A connection, as an exchange that it carries knows it."""

    def send_part(self, data: bytes) -> None:
        """Send a piece of the request's body."""

    async def writable(self) -> None:
        """Return when the backend has taken enough of what was sent."""

    def pause(self) -> None:
        """Read no more of the reply for now."""

    def resume(self) -> None:
        """Read on."""

    def abandon(self, exchange: "Exchange") -> None:
        """Give the exchange up, and with it the connection."""


class Exchange(ABC):
    """What a connection needs to know. `limit` is the largest body wanted in reply; None is any.

    Times are on the monotonic clock, in ns. `carrier` is the connection while there is one.
    """

    __slots__ = ("backend", "body", "carrier", "deadline_ns", "head", "head_only", "limit", "started_ns")
    streams = False
    """Whether pieces of the reply are to be delivered before it is complete."""
    repeatable: bool
    """Whether the request can be sent once more: not if its body comes from an iterator."""

    def __init__(self, target: Target, head: bytes, body: bytes, limit: int | None, deadline_ns: int) -> None:
        self.backend = target.origin.name
        self.head = head
        self.body = body
        self.head_only = target.head_only
        self.limit = limit
        self.started_ns = monotonic_ns()
        self.deadline_ns = deadline_ns
        self.carrier: Carrier | None = None

    @property
    def allowed_ms(self) -> float:
        """The time that the request had from the beginning."""
        return (self.deadline_ns - self.started_ns) / 1e6

    @property
    @abstractmethod
    def wanted(self) -> bool:
        """Whether somebody still waits for the reply."""

    @property
    def sent(self) -> bool:
        """Whether the whole request has been given to the connection."""
        return True

    def placed(self, carrier: Carrier) -> None:
        """Take note that the head has been sent over a connection."""
        self.carrier = carrier

    @abstractmethod
    def deliver(self, reply: ReplyReader) -> None:
        """Take what there is of the reply so far."""

    @abstractmethod
    def finish(self, reply: ReplyReader) -> None:
        """Take the complete reply; `tell` follows when the connection has been given back."""

    @abstractmethod
    def tell(self) -> None:
        """Let the caller go on."""

    @abstractmethod
    def fail(self, error: ServingError) -> None:
        """Take that there will be no reply, or no more of it."""


class WholeExchange(Exchange):
    """An exchange whose caller waits for the whole reply. `outcome` is that or the error that stands for it."""

    __slots__ = ("_reply", "outcome")
    repeatable = True

    def __init__(self, target: Target, head: bytes, body: bytes, limit: int | None, deadline_ns: int) -> None:
        super().__init__(target, head, body, limit, deadline_ns)
        self.outcome: Arrival[UpstreamReply] = Arrival()

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for the reply."""
        return not self.outcome.come

    def deliver(self, reply: ReplyReader) -> None:
        """Wait for the rest."""

    def finish(self, reply: ReplyReader) -> None:
        """Keep the reply for the caller."""
        parts = reply.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._reply = UpstreamReply(reply.status, reply.headers, body)

    def tell(self) -> None:
        """Hand the reply to the caller."""
        self.outcome.arrive(self._reply)

    def fail(self, error: ServingError) -> None:
        """Hand the error to the caller."""
        self.outcome.fail(error)


class StreamedExchange(Exchange):
    """An exchange whose caller reads the reply while it comes, and may send the request's body piece by piece.

    It is the `ports.UpstreamStream` that the caller gets.
    """

    __slots__ = (
        "_arrival",
        "_buffered",
        "_ended",
        "_error",
        "_parts",
        "_paused",
        "_place",
        "_unsent",
        "headers",
        "repeatable",
        "status",
    )
    streams = True

    def __init__(self, target: Target, head: bytes, body: bytes | None, deadline_ns: int) -> None:
        """Send `body`, or if it is None, what `upload` will be given."""
        super().__init__(target, head, body or b"", None, deadline_ns)
        self.status = 0
        self.headers: Headers = ()
        self._parts: deque[bytes] = deque()
        self._buffered = 0
        self._paused = False
        self._ended = False
        self._error: Exception | None = None
        self.repeatable = body is not None
        self._unsent = body is None
        self._arrival: asyncio.Future[None] | None = None
        self._place: asyncio.Future[Carrier] = asyncio.get_running_loop().create_future()

    # ── what the caller does ─────────────────────────────────────────────────────────────────────────────────────

    async def answered(self) -> None:
        """Return when the head of the reply has come. Raises whatever the exchange failed with."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._news()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._parts:
            if self._ended:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            await self._news()
        part = self._parts.popleft()
        self._buffered -= len(part)
        if self._paused and self._buffered <= _MANY_BYTES // 4:
            self._paused = False
            if self.carrier is not None:
                self.carrier.resume()
        return part

    async def upload(self, body: AsyncIterator[bytes]) -> None:
        """Send the request's body in chunks, no faster than the backend takes them, until the reply ends before it.

        What `body` raises is what the exchange fails with.
        """
        try:
            carrier = await self._place
            async for part in body:
                if self.carrier is not carrier:
                    return  # a reply that did not wait for the body, or the connection is lost
                if part:  # an empty chunk would end the body
                    carrier.send_part(b"%x\r\n%b\r\n" % (len(part), part))
                    await carrier.writable()
            if self.carrier is carrier:
                self._unsent = False
                carrier.send_part(b"0\r\n\r\n")
        except Exception as error:  # noqa: BLE001 - the caller's own code failed, and the caller is told
            self._break_off(error)
        finally:
            if isinstance(body, AsyncGenerator):
                await body.aclose()

    # ── what the connection does ─────────────────────────────────────────────────────────────────────────────────

    @property
    def wanted(self) -> bool:
        """Whether the reply has not ended yet."""
        return not self._ended and self._error is None

    @property
    def sent(self) -> bool:
        """Whether the whole request has been given to the connection."""
        return not self._unsent

    def placed(self, carrier: Carrier) -> None:
        """Let the body follow the head."""
        self.carrier = carrier
        if not self._place.done():
            self._place.set_result(carrier)

    def deliver(self, reply: ReplyReader) -> None:
        """Hand over what has come; make the backend wait when its reader is slow."""
        self.status, self.headers = reply.status, reply.headers
        for part in reply.take_parts():
            self._parts.append(part)
            self._buffered += len(part)
        if self._buffered >= _MANY_BYTES and self.carrier is not None and not self._paused:
            self._paused = True
            self.carrier.pause()
        self._wake()

    def finish(self, reply: ReplyReader) -> None:
        """Hand over the rest."""
        self._ended = True
        self.deliver(reply)

    def tell(self) -> None:
        """Do nothing: the caller goes on by itself, in the next turn of the event loop."""

    def fail(self, error: ServingError) -> None:
        """Hand over the error when what came before it has been read."""
        self._break_off(error)

    def _break_off(self, error: Exception) -> None:
        if self.wanted:
            self._error = error
            self._wake()

    async def _news(self) -> None:
        self._arrival = asyncio.get_running_loop().create_future()
        await self._arrival

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
