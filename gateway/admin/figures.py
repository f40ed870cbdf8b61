"""Figures of each version for people who look at models: read from what `/metrics` says, so the two cannot differ.

Belongs here: a few numbers out of the Prometheus text. Never here: counting.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import Any

Figures = Mapping[tuple[str, str], Mapping[str, Any]]
"""By model and version: `requests` and `shadow_requests` by outcome, and `latency_ms` (mean, p50, p99) when any."""

# Models and versions come from the catalog, whose names need no escape; so a pattern reads what the book wrote.
_SAMPLE = re.compile(
    r"^pointsman_(?P<name>requests_total|shadow_requests_total|request_latency_seconds_(?:bucket|sum|count))"
    r"\{(?P<labels>[^}]*)\} (?P<value>\S+)$",
    re.MULTILINE,
)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_COUNTS = {"requests_total": "requests", "shadow_requests_total": "shadow_requests"}


def read_figures(text: str) -> Figures:
    """Return the figures of every version in a scrape."""
    figures: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    buckets: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    totals: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for sample in _SAMPLE.finditer(text):
        labels, value, name = dict(_LABEL.findall(sample["labels"])), float(sample["value"]), sample["name"]
        version = (labels["model"], labels["version"])
        if counted := _COUNTS.get(name):
            figures[version].setdefault(counted, {})[labels["outcome"]] = int(value)
        elif name.endswith("_bucket"):
            buckets[version].append((float(labels["le"]), value))
        else:
            totals[version][name.rpartition("_")[2]] = value
    for version, bounds in buckets.items():
        if latency := _latency(sorted(bounds), totals[version]):
            figures[version]["latency_ms"] = latency
    return figures


def _latency(buckets: Sequence[tuple[float, float]], totals: Mapping[str, float]) -> Mapping[str, float] | None:
    count = totals.get("count", 0.0)
    if not count:
        return None
    seconds = {"mean": totals["sum"] / count, "p50": quantile(0.5, buckets), "p99": quantile(0.99, buckets)}
    return {name: round(value * 1e3, 3) for name, value in seconds.items()}


def quantile(fraction: float, buckets: Iterable[tuple[float, float]]) -> float:
    """Return a quantile of a histogram of cumulative (upper bound, count) in order, the last bound infinite.

    Linear within the bucket, as Prometheus' `histogram_quantile`; in the last bucket its lower bound.
    """
    ordered = list(buckets)
    rank = fraction * ordered[-1][1]
    lower, below = 0.0, 0.0
    for upper, upto in ordered:
        if upto >= rank and upto > below:
            return lower if upper == inf else lower + (upper - lower) * (rank - below) / (upto - below)
        lower, below = upper, upto
    return lower
