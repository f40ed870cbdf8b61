"""How full the disk of the journals is: a warning first, and then no new requests, before a write can fail.

Belongs here: looking, and saying so once for every change. Never here: what a full disk means for a request (`sink`).
"""

import os
from pathlib import Path
from time import monotonic

from gateway.logs import logger
from gateway.metrics import Board, Slot

LOOK_SECONDS = 0.5


class Space:
    """The disk that `folder` lies on. `look` may be called from any one thread, `full` be read from all.

    Fullness is that of df(1): used blocks against those that are used or that we may use.
    """

    def __init__(self, folder: Path, board: Board, *, warn_percent: float, full_percent: float) -> None:
        self.full = False
        self.percent = 0.0
        self._folder = folder
        self._board = board
        self._warn_percent = warn_percent
        self._full_percent = full_percent
        self._said = "room"
        self._next = 0.0
        self._measure()

    def look(self) -> None:
        """Measure again if the last time was `LOOK_SECONDS` ago."""
        now = monotonic()
        if now >= self._next:
            self._next = now + LOOK_SECONDS
            self._measure()

    def _measure(self) -> None:
        try:
            disk = os.statvfs(self._folder)
        except OSError as error:
            logger().error("disk_not_measured", folder=str(self._folder), why=str(error))
            return
        used = disk.f_blocks - disk.f_bfree
        whole = used + disk.f_bavail
        self.percent = 100.0 * used / whole if whole else 100.0
        self.full = self.percent >= self._full_percent
        self._board[Slot.DISK_USED_PERCENT] = int(self.percent)
        self._say("full" if self.full else "warning" if self.percent >= self._warn_percent else "room")

    def _say(self, state: str) -> None:
        if state == self._said:
            return
        self._said = state
        told = {"folder": str(self._folder), "used_percent": round(self.percent, 1)}
        if state == "full":
            logger().error("disk_full", **told, limit_percent=self._full_percent)
        elif state == "warning":
            logger().warning("disk_filling", **told, limit_percent=self._warn_percent)
        else:
            logger().info("disk_has_room", **told)
