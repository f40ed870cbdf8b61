"""Deleting segments that are shipped and old enough, but never one with damage in it: it is evidence.

Belongs here: which segments go, and the marks that keep damaged ones. Never here: what was shipped, or what the damage
is.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from gateway.journal.segment import segment_numbers, segment_path
from gateway.logs import logger

CORRUPT_SUFFIX = ".corrupt"
"""An empty file of a segment's name with this suffix keeps a damaged segment from being deleted."""


class Discarding:
    """Deletes segments older than `keep_seconds`. All of it belongs to one thread."""

    def __init__(self, keep_seconds: float) -> None:
        self._keep_seconds = keep_seconds
        self._unmarked: set[Path] = set()

    def keep(self, segment: Path) -> None:
        """Never delete this one, for it is damaged; `mark` makes that outlive the process."""
        self._unmarked.add(segment)

    def mark(self) -> None:
        """Mark the damaged segments. One that cannot be marked, since the disk may be full, is tried again later."""
        for segment in tuple(self._unmarked):
            try:
                if segment.exists():
                    segment.with_suffix(CORRUPT_SUFFIX).touch(mode=0o600)
                self._unmarked.discard(segment)
            except OSError as error:
                logger().error("damaged_segment_not_marked", segment=str(segment), why=str(error))

    def delete(self, shipped: Mapping[Path, int]) -> None:
        """Delete the old segments of each folder before the one that shipping has come to. Raises `OSError`."""
        self.mark()
        oldest_kept = time.time() - self._keep_seconds
        for folder, reached in shipped.items():
            for number in segment_numbers(folder):
                path = segment_path(folder, number)
                done = number < reached and path not in self._unmarked
                if done and path.stat().st_mtime <= oldest_kept and not path.with_suffix(CORRUPT_SUFFIX).exists():
                    path.unlink()
