"""How long a run of one version is expected to take, learned from the runs it has done.

Belongs here: the estimate. Never here: clocks, runs, or what follows from the estimate.
"""

import math
from typing import Final

_RISE: Final = 1 / 2
_FALL: Final = 1 / 16
_GROWTH: Final = 4.0


class Pace:
    """Expected run times in ns, one for each power of two of elements. Not thread-safe: one event loop owns it.

    A size class that has not been seen is taken to cost four times the next smaller one, as if the model were
    quadratic in its input: too high a guess costs one hand-over to a thread, too low a one blocks the event loop.
    Slower runs count at once and faster ones slowly, so one surprise keeps a version off the event loop for a while.
    """

    def __init__(self) -> None:
        self._expected: dict[int, float] = {}

    def expected_ns(self, elements: int) -> float:
        """Return the expected time of a run over `elements` input elements; infinite as long as nothing is known."""
        size = elements.bit_length()
        known = self._expected.get(size)
        if known is not None:
            return known
        if not self._expected:
            return math.inf
        nearest = max((seen for seen in self._expected if seen < size), default=None)
        if nearest is None:
            return self._expected[min(self._expected)]
        return self._expected[nearest] * _GROWTH ** (size - nearest)

    def observe(self, elements: int, ns: int) -> None:
        """Learn that a run over `elements` input elements took `ns`."""
        size = elements.bit_length()
        known = self._expected.get(size)
        if known is None:
            self._expected[size] = ns
        else:
            self._expected[size] = known + (ns - known) * (_RISE if ns > known else _FALL)
