"""One request and its reply, on the way from a caller to whatever connection carries it and back.

Belongs here: what is sent, until when, and how the reply is handed over. Never here: which connection it is.
"""

from abc import ABC, abstractmethod
from time import monotonic_ns
from typing import Protocol

from gateway.arrival import Arrival
from gateway.errors import ServingError
from gateway.ports import Flows, UpstreamReply
from gateway.wire.flowing import Flowing
from gateway.wire.reply import ReplyReader
from gateway.wire.target import Target


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
    """An exchange whose caller waits for the whole reply, or, of one that flows, for its head.

    `outcome` is that or the error that stands for it. A reply that is complete with its head is always whole.
    """

    __slots__ = ("_flowing", "_flows", "_reply", "outcome")
    repeatable = True

    def __init__(  # noqa: PLR0917 - keywords would cost every request
        self,
        target: Target,
        head: bytes,
        body: bytes,
        limit: int | None,
        deadline_ns: int,
        flows: Flows | None = None,
    ) -> None:
        super().__init__(target, head, body, limit, deadline_ns)
        self.outcome: Arrival[UpstreamReply] = Arrival()
        self._flows = flows
        self._flowing: Flowing | None = None

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for the reply."""
        return not self.outcome.come

    def deliver(self, reply: ReplyReader) -> None:
        """Wait for the rest, or hand on what has come of a reply that flows."""
        if self._flowing is None:
            if self._flows is None or not self._flows(reply.status, reply.headers):
                return
            self._flowing = Flowing(self)
            reply.lift_limit()
            self.outcome.arrive(UpstreamReply(reply.status, reply.headers, b"", self._flowing))
        self._flowing.hand_on(reply.take_parts())

    def finish(self, reply: ReplyReader) -> None:
        """Keep the reply for the caller, or what is left of it."""
        parts = reply.parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._reply = UpstreamReply(reply.status, reply.headers, body)

    def tell(self) -> None:
        """Hand it to the caller."""
        if self._flowing is None:
            self.outcome.arrive(self._reply)
        else:
            self._flowing.hand_on([self._reply.body] if self._reply.body else [])
            self._flowing.end()

    def fail(self, error: ServingError) -> None:
        """Hand the error to the caller, who may have the beginning of the reply."""
        if self._flowing is None:
            self.outcome.fail(error)
        else:
            self._flowing.fail(error)

    def pause(self) -> None:
        """Read no more of a flowing reply for now (it is a `flowing.Source`)."""
        if self.carrier is not None:
            self.carrier.pause()

    def resume(self) -> None:
        """Read on."""
        if self.carrier is not None:
            self.carrier.resume()

    def give_up(self) -> None:
        """Want no more of it."""
        if self.carrier is not None:
            self.carrier.abandon(self)
