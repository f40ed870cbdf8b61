"""The rules in Redis or Valkey: `RulesStore` over a few keys that share one hash tag.

    {pm}:head             hash    epoch, revision
    {pm}:routes           hash    model → "<revision> <canonical JSON>"
    {pm}:cohorts          hash    name → likewise
    {pm}:versions         hash    model/version → likewise
    {pm}:changes          stream  one entry per revision, with id <revision>-0
    {pm}:ops:<operation>  string  the revision that the operation made; expires after a day
    {pm}:acks             hash    worker → "<server's ms> <JSON>"
    {pm}:notice           channel the revision just made; a hint only, the poll of the head carries the promise

Belongs here: keys, scripts, and their replies as the types of `ports`. Never here: times, ids of operations, or
whether a change makes sense. A change costs the same with 10 000 models as with one; only `load` and `read_all`
look at every document.
"""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.errors import DocumentNotFound, InvalidDocument, RevisionConflict, RulesUnavailable
from gateway.ports import (
    Acknowledgement,
    ChangeSet,
    DocumentChange,
    Head,
    Kind,
    Revision,
    RulesState,
    StoredDocument,
)
from gateway.stores.redis_link import TIMEOUT_SECONDS, RedisLink, text

HISTORY_KEPT = 100_000
"""Revisions that stay in Redis: about 150 MB of ordinary routes. A worker further behind loads everything."""

_HEAD: Final = "{pm}:head"
_HASHES: Final[Mapping[Kind, str]] = {"route": "{pm}:routes", "cohort": "{pm}:cohorts", "version": "{pm}:versions"}
_CHANGES: Final = "{pm}:changes"
_OPERATION: Final = "{pm}:ops:"
_ACKS: Final = "{pm}:acks"
_NOTICE: Final = "{pm}:notice"
_REMEMBER_SECONDS = 86_400
_FORGET_WORKER_MS = 600_000
# How much is asked for in one reply: well below a millisecond of the server's time for ordinary documents, and
# bounded for cohorts, which may have megabytes each.
_PAGES: Final[Mapping[Kind, int]] = {"route": 1000, "cohort": 20, "version": 1000}
_HISTORY_PAGE = 100
_LOAD_ATTEMPTS = 5
_CONNECTIONS = 16
_BULK = 5.0  # times the time-out of a small call


def _script(name: str) -> str:
    return files("gateway.stores").joinpath(name).read_text(encoding="utf-8")


_APPLY = _script("apply.lua")
_INITIALISE = _script("initialise.lua")
_ACKNOWLEDGE = _script("acknowledge.lua")


class _StoredChange(Struct):
    """A `DocumentChange` as the script writes it into history."""

    kind: Kind
    name: str
    before: str | None = None
    after: str | None = None


class _Said(Struct):
    """An `Acknowledgement` as the worker writes it."""

    epoch: str
    revision: int
    problems: dict[str, str]


_changes = msgspec.json.Decoder(list[_StoredChange])
_said = msgspec.json.Decoder(_Said)


class RedisRules:
    """`RulesStore` on one server. The head is asked for on a connection of its own, so no big reply delays it."""

    def __init__(self, url: str, *, history_kept: int = HISTORY_KEPT, timeout_s: float = TIMEOUT_SECONDS) -> None:
        """`url` is redis://, rediss:// or unix://. Raises `SettingsError` when it cannot be used."""
        self._link = RedisLink(url, _CONNECTIONS, timeout_s)
        self._head_link = RedisLink(url, 1, timeout_s)
        self._history_kept = history_kept

    # ── what a worker needs ──────────────────────────────────────────────────────────────────────────────────────

    async def head(self) -> Head | None:
        """Return the present head, or None when the store has none."""
        async with self._head_link.calling() as client:
            epoch, revision = await client.hmget(_HEAD, ["epoch", "revision"])
        return _head(epoch, revision)

    async def load(self) -> RulesState:
        """Return every document as of one head.

        The hashes are read in pages while changes go on, so what is read may be a mixture of revisions; the history
        since the first head is then applied on top, which makes it exact. Nothing blocks the server, and no number
        of writers can make it start again for ever.
        """
        for _ in range(_LOAD_ATTEMPTS):
            before = await self._present_head()
            documents = {
                (kind, name): stored for kind in _HASHES for name, stored in (await self.read_all(kind)).items()
            }
            after = await self._present_head()
            if after.epoch != before.epoch or after.revision < before.revision:
                continue
            revisions = await self.revisions(before.revision, after.revision)
            if revisions is None:
                continue
            for revision in revisions:
                _replay(revision, documents)
            return RulesState(after, documents)
        raise RulesUnavailable(f"the rules store at {self._link.where} changes its history while it is read; try again")

    async def revisions(self, after: int, upto: int) -> Sequence[Revision] | None:
        """Return the revisions after+1 … upto in order, or None when the store no longer has all of them."""
        found: list[Revision] = []
        while after < upto:
            last = min(after + _HISTORY_PAGE, upto)
            async with self._link.calling(_BULK) as client:
                entries = await client.xrange(_CHANGES, f"{after + 1}-0", f"{last}-0")
            try:
                page = [_revision(identity, fields) for identity, fields in entries]
            except (KeyError, ValueError, msgspec.DecodeError):
                return None
            if [revision.revision for revision in page] != list(range(after + 1, last + 1)):
                return None
            found += page
            after = last
        return found

    async def acknowledge(self, acknowledgement: Acknowledgement) -> None:
        """Note what a worker has, stamped with the server's clock."""
        head = acknowledgement.head
        said = msgspec.json.encode(_Said(head.epoch, head.revision, dict(acknowledgement.problems)))
        await self._run(_ACKNOWLEDGE, [_ACKS], acknowledgement.worker, said, _FORGET_WORKER_MS)

    async def withdraw(self, worker: str) -> None:
        """Take a worker off the list."""
        async with self._link.calling() as client:
            await client.hdel(_ACKS, worker)

    async def close(self) -> None:
        """Close the connections."""
        await self._link.close()
        await self._head_link.close()

    # ── what the control plane needs besides ─────────────────────────────────────────────────────────────────────

    async def initialise(self) -> Head:
        """Return the head, beginning a new epoch at revision 0 in an empty store."""
        keys = [_HEAD, *_HASHES.values(), _CHANGES]
        reply = await self._run(_INITIALISE, keys, secrets.token_hex(8))
        head = _head(*reply) if reply else None
        if head is None:
            raise self._headless()
        return head

    async def read(self, kind: Kind, name: str) -> StoredDocument | None:
        """Return one document, or None."""
        async with self._link.calling() as client:
            value = await client.hget(_HASHES[kind], name)
        return _stored(value) if value is not None else None

    async def read_all(self, kind: Kind, prefix: str = "") -> Mapping[str, StoredDocument]:
        """Return the documents of a kind by name, in no order; `prefix` narrows it to names that begin so."""
        return {name: stored async for name, stored in self._scan(kind, prefix)}

    async def _scan(self, kind: Kind, prefix: str) -> AsyncIterator[tuple[str, StoredDocument]]:
        cursor, pattern = 0, f"{prefix}*" if prefix else None
        while True:
            async with self._link.calling(_BULK) as client:
                cursor, page = await client.hscan(_HASHES[kind], cursor, pattern, _PAGES[kind])
            for name, value in page.items():
                yield text(name), _stored(value)
            if not cursor:
                return

    async def applied(self, operation_id: str) -> int | None:
        """Return the revision that an operation made within the last day, or None."""
        async with self._link.calling() as client:
            value = await client.get(_OPERATION + operation_id)
        return int(value) if value is not None else None

    async def apply(self, change: ChangeSet) -> int:
        """Make a change, all or nothing, in one script."""
        _check(change)
        keys = [_HEAD, *_HASHES.values(), _CHANGES, _OPERATION + change.operation_id]
        reply = await self._run(_APPLY, keys, *_arguments(change, self._history_kept))
        match [text(part) for part in reply]:
            case ["done", revision]:
                return int(revision)
            case ["head", revision]:
                raise RevisionConflict(
                    f"the rules are at revision {revision}, not {change.expect_head}; read again and retry",
                    int(revision),
                )
            case ["missing", kind, name]:
                raise DocumentNotFound(f"{kind} {name} does not exist")
            case ["conflict", kind, name, revision]:
                raise RevisionConflict(_conflict(kind, name, int(revision)), int(revision))
            case _:
                raise self._headless()

    async def acknowledgements(self) -> Sequence[Acknowledgement]:
        """Return what every worker said last, by the server's clock."""
        async with self._link.calling() as client, client.pipeline(transaction=True) as pipeline:
            pipeline.time()
            pipeline.hgetall(_ACKS)
            (seconds, microseconds), said = await pipeline.execute()
        now = seconds * 1000 + microseconds // 1000
        read = (_acknowledgement(text(worker), value, now) for worker, value in sorted(said.items()))
        return [acknowledgement for acknowledgement in read if acknowledgement is not None]

    # ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _present_head(self) -> Head:
        head = await self.head()
        if head is None:
            raise RulesUnavailable(f"the rules store at {self._link.where} has no rules yet")
        return head

    async def _run(self, script: str, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        # The script goes along each time: it is small, and no cache of scripts can have lost it after a restart.
        async with self._link.calling() as client:
            return await client.eval(script, len(keys), *keys, *arguments)

    def _headless(self) -> RulesUnavailable:
        return RulesUnavailable(
            f"the rules store at {self._link.where} has lost its head ({_HEAD}), so nobody can say what revision its "
            "rules are of; restore Redis from its backup, or empty it and publish the rules again"
        )


def _check(change: ChangeSet) -> None:
    names = [(write.kind, write.name) for write in change.writes]
    if not names:
        raise InvalidDocument("", "a change needs at least one document")
    if len(set(names)) != len(names):
        raise InvalidDocument("", "a document stands twice in one change")


def _arguments(change: ChangeSet, history_kept: int) -> list[str | bytes | int]:
    expected_head = "" if change.expect_head is None else change.expect_head
    arguments: list[str | bytes | int] = [change.operation_id, change.actor, change.comment, change.at_ns]
    arguments += [expected_head, history_kept, _REMEMBER_SECONDS, _NOTICE, len(change.requires)]
    for kind, name in change.requires:
        arguments += [kind, name]
    for write in change.writes:
        arguments += [write.kind, write.name, write.expect]
        arguments += ["delete", b""] if write.json is None else ["set", write.json]
    return arguments


def _conflict(kind: str, name: str, revision: int) -> str:
    if revision == 0:
        return f"{kind} {name} does not exist (any more); read again and retry"
    return f"{kind} {name} is at revision {revision} now; read it again and retry"


def _head(epoch: bytes | None, revision: bytes | None) -> Head | None:
    if epoch is None or revision is None or not revision.isdigit():
        return None
    return Head(text(epoch), int(revision))


def _stored(value: bytes) -> StoredDocument:
    revision, _, json = value.partition(b" ")
    return StoredDocument(int(revision) if revision.isdigit() else 0, json)


def _revision(identity: bytes, fields: Mapping[bytes, bytes]) -> Revision:
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
    )


def _encoded(document: str | None) -> bytes | None:
    return document.encode() if document is not None else None


def _replay(revision: Revision, documents: dict[tuple[Kind, str], StoredDocument]) -> None:
    for change in revision.changes:
        if change.after is None:
            documents.pop((change.kind, change.name), None)
        else:
            documents[change.kind, change.name] = StoredDocument(revision.revision, change.after)


def _acknowledgement(worker: str, value: bytes, now_ms: int) -> Acknowledgement | None:
    """Return what a worker said, or None for something that no worker of this kind has written."""
    said_ms, _, json = value.partition(b" ")
    try:
        said = _said.decode(json)
    except msgspec.DecodeError:
        return None
    return Acknowledgement(worker, Head(said.epoch, said.revision), said.problems, max(0, now_ms - int(said_ms)))
