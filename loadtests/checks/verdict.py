"""What came of one promise, and the place where all of them are measured.

Belongs here: the shape of a verdict and the arithmetic behind one. Never here: measuring.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

DISTURBED = 0.05
"""Share of a core that other programs may take before a figure is marked."""


class Stage(Struct, frozen=True):
    """Where a check runs: files, a core for what is measured, one for the load; pairs of runs, seconds of load each."""

    folder: Path
    cores: tuple[int, int]
    backend_url: str
    runs: int
    seconds: float
    requests: int


class Verdict(Struct, frozen=True):
    """One promise: what it says, what was found, and whether it is kept; None when it could not be judged."""

    promise: str
    found: str
    passed: bool | None

    def __str__(self) -> str:
        word = {True: "pass", False: "FAIL", None: "not judged"}[self.passed]
        return f"{word:<10}  {self.promise}: {self.found}"


def spaced(number: int) -> str:
    """Return a number with spaces between thousands."""
    return f"{number:,}".replace(",", " ")


def at_most(promise: str, ratios: Sequence[float], bound: float, more: str = "") -> Verdict:
    """Judge the median of paired ratios against the largest that the promise allows."""
    return _judged(f"{promise} ≤ {bound:g}×", ratios, bound, more, largest=True)


def at_least(promise: str, ratios: Sequence[float], bound: float, more: str = "") -> Verdict:
    """Judge the median of paired ratios against the smallest that the promise allows."""
    return _judged(f"{promise} ≥ {bound:g}×", ratios, bound, more, largest=False)


def _judged(promise: str, ratios: Sequence[float], bound: float, more: str, *, largest: bool) -> Verdict:
    if not ratios:
        return Verdict(promise, f"no pair of runs{more}", None)
    middle = statistics.median(ratios)
    passed = middle <= bound if largest else middle >= bound
    words = f"median {middle:.3g}× of {len(ratios)} pairs ({min(ratios):.3g} to {max(ratios):.3g}){more}"
    return Verdict(promise, words, passed)
