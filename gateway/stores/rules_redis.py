"""The rules in Redis or Valkey as the control plane changes them: `RulesStore`.

Belongs here: the scripts, and their replies in the words of `ports` and `errors`. Never here: times, ids of
operations, or whether a change makes sense; keys and reading (`rules_redis_source`). A change costs the same with
10 000 models as with one; only `load`, `read_all` and `resettle` look at every document.
"""

import secrets
from collections.abc import Sequence
from typing import Final

from gateway.errors import DocumentNotFound, InvalidDocument, RevisionConflict, RulesInDoubt, UnconfirmedChange
from gateway.ports import (
    Acknowledgement,
    ChangeSet,
    Head,
    Kind,
    Resettlement,
    Revision,
    StoredDocument,
    Unconfirmed,
    Write,
)
from gateway.stores.redis_link import TIMEOUT_SECONDS, text
from gateway.stores.rules_redis_forms import (
    acknowledgement_of,
    apply_arguments,
    head_of,
    resettle_arguments,
    revision_of,
    stored_of,
    unconfirmed_of,
)
from gateway.stores.rules_redis_source import (
    ACKS,
    BULK,
    CHANGES,
    HASHES,
    HEAD,
    HISTORY_PAGE,
    NOTICE,
    RedisSource,
    script,
)

HISTORY_KEPT = 100_000
"""Revisions that stay in Redis: about 150 MB of ordinary routes. A worker further behind loads everything."""

_UNCONFIRMED: Final = "{pm}:unconfirmed"
_HELD: Final = "{pm}:held"
_OPERATION: Final = "{pm}:ops:"
_KEYS: Final = (HEAD, *HASHES.values(), CHANGES, _UNCONFIRMED, _HELD)
_REMEMBER_SECONDS = 86_400
_LIVES_KEPT = 50
_DOCUMENTS_PER_TIMEOUT = 1000  # a script that writes so many documents may take one time-out longer

_RULES = script("rules.lua")
_APPLY = _RULES + script("apply.lua")
_CONFIRM = _RULES + script("confirm.lua")
_RESETTLE = _RULES + script("resettle.lua")
_INITIALISE = script("initialise.lua")


class RedisRules(RedisSource):
    """`RulesStore` on one server, or on whichever is the primary as the Sentinels tell."""

    def __init__(self, url: str, *, history_kept: int = HISTORY_KEPT, timeout_s: float = TIMEOUT_SECONDS) -> None:
        """`url` is in a form of `redis_url`. Raises `SettingsError` when it cannot be used."""
        super().__init__(url, timeout_s=timeout_s)
        self._history_kept = history_kept

    async def initialise(self) -> Head:
        """Return the head, beginning a new epoch at revision 0 in an empty store.

        Raises:
            RulesInDoubt: the store has rules but no head.
        """
        reply = await self._run(_INITIALISE, _KEYS, [secrets.token_hex(8)])
        head = head_of(*reply) if reply else None
        if head is None:
            raise RulesInDoubt(self._headless())
        return head

    async def read(self, kind: Kind, name: str) -> StoredDocument | None:
        """Return one document, or None."""
        async with self._link.calling() as client:
            value = await client.hget(HASHES[kind], name)
        return stored_of(value) if value is not None else None

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def applied(self, operation_id: str) -> int | None:
        """Return the revision that an operation made within the last day, or None."""
        async with self._link.calling() as client:
            value = await client.get(_OPERATION + operation_id)
        return int(value.partition(b" ")[0]) if value is not None else None

    async def apply(self, change: ChangeSet) -> int:
        """Make a change, all or nothing, in one script. Raises as `RulesStore.apply` says."""
        _check(change.writes)
        if not change.writes:
            raise InvalidDocument("", "a change needs at least one document")
        arguments = apply_arguments(change, self._history_kept, _REMEMBER_SECONDS, NOTICE)
        reply = await self._run(_APPLY, _keys(change.operation_id), arguments, _patience(change.writes))
        match [text(part) for part in reply]:
            case ["done", revision]:
                return int(revision)
            case [*obstacle]:
                raise self._obstacle(change, obstacle)

    def _obstacle(self, change: ChangeSet, reply: list[str]) -> Exception:
        match reply:
            case ["head", revision]:
                return RevisionConflict(
                    f"the rules are at revision {revision}, not {change.expect_head}; read again and retry",
                    int(revision),
                )
            case ["missing", kind, name]:
                return DocumentNotFound(f"{kind} {name} does not exist")
            case ["conflict", kind, name, revision]:
                return RevisionConflict(_conflict(kind, name, int(revision)), int(revision))
            case ["held", kind, name, revision]:
                return _held(kind, name, int(revision))
            case ["settled"]:
                return UnconfirmedChange(f"revision {change.settles} does not wait to be confirmed (any more)")
            case ["behind", epoch, revision]:
                return RulesInDoubt(self._behind(Head(epoch, int(revision)), change.floor))
            case _:
                return RulesInDoubt(f"{self._headless()}; {_DECIDE}")

    async def resettle(self, resettlement: Resettlement) -> Head:
        """Begin a new life of the store in one script. Raises `RevisionConflict` when its head is not `seen`."""
        _check(resettlement.writes)
        arguments = resettle_arguments(resettlement, self._history_kept, _REMEMBER_SECONDS, NOTICE, _LIVES_KEPT)
        keys, patience = _keys(resettlement.operation_id), BULK + _patience(resettlement.writes)
        outcome, epoch, revision = [text(part) for part in await self._run(_RESETTLE, keys, arguments, patience)]
        if outcome == "done":
            return Head(epoch, int(revision))
        found = f"is at revision {revision} of epoch {epoch}" if epoch else "has no head"
        raise RevisionConflict(f"the rules store {found} now; look again and decide again", int(revision or 0))

    # ── unconfirmed changes ──────────────────────────────────────────────────────────────────────────────────────

    async def unconfirmed(self) -> Sequence[Unconfirmed]:
        """Return every revision that waits to be confirmed, oldest first, by the server's clock."""
        now_ms, waiting = await self._timed(_UNCONFIRMED)
        read = (unconfirmed_of(revision, value, now_ms) for revision, value in waiting.items())
        return sorted((one for one in read if one is not None), key=lambda one: one.revision)

    async def confirm(self, revision: int) -> bool:
        """Let an unconfirmed revision stand; False when it is not unconfirmed (any more)."""
        return bool(await self._run(_CONFIRM, _KEYS, [revision]))

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def history(self, after: int, limit: int) -> Sequence[Revision]:
        """Return up to `limit` of the revisions that the store still has beyond `after`, oldest first."""
        found: list[Revision] = []
        while len(found) < limit:
            async with self._link.calling(BULK) as client:
                wanted = min(HISTORY_PAGE, limit - len(found))
                entries = await client.xrange(CHANGES, f"{after + 1}-0", "+", wanted)
            page = (revision_of(identity, fields) for identity, fields in entries)
            found += [revision for revision in page if revision is not None]
            if len(entries) < wanted:
                break
            after = int(entries[-1][0].partition(b"-")[0])
        return found

    async def acknowledgements(self) -> Sequence[Acknowledgement]:
        """Return what every worker said last, by the server's clock."""
        now_ms, said = await self._timed(ACKS)
        read = (acknowledgement_of(text(worker), value, now_ms) for worker, value in sorted(said.items()))
        return [acknowledgement for acknowledgement in read if acknowledgement is not None]

    async def _timed(self, key: str) -> tuple[int, dict[bytes, bytes]]:
        """Return the server's clock (Unix ms) and a whole hash, as of one moment."""
        async with self._link.calling() as client, client.pipeline(transaction=True) as pipeline:
            pipeline.time()
            pipeline.hgetall(key)
            (seconds, microseconds), found = await pipeline.execute()
        return seconds * 1000 + microseconds // 1000, found

    # ── words ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _headless(self) -> str:
        return (
            f"the rules store at {self._link.where} has lost its head ({HEAD}), so nobody can say what revision its "
            "rules are of"
        )

    def _behind(self, found: Head, known: Head | None) -> str:
        was = f"revision {known.revision} of epoch {known.epoch}" if known is not None else "another"
        return (
            f"the rules store at {self._link.where} is at revision {found.revision} of epoch {found.epoch}, but {was} "
            f"is known to have been in force: it lost changes or is another store; {_DECIDE}"
        )


_DECIDE = (
    "nothing is changed until an operator decides with `pointsman rules republish` (the last good rules of a gateway "
    "are right) or `pointsman rules accept` (those in the store are); `pointsman status` shows more"
)


def _keys(operation_id: str) -> list[str]:
    return [*_KEYS, _OPERATION + operation_id]


def _patience(writes: Sequence[Write]) -> float:
    return 1.0 + len(writes) // _DOCUMENTS_PER_TIMEOUT


def _check(writes: Sequence[Write]) -> None:
    if len({(write.kind, write.name) for write in writes}) != len(writes):
        raise InvalidDocument("", "a document stands twice in one change")


def _conflict(kind: str, name: str, revision: int) -> str:
    if revision == 0:
        return f"{kind} {name} does not exist (any more); read again and retry"
    return f"{kind} {name} is at revision {revision} now; read it again and retry"


def _held(kind: str, name: str, revision: int) -> UnconfirmedChange:
    error = UnconfirmedChange(
        f"{kind} {name} was changed by revision {revision}, which waits to be confirmed; "
        "first confirm that revision or roll it back"
    )
    error.current = revision
    return error
