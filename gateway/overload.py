"""Whether this worker has more to do than it can, and what it lets go of then: shadows first, then callers' excess.

The sign is the time that one turn of the event loop takes, looked at every 20 ms: what arrives now waits about that
long before anything is done about it. A turn may be long for once; a worker is *pressed* when none has been below half
of `overload.lag_ms` for 100 ms, and *sheds* when none has been below all of it, or when it has more than
`overload.max_in_flight` requests in flight. While it is pressed no shadow starts. While it sheds, requests are admitted
within a budget that shrinks with every 100 ms that are too slow, by as much as they are, and grows by 3 % with every
other; and the budget is shared out fairly (`fairness`). A request that is not admitted costs neither a look at its
body, nor a decision, nor a record: it is not served, and is counted on the worker's board.

Belongs here: that judgement, and the timer that makes it. Never here: replies, records, or limits of single versions
(`concurrency`), which are only looked at by the same timer.
"""

import asyncio
from collections.abc import Mapping
from time import monotonic_ns
from typing import Final

from gateway.concurrency import Limits
from gateway.config import OverloadSettings
from gateway.fairness import Shares
from gateway.logs import logger
from gateway.metrics import Board, Slot

_TICK_S: Final = 0.02
_TURN_NS: Final = 100_000_000
_TURN_S: Final = _TURN_NS / 1e9
"""How long a sign has to last, and a budget."""
_SHRINK, _LEAST_SHRINK, _GROW = 0.9, 0.5, 1.03
_LEAST_PART: Final = 0.7
"""The part of what was served when shedding began, below which a slow loop never lowers the budget: were refusals alone
too much for it, serving nobody would help nobody."""
_AGAIN: Final = 20
"""Turns without a refusal after which shedding ends."""
_TOLD_NS: Final = 1_000_000_000


class Overload:
    """The judgement of one worker. Without `start` it never comes to one, and nothing is let go of."""

    def __init__(self, board: Board, settings: OverloadSettings, limits: Limits) -> None:
        self._board = board
        self._limits = limits
        self._lag_ns = int(settings.lag_ms * 1e6)
        self._most = settings.max_in_flight
        self._shares = Shares()
        self._timer: asyncio.TimerHandle | None = None
        self._pressed_since = self._over_since = 0
        self._looked_ns = self._turned_ns = self._told_ns = 0
        self._rate = self._least = 0.0
        self._last_lag_ns = 0
        self._quiet = 0
        self._shed = 0
        self.pressed = False
        self.shedding = False

    def start(self) -> None:
        """Begin to look, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._looked_ns = self._turned_ns = monotonic_ns()
        self._timer = self._loop.call_later(_TICK_S, self._tick)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def admits(self, key: str | None, address: str) -> bool:
        """Count a request while pressed, and tell whether it may be served. Not to be asked otherwise.

        A caller is its routing key, or where there is none, its address.
        """
        caller = hash(("key", key)) if key is not None else hash(address)  # a key can have 32 KiB, and be made up
        if self._shares.admit(caller) and self._board[Slot.IN_FLIGHT] < self._most * 2:
            return True
        self._board.add(Slot.SHED)
        self._shed += 1
        return False

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _tick(self) -> None:
        # What a timer calls soon may still run in the same turn, before sockets are looked at (libuv's order); what
        # that calls soon comes after them.
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._loop.call_soon(self._turned, monotonic_ns())

    def _turned(self, began_ns: int) -> None:
        """Judge by how long a turn of the loop took, whatever there was to do in it."""
        if self._timer is None:
            return
        now_ns = monotonic_ns()
        self.note(now_ns, now_ns - began_ns)
        self._timer = self._loop.call_later(_TICK_S, self._tick)

    def note(self, now_ns: int, lag_ns: int) -> None:
        """Take one look: at `now_ns` (monotonic) a turn of the loop took `lag_ns`."""
        self._board[Slot.LOOP_LAG_US] = lag_ns // 1000
        self._last_lag_ns = lag_ns
        crowded = self._board[Slot.IN_FLIGHT] > self._most
        self._pressed_since = (self._pressed_since or now_ns) if lag_ns > self._lag_ns // 2 or crowded else 0
        self._over_since = (self._over_since or now_ns) if lag_ns > self._lag_ns or crowded else 0
        self._board[Slot.LIMITS_IN_FORCE] = self._limits.look((now_ns - self._looked_ns) // 1000)
        self._looked_ns = now_ns
        if now_ns - self._turned_ns >= _TURN_NS:
            lasted_s = (now_ns - self._turned_ns) / 1e9
            self._turned_ns = now_ns
            self._turn(now_ns, lasted_s)

    def _turn(self, now_ns: int, lasted_s: float) -> None:
        """Judge the `lasted_s` since the last judgement, and share out what may be admitted in as long a time again."""
        shares = self._shares
        over = bool(self._over_since) and now_ns - self._over_since >= _TURN_NS
        if self.shedding:
            self._adjust(over, shares.admitted / lasted_s)
        elif over and self.pressed:
            self.shedding = True
            self._quiet = 0
            self._rate = shares.admitted / lasted_s * self._shrink()
            self._least = self._rate * _LEAST_PART
        pressed = self.shedding or (bool(self._pressed_since) and now_ns - self._pressed_since >= _TURN_NS)
        self._tell(now_ns, pressed)
        self.pressed = pressed
        shares.turn(max(1.0, self._rate * lasted_s) if self.shedding else None)

    def _adjust(self, over: bool, admitted: float) -> None:
        """Have the budget follow, when `admitted` requests a second were too many, or not."""
        refused = self._shares.refused
        if over:
            least = self._least if self._board[Slot.IN_FLIGHT] <= self._most else 0.0
            self._rate = max(least, min(self._rate, admitted) * self._shrink())
        elif refused:
            self._rate = self._rate * _GROW + 1 / _TURN_S
        self._quiet = 0 if over or refused else self._quiet + 1
        if self._quiet >= _AGAIN:
            self.shedding = False

    def _shrink(self) -> float:
        """Return by how much the budget has to become smaller: as much as a turn is too long, within bounds."""
        return min(_SHRINK, max(_LEAST_SHRINK, self._lag_ns / max(1, self._last_lag_ns)))

    def _tell(self, now_ns: int, pressed: bool) -> None:
        """Log the beginning and the end, and once a second how much was shed."""
        figures: Mapping[str, object] = {
            "lag_ms": self._board[Slot.LOOP_LAG_US] / 1000,
            "in_flight": self._board[Slot.IN_FLIGHT],
        }
        if pressed != self.pressed:
            logger().warning("overload_begins" if pressed else "overload_ends", **figures)
        if self._shed and now_ns - self._told_ns >= _TOLD_NS:
            logger().warning("requests_shed", count=self._shed, per_second=round(self._rate), **figures)
            self._shed, self._told_ns = 0, now_ns
