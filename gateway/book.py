"""The Prometheus book of the control process: counts records under their labels and renders every figure.

Belongs here: which record counts where. Never here: serving HTTP, reading journals, or a label that a caller could
make up: models and versions come from the catalog, everything else collapses to `_unknown` and `_none`.

What leaves a record is counted from it; what leaves none is read from the workers' boards when it is asked for; the lag
is the recorder's own. All samples of one answer belong together: requests and latencies never differ by one.
"""

import platform
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, Protocol

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from gateway import __version__
from gateway.gauges import BoardFolder, board_families, family, lag_families, sealing_families, standing_families
from gateway.metrics import METRICS, Lag, Sealing
from gateway.record import Frame, Record

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
UNKNOWN_MODEL: Final = "_unknown"
NO_VERSION: Final = "_none"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histograms, in seconds."""
_BOUNDS_US: Final = tuple(round(bound * 1e6) for bound in BUCKETS)
_LE: Final = (*map(str, BUCKETS), "+Inf")
# Refusals for a version that the caller named: whatever stands in the record then, it is no version of the catalog.
_ASKED_IN_VAIN: Final = frozenset({"unknown_version", "version_not_allowed"})


class HasLag(Protocol):
    """What the book asks of the recorder."""

    def lag(self) -> Lag:
        """Return how far the audit store is behind the journals."""


class Book:
    """Counts frames, and renders all figures. `observe` belongs to one thread, `render` may be called from any.

    `run_folder` is where the workers' boards are, `worker-<n>.board`; their label is the name without the suffix.
    """

    def __init__(self, run_folder: Path) -> None:
        self._lock = threading.Lock()
        self._recorder: HasLag | None = None
        self._sealing: Callable[[], Sealing] | None = None
        self._run_folder = run_folder
        self._boards = BoardFolder(run_folder)
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = _Counted("pointsman_requests_total")
        self._latency = _Timed("pointsman_request_latency_seconds")
        self._backend_latency = _Timed("pointsman_backend_latency_seconds")
        self._errors = _Counted("pointsman_errors_total")
        self._fallbacks = _Counted("pointsman_fallbacks_total")
        self._retries = _Counted("pointsman_retries_total")
        self._diversions = _Counted("pointsman_diversions_total")
        self._stale = _Counted("pointsman_stale_requests_total")
        self._shadows = _Counted("pointsman_shadow_requests_total")
        self._shadow_latency = _Timed("pointsman_shadow_latency_seconds")
        self._actions = _Counted("pointsman_control_records_total")
        self._registry.register(self)

    def watch(self, recorder: HasLag, sealing: Callable[[], Sealing] | None = None) -> None:
        """Take the lag from `recorder`, and how far sealing is, from now on; until then there is none in the answer."""
        self._recorder = recorder
        self._sealing = sealing

    def observe(self, frames: Sequence[Frame]) -> None:
        """Count records: all of them or, when anything is raised, none."""
        alike: dict[tuple[object, ...], tuple[Record, list[int]]] = {}
        for frame in frames:
            record = frame.record
            kind = _kind(record)
            if kind in alike:
                alike[kind][1].append(record.total_us)
            else:
                alike[kind] = record, [record.total_us]
        tries, retries = _tries(frames)
        with self._lock:
            for record, times_us in alike.values():
                self._add(record, times_us)
            for labels, times_us in tries.items():
                self._backend_latency.add(labels, times_us)
            for labels, count in retries.items():
                self._retries.add(labels, count)

    def _add(self, record: Record, times_us: Sequence[int]) -> None:
        """Count records that are counted alike, `record` and others, which took so long."""
        count = len(times_us)
        if record.role == "control":
            self._actions.add((record.action or "",), count)
            return
        model, version = _labels(record)
        if record.role == "shadow":
            self._shadows.add((model, version, record.outcome), count)
            self._shadow_latency.add((model, version), times_us)
            return
        self._requests.add((model, version, record.outcome), count)
        self._latency.add((model, version), times_us)
        if record.error_code is not None:
            self._errors.add((model, version, record.error_code), count)
        first = record.tried_first
        if record.served is not None and first is not None and record.served != first:
            self._fallbacks.add((model, first, record.served), count)
        if record.intended is not None and first is not None and first != record.intended:
            self._diversions.add((model, record.intended, first), count)
        if record.stale:
            self._stale.add((model,), count)

    def render(self) -> bytes:
        """Return every figure in the text format of `CONTENT_TYPE`."""
        with self._lock:
            return generate_latest(self._registry)

    def close(self) -> None:
        """Let go of the boards."""
        with self._lock:
            self._boards.close()

    # ── what is published ────────────────────────────────────────────────────────────────────────────────────────

    def describe(self) -> Iterator[Family]:
        """Return nothing: asked by the registry, which would otherwise collect in order to learn the names."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        """Yield every figure; called by the registry."""
        yield self._requests.family()
        yield self._latency.family()
        yield self._backend_latency.family()
        yield self._errors.family()
        yield self._fallbacks.family()
        yield self._retries.family()
        yield self._diversions.family()
        yield self._stale.family()
        yield self._shadows.family()
        yield self._shadow_latency.family()
        yield self._actions.family()
        boards = self._boards.open()
        yield from board_families(boards)
        yield from standing_families(self._run_folder, boards)
        if self._recorder is not None:
            yield from lag_families(self._recorder.lag())
        if self._sealing is not None:
            yield from sealing_families(self._sealing())
        yield family("pointsman_build_info", [((__version__, platform.python_version()), 1)])


class _Counted:
    """A counter of `METRICS`: how many by label values, in the order of its labels."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts: dict[tuple[str, ...], int] = defaultdict(int)

    def add(self, labels: tuple[str, ...], count: int) -> None:
        """Count so many more."""
        self._counts[labels] += count

    def family(self) -> Family:
        """Return what is published of it."""
        return family(self._name, self._counts.items())


class _Timed:
    """A histogram of `METRICS`, in seconds: how many times lie in each bucket by label values, and their sum.

    The sum is kept in whole µs, so it does not depend on the order in which times are added.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._buckets: dict[tuple[str, ...], list[int]] = {}
        self._sums_us: dict[tuple[str, ...], int] = {}

    def add(self, labels: tuple[str, ...], times_us: Sequence[int]) -> None:
        """Count times."""
        buckets = self._buckets.get(labels)
        if buckets is None:
            buckets = self._buckets[labels] = [0] * (len(BUCKETS) + 1)
            self._sums_us[labels] = 0
        for time_us in times_us:
            buckets[bisect_left(_BOUNDS_US, time_us)] += 1
        self._sums_us[labels] += sum(times_us)

    def family(self) -> Family:
        """Return what is published of it."""
        metric = METRICS[self._name]
        made = HistogramMetricFamily(self._name, metric.help, labels=metric.labels)
        for labels, buckets in self._buckets.items():
            upto = zip(_LE, accumulate(buckets), strict=True)
            made.add_metric(labels, list(upto), self._sums_us[labels] / 1e6)
        return made


def _kind(record: Record) -> tuple[object, ...]:
    """Return all that tells where a record counts, but for its tries and its time."""
    return (
        record.model,
        record.served,
        record.intended,
        record.tried_first,
        record.outcome,
        record.role,
        record.known_model,
        record.error_code,
        record.stale,
        record.action,
    )


def _tries(frames: Sequence[Frame]) -> tuple[Mapping[tuple[str, ...], list[int]], Mapping[tuple[str, ...], int]]:
    """Return how long the tries of primaries took (µs) by model, version and backend, and how many were made again."""
    times_us: dict[tuple[str, ...], list[int]] = defaultdict(list)
    again: dict[tuple[str, ...], int] = defaultdict(int)
    for frame in frames:
        record = frame.record
        if record.role != "primary":
            continue
        model = record.model if record.known_model else UNKNOWN_MODEL
        for attempt in record.attempts:
            if attempt.backend:  # else it was never made
                times_us[model, attempt.version, attempt.backend].append(attempt.infer_us)
        for before, attempt in pairwise(record.attempts):
            if before.version == attempt.version:
                again[model, attempt.version] += 1
    return times_us, again


def _labels(record: Record) -> tuple[str, str]:
    """Return model and version as labels: the version that served, else the one that should have."""
    if not record.known_model:
        return UNKNOWN_MODEL, NO_VERSION
    if record.served is not None:
        return record.model, record.served
    first = record.tried_first
    if first is None or record.error_code in _ASKED_IN_VAIN:
        return record.model, NO_VERSION
    return record.model, first
