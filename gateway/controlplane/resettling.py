"""The operator's word on which rules are right, after the store lost some: republish the last good, or accept its own.

Belongs here: what a new life of the store begins with. Never here: finding out that the store is in doubt.

Every document that differs from what was in force gets the new revision, also where the store has the right one
already: the numbers between the two lives mean one thing to the one and another thing to the other.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Literal, get_args

from msgspec import Struct

from gateway.controlplane.convergence import DocumentOutcome, Published
from gateway.controlplane.operations import made_outcome
from gateway.controlplane.pending import Pending
from gateway.controlplane.proposal import Proposed
from gateway.controlplane.publishing import Publisher
from gateway.controlplane.storewatch import StoreWatch
from gateway.controlplane.terms import Origin, check_origin
from gateway.errors import AuditUnavailable, DocumentNotFound, RevisionConflict, RulesUnavailable
from gateway.logs import logger
from gateway.ports import (
    DocumentName,
    Head,
    Kind,
    Resettlement,
    RevisionArchive,
    RulesStore,
    StoredDocument,
    Write,
)
from gateway.snapshot import Saved

_ATTEMPTS = 3
_Verb = Literal["republish", "accept"]
_Documents = Mapping[DocumentName, StoredDocument]


class Resettled(Struct, frozen=True):
    """What an operator's word came to: the head of the new life, and where it is in force; None after a dry run.

    `changes` are the documents that become others by it: of the store for `republish`, of the rules in force for
    `accept` (none are listed where no last good rules tell what is in force).
    """

    head: Head | None
    changes: tuple[DocumentOutcome, ...]
    published: Published | None


class Resettling:
    """Puts an end to a doubt about the store. Every method raises `RulesUnavailable` when it does not answer."""

    def __init__(self, store: RulesStore, archive: RevisionArchive, watch: StoreWatch, publisher: Publisher) -> None:
        self._store = store
        self._archive = archive
        self._watch = watch
        self._publisher = publisher

    async def republish(self, origin: Origin, *, dry_run: bool) -> Resettled:
        """Give the store the last good rules of this gateway.

        Raises:
            RevisionConflict: the store is not in doubt (any more).
            DocumentNotFound: this gateway has no last good rules.
            InvalidDocument: the origin does not fit.
        """
        return await self._resettle("republish", origin, dry_run)

    async def accept(self, origin: Origin, *, dry_run: bool) -> Resettled:
        """Take the documents of the store as they are. Raises what `republish` does, but for `DocumentNotFound`."""
        return await self._resettle("accept", origin, dry_run)

    async def _resettle(self, verb: _Verb, origin: Origin, dry_run: bool) -> Resettled:
        check_origin(origin)
        operation_id = f"{verb}-{origin.operation_id}"
        if not dry_run and (number := await self._store.applied(operation_id)) is not None:
            return await self._repeated(number)
        for _ in range(_ATTEMPTS):
            seen = await self._store.head()
            await self._refuse_certain()
            saved = await self._watch.last_good()
            if saved is None and verb == "republish":
                raise DocumentNotFound(
                    "this gateway has no last good rules that are intact; republish through another gateway, or take "
                    "the store's with `pointsman rules accept`"
                )
            if saved is not None and saved.head.revision < (last := await self._watch.last_revision()):
                logger().warning("last_good_rules_older", revision=saved.head.revision, in_force=last)
            writes, changes = _difference(verb, saved, await self._present())
            if dry_run:
                return Resettled(None, changes, None)
            resettlement = await self._resettlement(operation_id, origin, seen, saved, writes)
            try:
                head = await self._store.resettle(resettlement)
            except RevisionConflict:
                continue  # somebody else has written to it, or decided
            self._watch.resettled(head, operation_id)
            logger().warning("rules_resettled", verb=verb, epoch=head.epoch, revision=head.revision, actor=origin.actor)
            return await self._answer(head, changes)
        raise RevisionConflict("the rules store changes while it is resettled; try again", seen.revision if seen else 0)

    async def _repeated(self, number: int) -> Resettled:
        revisions = await self._store.revisions(number - 1, number)
        changes = tuple(made_outcome(change) for change in revisions[0].changes) if revisions else ()
        await self._watch.look()
        head = await self._store.head()
        return await self._answer(
            Head(head.epoch if head else "", number), tuple(one for one in changes if one.outcome != "unchanged")
        )

    async def _answer(self, head: Head, changes: tuple[DocumentOutcome, ...]) -> Resettled:
        reach = await self._publisher.reach(head.revision, ())
        published = Published(head.revision, True, reach.everywhere, reach.acknowledged, reach.laggards, changes)
        return Resettled(head, changes, published)

    async def _refuse_certain(self) -> None:
        await self._watch.look()
        if self._watch.doubt is None:
            if troubles := self._watch.troubles():
                raise RulesUnavailable(troubles[0])
            known = self._watch.known
            current = known.revision if known is not None else 0
            raise RevisionConflict(
                f"the rules store is not in doubt: its rules, at revision {current}, follow those in force, so there "
                "is nothing to decide; change them with `pointsman routes`",
                current,
            )

    async def _present(self) -> _Documents:
        kinds: tuple[Kind, ...] = get_args(Kind)
        return {(kind, name): stored for kind in kinds for name, stored in (await self._store.read_all(kind)).items()}

    async def _resettlement(
        self, operation_id: str, origin: Origin, seen: Head | None, saved: Saved | None, writes: tuple[Write, ...]
    ) -> Resettlement:
        """Return the resettlement: beyond every revision that is known, and followed by everybody who is known."""
        heads = [head for head in (seen, self._watch.known, saved.head if saved is not None else None) if head]
        heads += [said.head for said in await self._store.acknowledgements()]
        follows: dict[str, int] = {}
        for head in heads:
            follows[head.epoch] = max(head.revision, follows.get(head.epoch, 0))
        beyond = max([await self._watch.last_revision(), await self._archived(), *follows.values()])
        return Resettlement(
            operation_id=operation_id,
            actor=origin.actor,
            comment=origin.comment,
            at_ns=time.time_ns(),
            epoch=secrets.token_hex(8),
            seen=seen,
            beyond=beyond,
            follows=follows,
            writes=writes,
        )

    async def _archived(self) -> int:
        try:
            kept = await asyncio.to_thread(self._archive.kept)
        except AuditUnavailable as error:
            logger().warning("archive_not_asked", why=error.message)
            return 0
        return kept.revision if kept is not None else 0


def _difference(
    verb: _Verb, saved: Saved | None, present: _Documents
) -> tuple[tuple[Write, ...], tuple[DocumentOutcome, ...]]:
    """Return what is to be written to the store, and which documents become others by that."""
    in_force: _Documents = saved.documents if saved is not None else {}
    old, new = (present, in_force) if verb == "republish" else (in_force, present)
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    # `expect` does not count; the store's head is what is compared.
    writes = tuple(Write(*name, new[name].json if name in new else None, 0) for name in names)
    if saved is None:
        return writes, ()
    steps = (Pending(Proposed(*name, new[name].json if name in new else None), old.get(name)) for name in names)
    return writes, tuple(one.report() for one in steps if one.outcome != "unchanged")
