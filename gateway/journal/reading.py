"""Reading all journals of a gateway: those of the workers that run, those of workers that are gone, those yet to come.

Belongs here: taking up journals and reading them in turn. Never here: what becomes of the frames.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from gateway.journal.tail import Alarm, Budget, Tail
from gateway.ports import JournalPosition
from gateway.record import Frame


class JournalReader:
    """One reader's places in all journals of all workers, also of those that are gone and those that come later."""

    def __init__(self, folder: Path, positions: Mapping[str, JournalPosition], alarm: Alarm) -> None:
        self._folder = folder
        self._positions = positions
        self._alarm = alarm
        self._tails: dict[str, Tail] = {}
        self._turn = 0

    def discover(self) -> None:
        """Take up the folders of workers that are new."""
        if not self._folder.is_dir():
            return
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name not in self._tails and entry.is_dir():
                    self._tails[entry.name] = Tail(self._folder / entry.name, self._positions, self._alarm)

    def read(self, budget: Budget) -> list[Frame]:
        """Return the next frames of all journals, in order within each; another journal comes first each time."""
        frames: list[Frame] = []
        tails = list(self._tails.values())
        for index in range(len(tails)):
            if not budget:
                break
            frames += tails[(self._turn + index) % len(tails)].read(budget)
        self._turn += 1
        return frames

    def positions(self) -> list[JournalPosition]:
        """Return where the reader stands in every journal that it has opened."""
        return [position for tail in self._tails.values() for position in tail.positions()]

    def places(self) -> dict[Path, tuple[int, int]]:
        """Return where the reader stands in every worker's folder: (segment, next byte in it), (0, 0) before any."""
        return {self._folder / name: (tail.segment, tail.offset) for name, tail in self._tails.items()}

    def sync(self) -> None:
        """Return when every frame read so far is on the disk. Raises `OSError`."""
        for tail in self._tails.values():
            tail.sync()

    def close(self) -> None:
        """Close every file."""
        for tail in self._tails.values():
            tail.close()
