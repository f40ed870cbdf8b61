"""Deadlines of connections, and the date: looked at a few times a second, so that a request costs no timer.

Belongs here: how long a caller is waited for, and who is late. Never here: what is done about it.
"""

import asyncio
from email.utils import formatdate
from math import inf
from typing import Final, Protocol

from gateway.config import LimitSettings
from gateway.wire.receiving import Receiver

NEVER: Final = inf
_TICK_SECONDS: Final = 0.1


class Timed(Protocol):
    """What can be late. `due` is on the loop's clock, in seconds; `NEVER` while nothing is waited for."""

    due: float

    def overdue(self) -> None:
        """Called at most a tick after `due`, and again every tick for as long as `due` is past."""


class Deadlines:
    """Watches connections. `date` is the Date line of a reply, hardly more than a second old."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look; `close` ends it."""
        self._loop = loop
        self._watched: set[Timed] = set()
        self._second = -1
        self.date = ""
        self._tick()

    def watch(self, timed: Timed) -> None:
        """Call `overdue` from now on when it is due."""
        self._watched.add(timed)

    def forget(self, timed: Timed) -> None:
        """Never call it again."""
        self._watched.discard(timed)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        if int(now) != self._second:
            self._second = int(now)
            self.date = f"date: {formatdate(usegmt=True)}\r\n"
        self._timer = self._loop.call_later(_TICK_SECONDS, self._tick)
        for late in [timed for timed in self._watched if timed.due <= now]:
            late.overdue()


class Patience:
    """How long the next bytes of one connection are waited for."""

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._awaited: object = None
        self._since = 0.0

    def until(self, receiver: Receiver, now: float) -> float:
        """Return when the caller is late; to be asked again whenever something has come, and after each reply.

        A head has a time of its own, however it comes. A body has one, too, and beyond it what its bytes so far have
        earned. Between messages, a connection is idle from now on.
        """
        limits, head = self._limits, receiver.head
        if not receiver.within:
            self._awaited = None
            return now + limits.idle_seconds
        awaited = receiver if head is None else head
        if self._awaited is not awaited:
            self._awaited, self._since = awaited, now
        if head is None:
            return self._since + limits.head_seconds
        return self._since + limits.body_seconds + receiver.arrived / limits.min_body_rate
