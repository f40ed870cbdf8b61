"""A request and its reply that both travel piece by piece, as fast as the other side takes them.

Belongs here: pieces on their way in and out. Never here: which connection they go over, or sending the body
(`uploading`).
"""

import asyncio
from collections import deque
from typing import Final, Self

from gateway.errors import ServingError
from gateway.messages import Headers
from gateway.wire.exchange import Carrier, Exchange
from gateway.wire.reply import ReplyReader
from gateway.wire.target import Target

_MANY_BYTES: Final = 262_144
"""How much of a streamed reply may wait for its reader before the backend is made to wait; at a quarter it goes on."""


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

    # ── what sends its body ──────────────────────────────────────────────────────────────────────────────────────

    async def place(self) -> Carrier:
        """Return the connection over which the head has been sent."""
        return await self._place

    def complete(self) -> None:
        """Take note that the whole body has been given to the connection."""
        self._unsent = False

    def break_off(self, error: Exception) -> None:
        """Fail with what went wrong, unless it is over already."""
        if self.wanted:
            self._error = error
            self._wake()

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
        self.break_off(error)

    async def _news(self) -> None:
        self._arrival = asyncio.get_running_loop().create_future()
        await self._arrival

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
