"""The forms in which Redis holds what `ports` names: documents, history, acknowledgements, unconfirmed changes.

Belongs here: bytes to types and back. Never here: a key or a connection. What no gateway has written is None or left
out, never an error: one bad field must not hide the others.
"""

from collections.abc import Collection, Mapping

import msgspec
from msgspec import Struct

from gateway.ports import (
    Acknowledgement,
    ChangeSet,
    DocumentChange,
    DocumentName,
    Head,
    Kind,
    Resettlement,
    Revision,
    StoredDocument,
    Unconfirmed,
)
from gateway.stores.redis_link import text

Arguments = list[str | bytes | int]
_BROKEN = (KeyError, ValueError, msgspec.DecodeError)


class _StoredChange(Struct):
    """A `DocumentChange` as the scripts write it into history."""

    kind: Kind
    name: str
    before: str | None = None
    after: str | None = None


class _Said(Struct):
    """An `Acknowledgement` as the worker writes it; one of another release may leave out all but the head."""

    epoch: str
    revision: int
    problems: dict[str, str] = {}
    since_ms: int = 0
    alarms: dict[str, str] = {}
    ready: bool = True


_changes = msgspec.json.Decoder(list[_StoredChange])
_said = msgspec.json.Decoder(_Said)
_names = msgspec.json.Decoder(tuple[tuple[Kind, str], ...])
_lives = msgspec.json.Decoder(list[tuple[str, int]])


# ── what is read ─────────────────────────────────────────────────────────────────────────────────────────────────


def head_of(epoch: bytes | None, revision: bytes | None) -> Head | None:
    """Return the head, None when it is not there or not to be understood."""
    if epoch is None or revision is None or not revision.isdigit():
        return None
    return Head(text(epoch), int(revision))


def stored_of(value: bytes) -> StoredDocument:
    """Return a document; revision 0 for a value that no change has written."""
    revision, _, json = value.partition(b" ")
    return StoredDocument(int(revision) if revision.isdigit() else 0, json)


def revision_of(identity: bytes, fields: Mapping[bytes, bytes]) -> Revision | None:
    """Return an entry of the history, or None for one that no change has written."""
    try:
        return Revision(
            revision=int(identity.partition(b"-")[0]),
            actor=text(fields[b"actor"]),
            comment=text(fields[b"comment"]),
            operation_id=text(fields[b"operation"]),
            at_ns=int(fields[b"at"]),
            changes=tuple(
                DocumentChange(change.kind, change.name, _encoded(change.before), _encoded(change.after))
                for change in _changes.decode(fields[b"changes"])
            ),
            preview=fields.get(b"preview"),
        )
    except _BROKEN:
        return None


def _encoded(document: str | None) -> bytes | None:
    return document.encode() if document is not None else None


def follows_of(value: bytes | None) -> Mapping[str, int]:
    """Return the earlier lives of the store; empty when there are none or the value is not to be understood."""
    try:
        return dict(_lives.decode(value or b"[]"))
    except msgspec.DecodeError:
        return {}


def acknowledgement_of(worker: str, value: bytes, now_ms: int) -> Acknowledgement | None:
    """Return what a worker said by the server's clock `now_ms`, or None for something that no worker has written."""
    said_ms, _, json = value.partition(b" ")
    try:
        said, age_ms = _said.decode(json), max(0, now_ms - int(said_ms))
    except _BROKEN:
        return None
    head = Head(said.epoch, said.revision)
    return Acknowledgement(worker, head, said.problems, age_ms, said.since_ms, said.alarms, said.ready)


def unconfirmed_of(revision: bytes, value: bytes, now_ms: int) -> Unconfirmed | None:
    """Return an unconfirmed revision by the server's clock `now_ms`, or None for what no change has written."""
    due_ms, _, json = value.partition(b" ")
    try:
        return Unconfirmed(int(revision), max(0, int(due_ms) - now_ms), _names.decode(json))
    except _BROKEN:
        return None


# ── what is written ──────────────────────────────────────────────────────────────────────────────────────────────


def said_by(acknowledgement: Acknowledgement) -> bytes:
    """Return what a worker says as it is stored; the server adds the time."""
    head, one = acknowledgement.head, acknowledgement
    said = _Said(head.epoch, head.revision, dict(one.problems), one.since_ms, dict(one.alarms), one.ready)
    return msgspec.json.encode(said)


def apply_arguments(change: ChangeSet, history_kept: int, remember_s: int, channel: str) -> Arguments:
    """Return the arguments of `apply.lua`."""
    floor = change.floor
    arguments: Arguments = [change.operation_id, change.actor, change.comment, change.at_ns, _or(change.expect_head)]
    arguments += [floor.epoch, floor.revision] if floor is not None else ["", ""]
    arguments += [_or(change.confirm_within_ms), _or(change.settles), change.preview or b""]
    arguments += [history_kept, remember_s, channel, *_counted(change.requires)]
    for write in change.writes:
        arguments += [write.kind, write.name, write.expect, *_outcome(write.json)]
    return arguments


def resettle_arguments(
    resettlement: Resettlement, history_kept: int, remember_s: int, channel: str, lives_kept: int
) -> Arguments:
    """Return the arguments of `resettle.lua`."""
    one, seen = resettlement, resettlement.seen
    arguments: Arguments = [one.operation_id, one.actor, one.comment, one.at_ns, one.epoch]
    arguments += [seen.epoch, seen.revision] if seen is not None else ["", ""]
    arguments += [one.beyond, history_kept, remember_s, channel, lives_kept, *_counted(one.follows.items())]
    for write in one.writes:
        arguments += [write.kind, write.name, *_outcome(write.json)]
    return arguments


def _or(number: int | None) -> str | int:
    return "" if number is None else number


def _counted(pairs: Collection[DocumentName] | Collection[tuple[str, int]]) -> Arguments:
    flat: Arguments = [len(pairs)]
    for pair in pairs:
        flat += pair
    return flat


def _outcome(json: bytes | None) -> Arguments:
    return ["delete", b""] if json is None else ["set", json]
