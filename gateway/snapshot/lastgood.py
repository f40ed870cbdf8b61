"""The last good rules on disk, for a start without Redis: a few generations of one checked file.

Belongs here: writing a generation so that it is there whole or not at all, and reading the newest that is intact.
Never here: deciding whether the file or Redis is right. Everything here blocks; call it in a thread.

A file is one JSON object: format, epoch, revision, operation, documents, and the sha256 over those four. The workers
of a gateway share the folder: the first to have a revision writes it, the others find it there.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from gateway.logs import logger
from gateway.ports import Head, Kind, StoredDocument
from gateway.snapshot.documents import DocumentName

KEPT = 3
_NAME = re.compile(r"lkg-(\d{12,})\.json\Z")
_ABANDONED_SECONDS = 60.0  # an unfinished file of that age belongs to a process that died
_PORTION = 500  # documents encoded in one call, so that the event loop gets the interpreter in between


class Saved(Struct, frozen=True):
    """Rules as they are kept: every document, and the change that made them."""

    head: Head
    operation_id: str
    documents: Mapping[DocumentName, StoredDocument]


class _File(Struct, forbid_unknown_fields=True):
    format: Literal[1]
    epoch: str
    revision: int
    operation: str
    sha256: str
    documents: Raw


_decode_file = msgspec.json.Decoder(_File).decode
_decode_documents = msgspec.json.Decoder(list[tuple[Kind, str, int, str]]).decode


class LastGood:
    """The generations in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest(self) -> Saved | None:
        """Return the newest generation that is intact, or None. One that is not is named in the log, and why."""
        for path in self._generations():
            try:
                return _read(path)
            except (OSError, ValueError) as error:
                logger().error("last_good_refused", file=path.name, why=str(error))
        return None

    def write(self, saved: Saved) -> None:
        """Write a generation, unless it is there, and remove all but the newest three.

        Raises:
            OSError: it could not be written; what was there before is still there.
        """
        path = self._folder / f"lkg-{saved.head.revision:012d}.json"
        if path.exists():
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            _write_durably(unfinished, _encode(saved))
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        _sync_folder(self._folder)
        self._tidy()

    def _generations(self) -> Sequence[Path]:
        """Return the files of the folder, newest first."""
        found = [(int(match[1]), path) for path in _files(self._folder) if (match := _NAME.match(path.name))]
        return [path for _, path in sorted(found, reverse=True)]

    def _tidy(self) -> None:
        """Remove old generations and what dead processes left; another worker may be doing the same."""
        abandoned = [path for path in _files(self._folder) if path.suffix == ".tmp" and _age(path) > _ABANDONED_SECONDS]
        for path in [*self._generations()[KEPT:], *abandoned]:
            path.unlink(missing_ok=True)


def last_known_revision(folder: Path) -> int:
    """Return the newest revision that was ever in force here, by the names of the files; 0 when there was none."""
    return max((int(match[1]) for path in _files(folder) if (match := _NAME.match(path.name))), default=0)


def _files(folder: Path) -> Sequence[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _encode(saved: Saved) -> bytes:
    documents = b"[" + b",".join(_portions(saved.documents)) + b"]"
    head = {
        "format": 1,
        "epoch": saved.head.epoch,
        "revision": saved.head.revision,
        "operation": saved.operation_id,
        "sha256": _digest(saved.head, saved.operation_id, documents),
    }
    return msgspec.json.encode(head)[:-1] + b',"documents":' + documents + b"}"


def _portions(documents: Mapping[DocumentName, StoredDocument]) -> Iterator[bytes]:
    names = list(documents)
    for start in range(0, len(names), _PORTION):
        portion = [
            (*name, documents[name].revision, documents[name].json.decode("utf-8", "replace"))
            for name in names[start : start + _PORTION]
        ]
        yield msgspec.json.encode(portion)[1:-1]


def _digest(head: Head, operation_id: str, documents: bytes | Raw) -> str:
    digest = hashlib.sha256(f"{head.epoch}\n{head.revision}\n{operation_id}\n".encode())
    digest.update(documents)
    return digest.hexdigest()


def _read(path: Path) -> Saved:
    """Return what a generation holds. Raises `ValueError` when a single byte of it is not as it was written."""
    file = _decode_file(path.read_bytes())
    head = Head(file.epoch, file.revision)
    if _digest(head, file.operation, file.documents) != file.sha256:
        raise ValueError("its digest does not fit its content")
    if path.name != f"lkg-{head.revision:012d}.json":
        raise ValueError(f"it holds revision {head.revision}")
    documents = {
        (kind, name): StoredDocument(revision, json.encode())
        for kind, name, revision, json in _decode_documents(file.documents)
    }
    return Saved(head, file.operation, documents)


def _write_durably(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _age(path: Path) -> float:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0
