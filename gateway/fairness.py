"""Who is served when not all can be: each caller its equal share, and what one leaves over is for the others.

Max-min fairness by filling with water (Bertsekas and Gallager, Data Networks, second edition, section 6.5.2): there is
a level such that everybody gets what they ask for up to it and nobody gets more, and all of it together is the budget.
So a caller below the level notices nothing, however much another one sends.

Belongs here: shares of one budget. Never here: who is a caller, clocks, or why there is a budget.
"""

from collections.abc import Iterable
from typing import Final

MOST_CALLERS: Final = 10_000
"""Callers told apart in one turn; those that come after share one place, so that names made up cost no memory."""
_THE_REST: Final = 0


class Shares:
    """What callers ask for and get, turn by turn; a level follows from what was asked for in the turn before."""

    def __init__(self) -> None:
        self._asked: dict[int, int] = {}
        self._part = 0.0
        self.level: float | None = None
        self.admitted = 0
        self.refused = 0

    @property
    def asked(self) -> int:
        """How much was asked for in this turn."""
        return self.admitted + self.refused

    def admit(self, caller: int) -> bool:
        """Count a request of a caller (any number that stands for it), and tell whether it may be served."""
        asked = self._asked
        if caller not in asked and len(asked) >= MOST_CALLERS:
            caller = _THE_REST
        count = asked[caller] = asked.get(caller, 0) + 1
        if self.level is None or count <= self.level or self._has_part(count - self.level):
            self.admitted += 1
            return True
        self.refused += 1
        return False

    def _has_part(self, beyond: float) -> bool:
        """Tell whether the request that is partly beyond the level is one of those that get in."""
        if beyond >= 1:
            return False
        self._part += 1 - beyond
        if self._part < 1:
            return False
        self._part -= 1
        return True

    def turn(self, budget: float | None) -> None:
        """Begin the next turn, with a budget of so many requests for all callers together; None: no bound."""
        self.level = water_level(self._asked.values(), budget) if budget is not None else None
        self._asked.clear()
        self.admitted = self.refused = 0


def water_level(asked: Iterable[int], budget: float) -> float:
    """Return the level up to which `asked` can be met within `budget`; beyond the largest of them if all can be.

    Newcomers get as much as the others.
    """
    left = budget
    wanted = sorted(asked)
    for index, one in enumerate(wanted):
        share = left / (len(wanted) - index)
        if one >= share:
            return share
        left -= one
    return max(left, wanted[-1] if wanted else 0.0, 1.0)
