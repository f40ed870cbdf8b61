"""One generation of the last good rules: a base and the log beside it, as one process knows them.

Belongs here: where the log ends, appending to it, and finding out what others appended or cut. Never here: which
generation counts. The short lock is held by whoever calls; everything here blocks.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gateway.logs import logger
from gateway.snapshot.lastgood_base import BaseHeader, Saved, new_file, write_all
from gateway.snapshot.lastgood_folder import sync_folder
from gateway.snapshot.lastgood_log import Line, Tail, apply_lines, beginning, intact_lines, log_path, pack_line

_LARGEST_LOG = 2**20
_MOST_LINES = 1000

Identity = tuple[str, int, int, int]


def identity_of(path: Path) -> Identity:
    """Return what tells a file from another that takes its name, or from itself when it is written again."""
    found = path.stat()
    return path.name, found.st_ino, found.st_mtime_ns, found.st_size


class Generation:
    """`tail` is the end of the log's intact lines as they were last looked at."""

    def __init__(self, base: Path, identity: Identity, header: BaseHeader, *, empty: bool) -> None:
        self.base = base
        self.identity = identity
        self.log = log_path(base)
        self.failed = False  # a sync failed, so nobody knows what the disk holds
        self._beginning = beginning(header, empty=empty)
        self.tail = self._beginning
        self._unsynced = True

    @property
    def outgrown(self) -> bool:
        """Whether the log is so long that a new base is due."""
        return self.tail.end > max(_LARGEST_LOG, self.identity[3] // 2) or self.tail.lines > _MOST_LINES

    def replay(self, saved: Saved) -> Saved:
        """Return the rules that the log leads to from those of the base. What it refuses of it, it logs."""
        content = self._content(0)
        lines = list(intact_lines(content, self._beginning))
        if lines:
            self.tail = lines[-1].tail
        if refused := len(content) - self.tail.end:
            logger().error(
                "last_good_refused",
                file=self.log.name,
                why=f"its last {refused} bytes, from {self.tail.end} on, are not as they were written",
            )
        return apply_lines(saved, lines)

    def catch_up(self) -> None:
        """Look for lines that others appended since the last look."""
        lines = self.lines_after(self.tail)
        if lines is None:  # somebody cut the log, or it was damaged
            self.tail = self._beginning
            lines = self.lines_after(self.tail) or ()
            self._unsynced = True
        if lines:
            self.tail = lines[-1].tail
            self._unsynced = True

    def lines_after(self, mark: Tail) -> Sequence[Line] | None:
        """Return the intact lines after a place; None when the line before it no longer stands there."""
        content = self._content(mark.last)
        skipped = mark.end - mark.last
        if len(content) < skipped or (skipped and not content.startswith(mark.digest.encode())):
            return None
        return list(intact_lines(content[skipped:], mark))

    def find(self, saved: Saved) -> Tail | None:
        """Return the place in the log that leads to these very rules, if any line does."""
        for line in intact_lines(self._content(0), self._beginning):
            if (line.tail.head, line.tail.operation_id) == (saved.head, saved.operation_id):
                return line.tail
        return None

    def append(self, json: bytes) -> None:
        """Append a line and sync it, over what was left of a line whose writer died.

        Raises:
            OSError: it could not be written, and the log ends where it did, or could not be synced (then `failed`).
        """
        line = pack_line(self.tail, json)
        descriptor = os.open(self.log, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size > self.tail.end:
                logger().warning("last_good_tail_cut", file=self.log.name, bytes=size - self.tail.end)
                os.ftruncate(descriptor, self.tail.end)
            _write(descriptor, line, self.tail.end)
            self._sync(descriptor)
            if size == 0:
                sync_folder(self.base.parent)
        finally:
            os.close(descriptor)
        self.tail = next(intact_lines(line, self.tail)).tail

    def sync(self) -> None:
        """Return when what others appended survives the death of the machine. Raises `OSError`."""
        if not self._unsynced:
            return
        with suppress(FileNotFoundError):
            descriptor = os.open(self.log, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._sync(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(self.base.parent)

    def _sync(self, descriptor: int) -> None:
        try:
            os.fdatasync(descriptor)
        except OSError:
            self.failed = True
            raise
        self._unsynced = False

    def _content(self, start: int) -> bytes:
        try:
            with self.log.open("rb") as file:
                file.seek(start)
                return file.read()
        except FileNotFoundError:
            return b""


def write_log(base: Path, header: BaseHeader, lines: Sequence[Line]) -> None:
    """Put the log of a base in its place, chained anew, just before the base is; an old one of that name goes.

    Raises:
        OSError: it could not be written; no base has lost anything.
    """
    log = log_path(base)
    if not lines:
        log.unlink(missing_ok=True)
        return
    tail = beginning(header, empty=False)
    packed = []
    for line in lines:
        packed.append(pack_line(tail, line.json))
        tail = next(intact_lines(packed[-1], tail)).tail
    new = log.with_suffix(f".log.{os.getpid()}.tmp")
    try:
        with new_file(new) as file:
            write_all(file.fileno(), b"".join(packed))
            os.fsync(file.fileno())
        new.replace(log)
    finally:
        new.unlink(missing_ok=True)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    written = 0
    try:
        while written < len(view):
            written += os.pwrite(descriptor, view[written:], offset + written)
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, offset)
        raise
