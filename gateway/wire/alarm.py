"""One timer for any number of deadlines, since a timer for each request costs more than to send it.

Belongs here: when to look next. Never here: what is overdue.
"""

import asyncio
from collections.abc import Callable
from time import monotonic_ns
from typing import Final

NEVER: Final = 2**63 - 1
_LEAST_NS: Final = 5_000_000
"""Between two looks at what is overdue, each of which looks at everything: when a crowd is late, one by one, that costs
little and nobody waits much longer."""
_ROUNDED_NS: Final = 1_000_000
"""What is added to each wait, since loops round to ms and a look that comes too early finds nothing."""


class Alarm:
    """Calls `look` at the earliest of the times it was told (monotonic, in ns); that returns the next one, or NEVER.

    Deadlines that are met are not taken back: `look` then finds nothing to do and says when to come again. So what most
    requests pay is one comparison with `due_ns`.
    """

    def __init__(self, look: Callable[[int], int]) -> None:
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self.due_ns = NEVER

    def by(self, due_ns: int) -> None:
        """Look at `due_ns` at the latest."""
        if due_ns >= self.due_ns:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.due_ns = due_ns
        delay = max(0, due_ns - monotonic_ns() + _ROUNDED_NS) / 1e9
        self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        self.due_ns = NEVER

    def _ring(self) -> None:
        self.due_ns = NEVER
        now = monotonic_ns()
        due = self._look(now)
        if due < NEVER:
            self.by(max(due, now + _LEAST_NS))
