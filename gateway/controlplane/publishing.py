"""Making a change of one document: who may overwrite what, what was made already, and where it is in force.

Belongs here: compare and set, sending again, waiting for workers. Never here: what makes a document legal.
"""

import time
from collections.abc import Awaitable, Callable, Collection

from msgspec import Struct

from gateway.controlplane.convergence import Published, converge
from gateway.controlplane.lookups import NAMES, is_text
from gateway.errors import DocumentNotFound, InvalidDocument, RevisionConflict, RevisionRequired
from gateway.ports import ChangeSet, Kind, RulesStore, StoredDocument, Write

ATTEMPTS = 8
"""Tries of a change that others overtake while it is being checked."""
_LIMITS = {"actor": 256, "comment": 1024, "operation_id": 128}


class Origin(Struct, frozen=True):
    """Who makes a change, why, and the id under which a client may send it again without making it twice."""

    actor: str
    comment: str
    operation_id: str


class Put(Struct, frozen=True):
    """A document to be made or changed: what it must replace, what must exist with it, whose workers must take it."""

    kind: Kind
    name: str
    json: bytes
    expect: int | None
    requires: tuple[tuple[Kind, str], ...] = ()
    models: tuple[str, ...] = ()


Check = Callable[[StoredDocument | None], Awaitable[None]]
"""Looks at the document that is to be replaced and at what the new one needs, and raises a `GatewayError` or not."""


class Publisher:
    """Makes changes, and answers when every live worker has them in force, or after `wait_s` with the laggards."""

    def __init__(self, store: RulesStore, wait_s: float) -> None:
        self._store = store
        self._wait_s = wait_s

    async def put(self, put: Put, origin: Origin, check: Check | None = None) -> Published:
        """Make the change, unless the document is that already.

        Raises:
            RevisionRequired, RevisionConflict: `put.expect` is missing, or not what the document has now.
            InvalidDocument: the origin does not fit.
        """
        for _ in range(ATTEMPTS):
            if (made := await self.made_before(put.kind, put.name, put.json, origin)) is not None:
                return await self.published(made, True, put.models)
            present = await self._store.read(put.kind, put.name)
            try:
                check_expected(put.kind, put.name, present, put.expect)
                if present is not None and present.json == put.json:
                    return await self.published(present.revision, False, put.models)
                if check is not None:
                    await check(present)
                write = Write(put.kind, put.name, put.json, present.revision if present is not None else 0)
                revision = await self._store.apply(change_of(origin, write, put.requires))
            except DocumentNotFound:
                continue  # what it needs was deleted since it was checked; the check now says what
            except (RevisionConflict, RevisionRequired):
                # Its own twin, sent again by an impatient client, may have been first.
                if (made := await self.made_before(put.kind, put.name, put.json, origin)) is None:
                    raise
                revision = made
            return await self.published(revision, True, put.models)
        raise overtaken()

    async def made_before(self, kind: Kind, name: str, json: bytes | None, origin: Origin) -> int | None:
        """Return the revision that this very operation has made already, or None.

        Raises:
            InvalidDocument: the origin does not fit, or its operation made another change.
        """
        _check_origin(origin)
        number = await self._store.applied(origin.operation_id)
        if number is None:
            return None
        made = await self._store.revisions(number - 1, number)
        if made and (kind, name, json) not in {(c.kind, c.name, c.after) for c in made[0].changes}:
            raise InvalidDocument(
                "operation_id", f"it was used for another change, revision {number}; use a new one for each change"
            )
        return number

    async def published(self, revision: int, changed: bool, models: Collection[str]) -> Published:
        """Wait until a revision is in force for these models, and say where."""
        return await converge(self._store, revision, changed, models, self._wait_s)


def change_of(
    origin: Origin, write: Write, requires: tuple[tuple[Kind, str], ...] = (), expect_head: int | None = None
) -> ChangeSet:
    """Return the change of one document, at the time of now."""
    return ChangeSet(
        operation_id=origin.operation_id,
        actor=origin.actor,
        comment=origin.comment,
        at_ns=time.time_ns(),
        writes=(write,),
        requires=requires,
        expect_head=expect_head,
    )


def check_expected(kind: Kind, name: str, present: StoredDocument | None, expect: int | None) -> None:
    """Refuse to replace what the caller has not seen. Raises `RevisionRequired` or `RevisionConflict`."""
    current = present.revision if present is not None else 0
    what = f"{NAMES[kind]} {name}"
    if expect is None and present is not None:
        raise RevisionRequired(
            f"{what} exists, at revision {current}; say that this is the revision you change (If-Match)", current
        )
    if (expect or 0) != current:
        now = f"is at revision {current} now" if present is not None else "does not exist"
        raise RevisionConflict(f"{what} {now}, not at revision {expect}; read it again and retry", current)


def overtaken() -> RevisionConflict:
    """Return the error for a change that others overtook at every try."""
    return RevisionConflict("the rules change faster than this change can be checked; try again", 0)


def _check_origin(origin: Origin) -> None:
    for name, limit in _LIMITS.items():
        value = getattr(origin, name)
        if len(value) > limit or not is_text(value):
            raise InvalidDocument(name, f"expected text of at most {limit} characters")
    if not origin.operation_id:
        raise InvalidDocument("operation_id", "expected text of 1 to 128 characters")
