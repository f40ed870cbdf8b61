"""The folder of the last good rules: its files by name, its locks, and syncing it.

The workers of a gateway share it. Whoever appends to a log or puts a base in its place holds `lkg.lock`, for
milliseconds; whoever writes a base holds `lkg.base.lock` for as long as that takes.

Belongs here: names, locks and ages of files. Never here: what is in them. Everything here blocks.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.snapshot.lastgood_base import NAME, base_path
from gateway.snapshot.lastgood_log import log_path

KEPT = 3
LOCK_SECONDS = 2.0
"""How long the short lock is waited for: a process that is stopped while it has it must not stop the others, too."""
BASE_LOCK_SECONDS = 30.0
_ABANDONED_SECONDS = 60.0  # an unfinished file of that age belongs to a process that died
_AGAIN_SECONDS = 0.001


def bases(folder: Path) -> Sequence[Path]:
    """Return the bases of the folder, newest first."""
    found = [(int(match[1]), path) for path in files(folder) if (match := NAME.match(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def revision_of(base: Path) -> int:
    """Return the revision in a base's name."""
    match = NAME.match(base.name)
    assert match is not None
    return int(match[1])


def files(folder: Path) -> Sequence[Path]:
    """Return what is in the folder, in no order; nothing when there is no folder."""
    return list(folder.iterdir()) if folder.is_dir() else []


def unfinished(folder: Path, revision: int) -> Path:
    """Return where this process writes the base of a revision before it is put in its place."""
    return base_path(folder, revision).with_suffix(f".{os.getpid()}.tmp")


@contextmanager
def lock(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the short lock.

    Raises:
        OSError: there is no folder, it cannot be written, or the lock was not to be had in time (`TimeoutError`).
    """
    with _held(folder / "lkg.lock", LOCK_SECONDS, shared=shared):
        yield


@contextmanager
def base_lock(folder: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of who writes a base. Raises `OSError` as `lock` does; without `wait` at once."""
    with _held(folder / "lkg.base.lock", BASE_LOCK_SECONDS if wait else 0.0):
        yield


@contextmanager
def _held(path: Path, seconds: float, *, shared: bool = False) -> Iterator[None]:
    # For reading a lock is only opened, so that a folder that cannot be written can be read.
    flags = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, path.name, seconds)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, kind: int, name: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"another process holds {name}") from None
            time.sleep(_AGAIN_SECONDS)
        else:
            return


def sync_folder(folder: Path) -> None:
    """Return when the names in the folder survive the death of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def tidy(folder: Path, newest: Path) -> None:
    """Remove what nobody reads any more: bases after `newest`, which took their place, all but the newest three, logs
    without a base, and what dead processes left. The short lock is held.
    """
    standing = bases(folder)
    ours = standing.index(newest)
    for base in [*standing[:ours], *standing[ours + KEPT :]]:
        base.unlink(missing_ok=True)
    kept = {log_path(base).name for base in standing[ours : ours + KEPT]}
    for path in files(folder):
        without_base = path.suffix == ".log" and path.name not in kept
        if without_base or (path.suffix == ".tmp" and _age(path) > _ABANDONED_SECONDS):
            path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0
