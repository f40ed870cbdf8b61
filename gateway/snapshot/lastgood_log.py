"""The log beside a base of the last good rules: one line for each change since, chained by digests to the base.

    lkg-<revision>.log = line*
    line               = sha256 in hex, space, JSON, newline
    JSON               = {"epoch", "revision", "operation", "total", "documents": [[kind, name, revision, document]]}

`documents` are those that changed (null: deleted), `total` is how many the writer had then.
Each digest is over the one before (the first: that of the base) and the JSON of its line, so no byte can change and no
line be taken out without every later line being refused, too. A line leads to its head from the one before it.

Belongs here: lines and reading them in turn. Never here: opening files, or what becomes of a damaged log.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.ports import DocumentName, Head, Kind, StoredDocument
from gateway.snapshot.documents import Changed
from gateway.snapshot.lastgood_base import BaseHeader, Saved

_DIGEST_BYTES = 64


class Step(Struct, frozen=True):
    """One step of the rules: from the documents of `since` to those of `head`, of which there are `total`.

    Unless `exact`, it leads to `head` also from any revision between the two. `since` None: from nothing.
    """

    since: Head | None
    exact: bool
    head: Head
    operation_id: str
    changed: Changed
    total: int


class Tail(Struct, frozen=True):
    """Where a log ends: the head and operation that its lines lead to, and whether any documents are left there.

    `digest` is what the next line is chained to, `last` and `end` are where the last line begins and ends in the file.
    """

    head: Head
    operation_id: str
    empty: bool
    digest: str
    last: int = 0
    end: int = 0
    lines: int = 0


class Line(Struct, frozen=True):
    """An intact line: its JSON, and the tail of a log that ends with it."""

    json: bytes
    tail: Tail


class _Said(Struct):
    """What a line says, without its documents."""

    epoch: str
    revision: int
    operation: str
    total: int


class _Documents(Struct):
    documents: list[tuple[Kind, str, int, str | None]]


_decode_said = msgspec.json.Decoder(_Said).decode
_decode_documents = msgspec.json.Decoder(_Documents).decode


def log_path(base: Path) -> Path:
    """Return where the log of a base is kept."""
    return base.with_suffix(".log")


def beginning(header: BaseHeader, *, empty: bool) -> Tail:
    """Return the tail of a log that has no lines yet."""
    return Tail(header.head, header.operation, empty, header.sha256)


def pack_line(tail: Tail, json: bytes) -> bytes:
    """Return the line with this JSON after `tail`."""
    return b"".join((_digest(tail.digest, json).encode(), b" ", json, b"\n"))


def pack_json(step: Step) -> bytes:
    """Return the JSON of a step."""
    documents = [
        (*name, stored.revision, stored.json.decode("utf-8", "replace")) if stored is not None else (*name, 0, None)
        for name, stored in step.changed.items()
    ]
    said = {
        "epoch": step.head.epoch,
        "revision": step.head.revision,
        "operation": step.operation_id,
        "total": step.total,
        "documents": documents,
    }
    return msgspec.json.encode(said)


def intact_lines(content: bytes, tail: Tail) -> Iterator[Line]:
    """Yield the lines of `content`, which follows on `tail`, up to the first that is not intact."""
    offset = tail.end
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        json = content[start + _DIGEST_BYTES + 1 : end]
        digest = _digest(tail.digest, json)
        if content[start : start + _DIGEST_BYTES + 1] != digest.encode() + b" ":
            return
        try:
            said = _decode_said(json)
        except msgspec.DecodeError:
            return
        tail = Tail(
            head=Head(said.epoch, said.revision),
            operation_id=said.operation,
            empty=said.total == 0,
            digest=digest,
            last=offset + start,
            end=offset + end + 1,
            lines=tail.lines + 1,
        )
        yield Line(json, tail)
        start = end + 1


def apply_lines(saved: Saved, lines: Iterable[Line]) -> Saved:
    """Return the rules that lines lead to from `saved`."""
    documents = dict(saved.documents)
    head, operation_id = saved.head, saved.operation_id
    for line in lines:
        for kind, name, revision, json in _decode_documents(line.json).documents:
            _set(documents, (kind, name), StoredDocument(revision, json.encode()) if json is not None else None)
        head, operation_id = line.tail.head, line.tail.operation_id
    return Saved(head, operation_id, documents)


def leads_on(step: Step, tail: Tail) -> bool:
    """Tell whether a step may be written after `tail`."""
    if step.since is None:
        return False
    if tail.head == step.since:
        return True
    if step.exact or not tail.head.epoch == step.since.epoch == step.head.epoch:
        return False
    return step.since.revision <= tail.head.revision < step.head.revision


def is_reached(step: Step, tail: Tail) -> bool:
    """Tell whether the rules at `tail` are those that a step leads to, or newer ones.

    Of two lives of the store the one with the higher revision is the later; only of nothing can nothing be lost.
    """
    if tail.head.epoch == step.head.epoch:
        return tail.head.revision >= step.head.revision
    return tail.head.revision >= step.head.revision and not tail.empty and tail.head != step.since


def _set(documents: dict[DocumentName, StoredDocument], name: DocumentName, stored: StoredDocument | None) -> None:
    if stored is None:
        documents.pop(name, None)
    else:
        documents[name] = stored


def _digest(before: str, json: bytes) -> str:
    digest = hashlib.sha256(f"{before}\n".encode())
    digest.update(json)
    return digest.hexdigest()
