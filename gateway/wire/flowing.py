"""The body of a reply that is handed on as it comes, from the connection that reads it to whoever asked.

Belongs here: handing on, holding back, ending. Never here: which replies flow (whoever asks says that), how a body is
found in bytes, or where it flows to.
"""

from collections.abc import Callable
from typing import Protocol

from gateway.arrival import Arrival
from gateway.errors import ServingError


class Source(Protocol):
    """Where a body comes from."""

    def pause(self) -> None:
        """Read no more of it for now."""

    def resume(self) -> None:
        """Read on."""

    def give_up(self) -> None:
        """Want no more of it."""


class Flowing:
    """Such a body; a `messages.Flow`. When it is over it lets go of both sides, which know it, too."""

    __slots__ = ("_ended", "_held", "_source", "_take", "paused")

    def __init__(self, source: Source) -> None:
        self._source: Source | None = source
        self._ended: Arrival[None] = Arrival()
        self._take: Callable[[bytes], None] | None = None
        self._held: list[bytes] = []
        self.paused = False

    # ── what the exchange does ───────────────────────────────────────────────────────────────────────────────────

    def hand_on(self, parts: list[bytes]) -> None:
        """Hand on what has come, in one piece."""
        if self._take is None:
            self._held += parts  # for whoever waits as a task, whose turn is yet to come
        elif parts:
            self._take(parts[0] if len(parts) == 1 else b"".join(parts))

    def end(self) -> None:
        """Tell that all of it has come."""
        self._let_go()
        self._ended.arrive(None)

    def fail(self, error: ServingError) -> None:
        """Tell what broke it off."""
        self._let_go()
        self._ended.fail(error)

    # ── what its taker does: see `messages.Flow` ─────────────────────────────────────────────────────────────────

    def start(self, take: Callable[[bytes], None]) -> Arrival[None]:
        """Have every piece given to `take`, and return what tells of the end."""
        self._take = take
        held, self._held = self._held, []
        self.hand_on(held)
        if self._source is None:
            self._take = None
        return self._ended

    def pause(self) -> None:
        """Let the backend wait."""
        self.paused = True
        if self._source is not None:
            self._source.pause()

    def resume(self) -> None:
        """Let it go on."""
        self.paused = False
        if self._source is not None:
            self._source.resume()

    def close(self) -> None:
        """Want no more of it."""
        source = self._source
        self._let_go()
        if source is not None:
            source.give_up()

    def _let_go(self) -> None:
        self._source = self._take = None
