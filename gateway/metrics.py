"""Figures: each worker's board of fixed slots in shared memory, and the table of every figure that is published.

Belongs here: what is counted and under which names. Never here: counting and rendering (`book`), reading journals.

Requests are counted from their records, not on the request path, so audit log and metrics cannot disagree and a
killed worker loses nothing. What leaves no record (in flight, dropped shadows, rules in force) stands on the board.
"""

import mmap
import os
from enum import IntEnum
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct

_SLOT_BYTES: Final = 8
_SLOTS: Final = 64


class Slot(IntEnum):
    """Places on a worker's board. Numbers are never reused; counters live through restarts, gauges start at 0.

    RECORDS_LOST counts records that were served without (`audit.on_full = "serve"`), LOSSES_RECORDED how many of them a
    `records.lost` record tells of, REFUSED_UNRECORDED requests that were refused because no record could be kept.
    SHED counts requests that were refused because the worker was overloaded, CONNECTIONS_REFUSED connections beyond
    `limits.max_connections`. LOOP_LAG_US is how long a turn of the event loop took at the last look.
    LOOKED_NS is when the worker last looked after itself, by the monotonic clock that all processes of a machine share.
    RULES_CHECKED_NS and RULES_SINCE_NS are Unix time in ns: when the store last confirmed the rules in force, and since
    when they are in force; 0 is never.
    """

    PID = 0
    READY = 1
    IN_FLIGHT = 2
    SHADOWS_IN_FLIGHT = 3
    RULES_REVISION = 4
    RULES_CHECKED_NS = 5
    RULES_ALARM = 6
    VERSIONS_LOADED = 7
    JOURNAL_SEQUENCE = 8
    RULES_SINCE_NS = 9
    DISK_USED_PERCENT = 10
    VERSIONS_BRAKED = 40
    LIMITS_IN_FORCE = 41
    LOOP_LAG_US = 42
    CONNECTIONS = 43
    LOOKED_NS = 47
    SHADOW_DROPPED_IN_FLIGHT = 16
    SHADOW_DROPPED_BODY_SIZE = 17
    SHADOW_DROPPED_NOT_READY = 18
    SHADOW_DROPPED_STOPPING = 19
    RECORDS_LOST = 20
    LOSSES_RECORDED = 21
    REFUSED_UNRECORDED = 22
    RETRIES_REFUSED = 23
    SHADOW_DROPPED_OVERLOAD = 44
    SHED = 45
    CONNECTIONS_REFUSED = 46


COUNTERS: Final = frozenset(
    slot
    for slot in Slot
    if slot.name.startswith("SHADOW_DROPPED_")
    or slot
    in {
        Slot.RECORDS_LOST,
        Slot.LOSSES_RECORDED,
        Slot.REFUSED_UNRECORDED,
        Slot.RETRIES_REFUSED,
        Slot.SHED,
        Slot.CONNECTIONS_REFUSED,
    }
)


class Metric(Struct, frozen=True):
    """One figure as it stands in the README's table."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


METRICS: Final = {
    "pointsman_requests_total": Metric(
        "counter", "Requests by the version that served them (or should have).", ("model", "version", "outcome")
    ),
    "pointsman_request_latency_seconds": Metric(
        "histogram", "Time from the arrival of a request to its reply.", ("model", "version")
    ),
    "pointsman_backend_latency_seconds": Metric(
        "histogram", "Time of each try at having a version answer.", ("model", "version", "backend")
    ),
    "pointsman_errors_total": Metric("counter", "Failed and refused requests by error.", ("model", "version", "code")),
    "pointsman_fallbacks_total": Metric(
        "counter", "Requests served by another version than the rules chose.", ("model", "intended", "served")
    ),
    "pointsman_diversions_total": Metric(
        "counter", "Requests that the brake sent to another version.", ("model", "intended", "version")
    ),
    "pointsman_retries_total": Metric(
        "counter", "Tries that were made again on the same version.", ("model", "version")
    ),
    "pointsman_retries_refused_total": Metric(
        "counter", "Tries that were not made again, because too many were under way.", ("worker",)
    ),
    "pointsman_backend_ejections_total": Metric(
        "counter", "How often a backend was left out because it failed again and again.", ("worker", "model", "version")
    ),
    "pointsman_backends_ejected": Metric(
        "gauge", "Backends that are left out because they failed.", ("worker", "model", "version")
    ),
    "pointsman_backends_unhealthy": Metric(
        "gauge", "Backends that fail their health checks.", ("worker", "model", "version")
    ),
    "pointsman_stale_requests_total": Metric(
        "counter", "Requests served while the rules could not be checked.", ("model",)
    ),
    "pointsman_shadow_requests_total": Metric("counter", "Copies sent to shadows.", ("model", "version", "outcome")),
    "pointsman_shadow_latency_seconds": Metric("histogram", "Time of a copy sent to a shadow.", ("model", "version")),
    "pointsman_shadow_dropped_total": Metric("counter", "Copies that were not sent, and why.", ("worker", "reason")),
    "pointsman_control_records_total": Metric(
        "counter", "What auditors and operators did, by kind: look-ups, erasures, changes of rules.", ("action",)
    ),
    "pointsman_records_lost_total": Metric(
        "counter", "Predictions served without a record, because the disk was full (on_full = serve).", ("worker",)
    ),
    "pointsman_unrecorded_refusals_total": Metric(
        "counter", "Requests refused because no record could be kept.", ("worker",)
    ),
    "pointsman_shed_requests_total": Metric(
        "counter", "Requests refused because the worker was overloaded; they leave no record.", ("worker",)
    ),
    "pointsman_connections_refused_total": Metric(
        "counter", "Connections refused because there were too many.", ("worker",)
    ),
    "pointsman_open_connections": Metric("gauge", "Connections of callers.", ("worker",)),
    "pointsman_loop_lag_seconds": Metric("gauge", "How long a turn of the event loop takes.", ("worker",)),
    "pointsman_versions_limited": Metric("gauge", "Versions with a limit of concurrency in force.", ("worker",)),
    "pointsman_versions_braked": Metric("gauge", "Versions that the brake diverts from.", ("worker",)),
    "pointsman_in_flight_requests": Metric("gauge", "Requests being served now.", ("worker",)),
    "pointsman_shadows_in_flight": Metric("gauge", "Copies being served now.", ("worker",)),
    "pointsman_worker_ready": Metric("gauge", "1 when the worker takes requests.", ("worker",)),
    "pointsman_rules_revision": Metric("gauge", "Revision of the rules in force.", ("worker",)),
    "pointsman_rules_age_seconds": Metric("gauge", "Time since the rules were last checked.", ("worker",)),
    "pointsman_rules_alarm": Metric("gauge", "1 when newer rules are refused.", ("worker",)),
    "pointsman_versions_loaded": Metric("gauge", "Versions that can serve.", ("worker",)),
    "pointsman_disk_used_percent": Metric("gauge", "How full the disk of the journals is.", ("worker",)),
    "pointsman_journal_lag_records": Metric("gauge", "Records that are not in the audit store yet."),
    "pointsman_journal_lag_bytes": Metric("gauge", "Bytes of journals that are not in the audit store yet."),
    "pointsman_journal_lag_seconds": Metric("gauge", "Age of the oldest record that is not in the audit store yet."),
    "pointsman_journal_corrupt_frames_total": Metric("counter", "Records lost to damage of a journal."),
    "pointsman_checkpoint_age_seconds": Metric("gauge", "Time since the newest signed checkpoint was made."),
    "pointsman_checkpoints_unpublished": Metric("gauge", "Checkpoints that are not in their file or at their URL yet."),
    "pointsman_build_info": Metric("gauge", "Always 1; what is running.", ("version", "python")),
}
"""Every figure in the order of the README: name → kind, help, labels."""


class Lag(Struct, frozen=True):
    """How far the audit store is behind the journals, and what could not be read of them.

    `records` is None while it is not known; `seconds` is the age of the oldest record that is not in the store yet.
    `corrupt_frames` counts the records lost to damage since the process began.
    """

    records: int | None
    bytes: int
    seconds: float
    corrupt_frames: int


class Sealing(Struct, frozen=True):
    """When the newest signed checkpoint was made (Unix ns, 0: never), and how many have not arrived where they go."""

    last_at_ns: int
    unpublished: int


class Board:
    """64 signed 64-bit integers in a memory-mapped file: one writer, read by the control process at any time.

    The pages belong to the kernel, so what stands here survives a SIGKILL of the writer.
    """

    def __init__(self, path: Path) -> None:
        """Open the board at `path`, making it if there is none."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _SLOTS * _SLOT_BYTES)
            self._map = mmap.mmap(descriptor, _SLOTS * _SLOT_BYTES)
        finally:
            os.close(descriptor)
        self._slots = memoryview(self._map).cast("q")

    def __getitem__(self, slot: Slot) -> int:
        return self._slots[slot]

    def __setitem__(self, slot: Slot, value: int) -> None:
        self._slots[slot] = value

    def add(self, slot: Slot, amount: int = 1) -> None:
        """Add to a slot. Only the owning worker's event loop may write."""
        self._slots[slot] += amount

    def begin(self) -> None:
        """Take the board over in a new process: gauges at 0, counters as the process before left them."""
        for slot in Slot:
            if slot not in COUNTERS:
                self._slots[slot] = 0
        self._slots[Slot.PID] = os.getpid()

    def close(self) -> None:
        """Unmap the file."""
        self._slots.release()
        self._map.close()


def board_path(run_folder: Path, index: int) -> Path:
    """Return where worker `index` of a gateway keeps its board."""
    return run_folder / f"worker-{index}.board"
