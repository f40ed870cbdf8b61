"""Why things could not be done, counted: a bounded number of reasons, and the rest together.

Belongs here: counting. Never here: the reasons.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

MOST_REASONS: Final = 20
"""Reasons that are told apart."""
OTHERS: Final = "other reasons"


class Reasons:
    """Counts by reason; what comes after `MOST_REASONS` different ones counts as `OTHERS`."""

    def __init__(self) -> None:
        self._counted: Counter[str] = Counter()

    def add(self, reason: str) -> None:
        """Count one more."""
        known = reason in self._counted or len(self._counted) < MOST_REASONS
        self._counted[reason if known else OTHERS] += 1

    @property
    def total(self) -> int:
        """How many were counted."""
        return self._counted.total()

    def counted(self) -> Mapping[str, int]:
        """Return the counts, the largest first."""
        return dict(self._counted.most_common())
