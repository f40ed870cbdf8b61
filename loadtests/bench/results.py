"""What a comparison found, as it is kept in a file, and the medians and paired ratios that are read from it.

Belongs here: values and arithmetic on them. Never here: measuring, or how a report looks.
"""

import statistics
from collections.abc import Callable

from msgspec import Struct

from loadtests.bench.measuring import Figures


class PeerRuns(Struct):
    """All runs of one program; `runs[k]` belongs to the k-th round, None where there was none. `trouble` says why."""

    label: str
    name: str
    task: str
    said: str
    version: str = ""
    runs: list[Figures | None] = []
    trouble: str = ""

    def median(self, field: Callable[[Figures], float | None]) -> float | None:
        """Return the median of a figure over the rounds, None if there is none."""
        values = [value for run in self.runs if run is not None and (value := field(run)) is not None]
        return statistics.median(values) if values else None

    def range(self, field: Callable[[Figures], float | None]) -> tuple[float, float] | None:
        """Return the smallest and largest of a figure over the rounds, None if there is none."""
        values = [value for run in self.runs if run is not None and (value := field(run)) is not None]
        return (min(values), max(values)) if values else None


class Comparison(Struct):
    """One run of the comparison."""

    machine: str
    seconds: float
    connections: int
    peers: list[PeerRuns]

    def peer(self, label: str) -> PeerRuns | None:
        """Return the runs of a program; None if it was not among those compared."""
        return next((peer for peer in self.peers if peer.label == label), None)


def paired(
    one: PeerRuns, other: PeerRuns, of_one: Callable[[Figures], float | None], of_other: Callable[[Figures], float]
) -> list[float]:
    """Return `one ÷ other` for each round that has both, so that what disturbed a round disturbed both sides of it."""
    pairs = zip(one.runs, other.runs, strict=False)
    return [
        value / of_other(right)
        for left, right in pairs
        if left is not None and right is not None and (value := of_one(left)) is not None
    ]


def whole_us(figures: Figures) -> float:
    """CPU per request of the whole program, in µs."""
    return figures.cpu_us


def workers_us(figures: Figures) -> float | None:
    """CPU per request of the data workers, in µs."""
    return figures.workers_us
