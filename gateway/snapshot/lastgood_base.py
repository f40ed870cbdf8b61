"""A base file of the last good rules: all documents as of one revision, in one JSON object with its sha256.

    lkg-<revision>.json = {"format": 1, "epoch", "revision", "operation", "sha256", "documents": [[kind, name, revision,
                          JSON], …]}, the digest over epoch, revision, operation and the bytes of the documents

Belongs here: the bytes of a base, written durably and read back unless one of them is wrong. Never here: which base is
the newest, or what changed since. Everything here blocks; call it in a thread.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Raw, Struct

from gateway.ports import DocumentName, Head, Kind, StoredDocument

NAME = re.compile(r"lkg-(\d{12,})\.json\Z")
_DOCUMENTS = b',"documents":'
_NO_DIGEST = "0" * 64
_PORTION = 500  # documents encoded in one call, so that the event loop gets the interpreter in between
_SYNC_BYTES = 4 * 2**20  # synced so often, so that the short appends of others need not wait for all of it at once
_LONGEST_HEADER = 2**16


class Saved(Struct, frozen=True):
    """Rules as they are kept: every document, and the change that made them."""

    head: Head
    operation_id: str
    documents: Mapping[DocumentName, StoredDocument]


class BaseHeader(Struct, frozen=True):
    """What a base says of itself before its documents. `sha256` is what its log begins from."""

    format: Literal[1]
    epoch: str
    revision: int
    operation: str
    sha256: str

    @property
    def head(self) -> Head:
        """The head that the documents are of."""
        return Head(self.epoch, self.revision)


class _File(Struct, forbid_unknown_fields=True):
    format: Literal[1]
    epoch: str
    revision: int
    operation: str
    sha256: str
    documents: Raw


_decode_file = msgspec.json.Decoder(_File).decode
_decode_header = msgspec.json.Decoder(BaseHeader).decode
_decode_documents = msgspec.json.Decoder(list[tuple[Kind, str, int, str]]).decode


def base_path(folder: Path, revision: int) -> Path:
    """Return where the base of a revision is kept."""
    return folder / f"lkg-{revision:012d}.json"


def write_base(path: Path, saved: Saved, go_on: Callable[[], bool]) -> BaseHeader | None:
    """Write a base to `path` and sync it; the folder stays the caller's business. None: `go_on` said no on the way.

    Raises:
        OSError: it could not be written.
    """
    header = BaseHeader(1, saved.head.epoch, saved.head.revision, saved.operation_id, _NO_DIGEST)
    digest = _digest(header)
    with new_file(path) as file:
        start = _pack(header)
        unsynced = write_all(file.fileno(), start)
        for portion in _documents(saved.documents):
            if not go_on():
                return None
            digest.update(portion)
            unsynced += write_all(file.fileno(), portion)
            if unsynced > _SYNC_BYTES:
                os.fdatasync(file.fileno())
                unsynced = 0
        write_all(file.fileno(), b"}")
        header = msgspec.structs.replace(header, sha256=digest.hexdigest())
        os.pwrite(file.fileno(), _pack(header), 0)  # as long as before
        os.fsync(file.fileno())
    return header


def read_base(path: Path) -> tuple[Saved, BaseHeader]:
    """Return what a base holds.

    Raises:
        OSError: it cannot be read.
        ValueError: a single byte of it is not as it was written.
    """
    file = _decode_file(path.read_bytes())
    header = BaseHeader(file.format, file.epoch, file.revision, file.operation, file.sha256)
    digest = _digest(header)
    digest.update(file.documents)
    if digest.hexdigest() != header.sha256:
        raise ValueError("its digest does not fit its content")
    _check_name(path, header)
    documents = {
        (kind, name): StoredDocument(revision, json.encode())
        for kind, name, revision, json in _decode_documents(file.documents)
    }
    return Saved(header.head, header.operation, documents), header


def read_base_header(path: Path) -> tuple[BaseHeader, bool]:
    """Return what a base says of itself, and whether it has any documents; they are neither read nor verified.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no base.
    """
    with path.open("rb") as file:
        start = file.read(_LONGEST_HEADER)
    # Within a JSON string its quotes would be escaped, so this is where the documents really begin.
    end = start.find(_DOCUMENTS)
    if end < 0:
        raise ValueError("it is no base of last good rules")
    header = _decode_header(start[:end] + b"}")
    _check_name(path, header)
    return header, start[end + len(_DOCUMENTS) :][:2] != b"[]"


def _check_name(path: Path, header: BaseHeader) -> None:
    if path.name != base_path(path.parent, header.revision).name:
        raise ValueError(f"it holds revision {header.revision}")


def _pack(header: BaseHeader) -> bytes:
    return msgspec.json.encode(header)[:-1] + _DOCUMENTS


def _digest(header: BaseHeader) -> "hashlib._Hash":
    return hashlib.sha256(f"{header.epoch}\n{header.revision}\n{header.operation}\n".encode())


def _documents(documents: Mapping[DocumentName, StoredDocument]) -> Iterator[bytes]:
    names = list(documents)
    opening = b"["
    for start in range(0, len(names), _PORTION):
        portion = [
            (*name, documents[name].revision, documents[name].json.decode("utf-8", "replace"))
            for name in names[start : start + _PORTION]
        ]
        yield opening + msgspec.json.encode(portion)[1:-1]
        opening = b","
    yield b"[]" if opening == b"[" else b"]"


def write_all(descriptor: int, content: bytes) -> int:
    """Write all of `content` where the file is at and return its length in bytes. Raises `OSError`."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(content)


def new_file(path: Path) -> FileIO:
    """Open an empty file that nobody else may read, to be written without a buffer. Raises `OSError`."""
    return FileIO(path, "wb", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600))
