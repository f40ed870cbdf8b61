"""Figures that leave no record, read when they are asked for: the workers' boards and the recorder's lag.

Belongs here: opening boards, telling the living from the dead, turning slots into samples. Never here: counting.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family

from gateway.metrics import METRICS, Board, Lag, Sealing, Slot
from gateway.standings import Standing, read_told

# Of a worker that is gone these are 0, so that an alert can stand on them; its other gauges are left out.
_ZERO_WHEN_GONE = {
    "pointsman_in_flight_requests": Slot.IN_FLIGHT,
    "pointsman_shadows_in_flight": Slot.SHADOWS_IN_FLIGHT,
    "pointsman_worker_ready": Slot.READY,
    "pointsman_open_connections": Slot.CONNECTIONS,
    "pointsman_versions_limited": Slot.LIMITS_IN_FORCE,
    "pointsman_versions_braked": Slot.VERSIONS_BRAKED,
}
_ABSENT_WHEN_GONE = {
    "pointsman_rules_revision": Slot.RULES_REVISION,
    "pointsman_rules_alarm": Slot.RULES_ALARM,
    "pointsman_versions_loaded": Slot.VERSIONS_LOADED,
    "pointsman_disk_used_percent": Slot.DISK_USED_PERCENT,
}
_COUNTED = {
    "pointsman_records_lost_total": Slot.RECORDS_LOST,
    "pointsman_unrecorded_refusals_total": Slot.REFUSED_UNRECORDED,
    "pointsman_retries_refused_total": Slot.RETRIES_REFUSED,
    "pointsman_shed_requests_total": Slot.SHED,
    "pointsman_connections_refused_total": Slot.CONNECTIONS_REFUSED,
}
_DROPPED = {slot: slot.name.removeprefix("SHADOW_DROPPED_").lower() for slot in Slot if "SHADOW_DROPPED_" in slot.name}


class BoardFolder:
    """The boards `worker-<n>.board` of a folder, opened as they appear, by their names without the suffix."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, tuple[int, Board]] = {}

    def open(self) -> Mapping[str, Board]:
        """Return the boards that are there now. They stay open until the next call that no longer finds them."""
        found = {path.stem: path for path in sorted(self.folder.glob("worker-*.board"))}
        files = {worker: path.stat().st_ino for worker, path in found.items()}
        for worker, (file, board) in tuple(self._open.items()):
            if files.get(worker) != file:
                board.close()
                del self._open[worker]
        for worker, path in found.items():
            if worker not in self._open:
                self._open[worker] = (files[worker], Board(path))
        return {worker: self._open[worker][1] for worker in found}

    def close(self) -> None:
        """Close every board."""
        for _, board in self._open.values():
            board.close()
        self._open.clear()


def board_families(boards: Mapping[str, Board]) -> Iterator[Family]:
    """Yield the figures of the workers' boards."""
    alive = {worker: board for worker, board in boards.items() if is_alive(board[Slot.PID])}
    for name, slot in _ZERO_WHEN_GONE.items():
        yield family(name, (((worker,), board[slot] if worker in alive else 0) for worker, board in boards.items()))
    for name, slot in _ABSENT_WHEN_GONE.items():
        yield family(name, (((worker,), board[slot]) for worker, board in alive.items()))
    lags = (((worker,), board[Slot.LOOP_LAG_US] / 1e6) for worker, board in alive.items())
    yield family("pointsman_loop_lag_seconds", lags)
    checked = {worker: board[Slot.RULES_CHECKED_NS] for worker, board in alive.items()}
    now = time.time_ns()
    ages = (((worker,), max(0, now - at) / 1e9) for worker, at in checked.items() if at)
    yield family("pointsman_rules_age_seconds", ages)
    for name, slot in _COUNTED.items():
        yield family(name, (((worker,), board[slot]) for worker, board in boards.items()))
    dropped = (((w, why), board[slot]) for w, board in boards.items() for slot, why in _DROPPED.items())
    yield family("pointsman_shadow_dropped_total", dropped)


def standing_families(folder: Path, boards: Mapping[str, Board]) -> Iterator[Family]:
    """Yield how the workers' backends stand; of a worker that is gone, only what counts on."""
    told = {worker: read_told(folder / f"{worker}.standings").backends for worker in boards}
    now = {worker: standings for worker, standings in told.items() if is_alive(boards[worker][Slot.PID])}
    yield family("pointsman_backend_ejections_total", _by_version(told, "ejections"))
    yield family("pointsman_backends_ejected", _by_version(now, "ejected"))
    yield family("pointsman_backends_unhealthy", _by_version(now, "unhealthy"))


def _by_version(told: Mapping[str, list[Standing]], what: str) -> Iterator[tuple[tuple[str, ...], float]]:
    for worker, standings in told.items():
        for standing in standings:
            yield (worker, standing.model, standing.version), getattr(standing, what)


def lag_families(lag: Lag) -> Iterator[Family]:
    """Yield the figures of the recorder; the number of records is left out while it is not known."""
    yield family("pointsman_journal_lag_records", () if lag.records is None else [((), lag.records)])
    yield family("pointsman_journal_lag_bytes", [((), lag.bytes)])
    yield family("pointsman_journal_lag_seconds", [((), lag.seconds)])
    yield family("pointsman_journal_corrupt_frames_total", [((), lag.corrupt_frames)])


def sealing_families(sealing: Sealing) -> Iterator[Family]:
    """Yield the figures of checkpoints; the age is left out while there is none."""
    age = max(0.0, (time.time_ns() - sealing.last_at_ns) / 1e9)
    yield family("pointsman_checkpoint_age_seconds", [((), age)] if sealing.last_at_ns else ())
    yield family("pointsman_checkpoints_unpublished", [((), sealing.unpublished)])


def family(name: str, samples: Iterable[tuple[tuple[str, ...], float]]) -> Family:
    """Return the family of a figure of `METRICS` with these values by label values."""
    metric = METRICS[name]
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    made = kind(name, metric.help, labels=metric.labels)
    for labels, value in samples:
        made.add_metric(labels, value)
    return made


def is_alive(pid: int) -> bool:
    """Tell whether a process of that id is there; 0 is none."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
