"""An exchange whose caller waits for the whole reply, unless its head says that it is to be handed on as it comes.

Belongs here: that turn, and the body that flows after it. Never here: which replies flow (whoever asks says that), or
where they flow to.
"""

from collections.abc import Callable

from gateway.arrival import Arrival
from gateway.errors import ServingError
from gateway.messages import Headers
from gateway.ports import UpstreamReply
from gateway.wire.exchange import WholeExchange
from gateway.wire.reply import ReplyReader
from gateway.wire.target import Target

Flows = Callable[[int, Headers], bool]
"""Tells by status and headers whether a reply is to be handed on as it comes."""


class FlowingExchange(WholeExchange):
    """Such an exchange; once its reply flows, it is the `messages.Flow` of it.

    A reply that is complete when its head is read is handed over whole, whatever it is.
    """

    __slots__ = ("_ended", "_flows", "_held", "_rest", "_take", "paused")
    streams = True

    def __init__(
        self, target: Target, head: bytes, body: bytes, limit: int | None, deadline_ns: int, *, flows: Flows
    ) -> None:
        super().__init__(target, head, body, limit, deadline_ns)
        self._flows = flows
        self._ended: Arrival[None] | None = None  # until it flows

    # ── what the connection does ─────────────────────────────────────────────────────────────────────────────────

    def deliver(self, reply: ReplyReader) -> None:
        """Hand on what has come, if the reply flows."""
        if self._ended is None:
            if not self._flows(reply.status, reply.headers):
                return
            self._begin(reply)
            if self.carrier is None:
                return  # closed by who was given it
        self._hand_on(reply.take_parts())

    def finish(self, reply: ReplyReader) -> None:
        """Keep the reply, or what is left of it, for the caller."""
        if self._ended is None:
            super().finish(reply)
        else:
            self._rest = reply.take_parts()

    def tell(self) -> None:
        """Hand it to the caller."""
        if self._ended is None:
            super().tell()
        else:
            self._hand_on(self._rest)
            self._ended.arrive(None)

    def fail(self, error: ServingError) -> None:
        """Hand the error to the caller, who may have the beginning of the reply already."""
        if self._ended is None:
            super().fail(error)
        else:
            self._ended.fail(error)

    # ── what the caller does, once it flows ──────────────────────────────────────────────────────────────────────

    def start(self, take: Callable[[bytes], None]) -> Arrival[None]:
        """See `messages.Flow`."""
        assert self._ended is not None
        self._take: Callable[[bytes], None] | None = take
        held = self._held[:]
        self._held.clear()
        self._hand_on(held)
        return self._ended

    def pause(self) -> None:
        """See `messages.Flow`."""
        self.paused = True
        if self.carrier is not None:
            self.carrier.pause()

    def resume(self) -> None:
        """See `messages.Flow`."""
        self.paused = False
        if self.carrier is not None:
            self.carrier.resume()

    def close(self) -> None:
        """See `messages.Flow`."""
        if self.carrier is not None:
            self.carrier.abandon(self)

    # ── details ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, reply: ReplyReader) -> None:
        reply.lift_limit()
        self._ended = Arrival()
        self._take = None
        self._held: list[bytes] = []
        self.paused = False
        self.outcome.arrive(UpstreamReply(reply.status, reply.headers, b"", self))

    def _hand_on(self, parts: list[bytes]) -> None:
        if self._take is None:
            self._held += parts  # for a caller that is a task, whose turn is yet to come
        elif parts:
            self._take(parts[0] if len(parts) == 1 else b"".join(parts))
