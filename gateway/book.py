"""The Prometheus book of the control process: counts records under their labels and renders every figure.

Belongs here: which record counts where. Never here: serving HTTP, reading journals, or a label that a caller could
make up: models and versions come from the catalog, everything else collapses to `_unknown` and `_none`.

What leaves a record is counted from it; what leaves none is read from the workers' boards when it is asked for; the lag
is the recorder's own. All samples of one answer belong together: requests and latencies never differ by one.
"""

import platform
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.metrics_core import Metric as Family

from gateway import __version__
from gateway.gauges import BoardFolder, board_families, family, lag_families, sealing_families, standing_families
from gateway.metrics import METRICS, Lag, Sealing
from gateway.record import Frame, Record

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
UNKNOWN_MODEL = "_unknown"
NO_VERSION = "_none"
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the latency histograms, in seconds."""
# Refusals for a version that the caller named: whatever stands in the record then, it is no version of the catalog.
_ASKED_IN_VAIN = frozenset({"unknown_version", "version_not_allowed"})


class HasLag(Protocol):
    """What the book asks of the recorder."""

    def lag(self) -> Lag:
        """Return how far the audit store is behind the journals."""


class Book:
    """Counts frames, and renders all figures. `observe` belongs to one thread, `render` may be called from any.

    `run_folder` is where the workers' boards are, `worker-<n>.board`; their label is the name without the suffix.
    """

    def __init__(self, run_folder: Path) -> None:
        # When a counter was born, beside each one, is no figure of ours and doubles the answer. The switch is global.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()
        self._recorder: HasLag | None = None
        self._sealing: Callable[[], Sealing] | None = None
        self._run_folder = run_folder
        self._boards = BoardFolder(run_folder)
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = self._counter("pointsman_requests_total")
        self._latency = self._histogram("pointsman_request_latency_seconds")
        self._backend_latency = self._histogram("pointsman_backend_latency_seconds")
        self._errors = self._counter("pointsman_errors_total")
        self._fallbacks = self._counter("pointsman_fallbacks_total")
        self._retries = self._counter("pointsman_retries_total")
        self._diversions = self._counter("pointsman_diversions_total")
        self._stale = self._counter("pointsman_stale_requests_total")
        self._shadows = self._counter("pointsman_shadow_requests_total")
        self._shadow_latency = self._histogram("pointsman_shadow_latency_seconds")
        self._actions = self._counter("pointsman_control_records_total")
        self._registry.register(self)

    def watch(self, recorder: HasLag, sealing: Callable[[], Sealing] | None = None) -> None:
        """Take the lag from `recorder`, and how far sealing is, from now on; until then there is none in the answer."""
        self._recorder = recorder
        self._sealing = sealing

    def observe(self, frame: Frame) -> None:
        """Count one record."""
        record = frame.record
        if record.role == "control":
            with self._lock:
                self._actions.of(record.action or "").inc()
            return
        model, version = _labels(record)
        with self._lock:
            if record.role == "shadow":
                self._shadows.of(model, version, record.outcome).inc()
                self._shadow_latency.of(model, version).observe(record.total_us / 1e6)
            else:
                self._observe_primary(record, model, version)

    def _observe_primary(self, record: Record, model: str, version: str) -> None:
        self._requests.of(model, version, record.outcome).inc()
        self._latency.of(model, version).observe(record.total_us / 1e6)
        for attempt in record.attempts:
            if attempt.backend:  # else it was never made
                self._backend_latency.of(model, attempt.version, attempt.backend).observe(attempt.infer_us / 1e6)
        for before, attempt in pairwise(record.attempts):
            if before.version == attempt.version:
                self._retries.of(model, attempt.version).inc()
        if record.error_code is not None:
            self._errors.of(model, version, record.error_code).inc()
        first = record.tried_first
        if record.served is not None and first is not None and record.served != first:
            self._fallbacks.of(model, first, record.served).inc()
        if record.intended is not None and first is not None and first != record.intended:
            self._diversions.of(model, record.intended, first).inc()
        if record.stale:
            self._stale.of(model).inc()

    def render(self) -> bytes:
        """Return every figure in the text format of `CONTENT_TYPE`."""
        with self._lock:
            return generate_latest(self._registry)

    def close(self) -> None:
        """Let go of the boards."""
        with self._lock:
            self._boards.close()

    # ── what is read when it is asked for ────────────────────────────────────────────────────────────────────────

    def describe(self) -> Iterator[Family]:
        """Return nothing: asked by the registry, which would otherwise collect in order to learn the names."""
        return iter(())

    def collect(self) -> Iterator[Family]:
        """Yield the figures of the boards, the recorder and the build; called by the registry."""
        boards = self._boards.open()
        yield from board_families(boards)
        yield from standing_families(self._run_folder, boards)
        if self._recorder is not None:
            yield from lag_families(self._recorder.lag())
        if self._sealing is not None:
            yield from sealing_families(self._sealing())
        yield family("pointsman_build_info", [((__version__, platform.python_version()), 1)])

    def _counter(self, name: str) -> "_Children[Counter]":
        metric = METRICS[name]
        return _Children(Counter(name, metric.help, metric.labels, registry=self._registry))

    def _histogram(self, name: str) -> "_Children[Histogram]":
        metric = METRICS[name]
        return _Children(Histogram(name, metric.help, metric.labels, registry=self._registry, buckets=BUCKETS))


_Kind = TypeVar("_Kind", Counter, Histogram)


class _Children(Generic[_Kind]):
    """The children of one family by their label values; looking one up here costs a fifth of `labels()`."""

    def __init__(self, family: _Kind) -> None:
        self._family: _Kind = family
        self._children: dict[tuple[str, ...], _Kind] = {}

    def of(self, *labels: str) -> _Kind:
        """Return the child with these label values, in the order of the family's labels."""
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._family.labels(*labels)
        return child


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
