"""Figures: each worker's board of fixed slots in shared memory, and the Prometheus book that the control process keeps.

Belongs here: what is counted and under which names. Never here: scraping over HTTP, reading journals.

Requests are counted from their records, not on the request path, so audit log and metrics cannot disagree and a
killed worker loses nothing. What leaves no record (in flight, dropped shadows, rules in force) stands on the board.
"""

import mmap
import os
from enum import IntEnum
from pathlib import Path

_SLOT_BYTES = 8
_SLOTS = 64


class Slot(IntEnum):
    """Places on a worker's board. Numbers are never reused; counters live through restarts, gauges start at 0."""

    PID = 0
    READY = 1
    IN_FLIGHT = 2
    SHADOWS_IN_FLIGHT = 3
    RULES_REVISION = 4
    RULES_CHECKED_NS = 5
    RULES_ALARM = 6
    VERSIONS_LOADED = 7
    JOURNAL_SEQUENCE = 8
    SHADOW_DROPPED_IN_FLIGHT = 16
    SHADOW_DROPPED_BODY_SIZE = 17
    SHADOW_DROPPED_NOT_READY = 18
    SHADOW_DROPPED_STOPPING = 19


COUNTERS = frozenset(slot for slot in Slot if slot.name.startswith("SHADOW_DROPPED_"))


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
