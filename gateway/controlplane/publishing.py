"""Making a change of one or many documents: all of it or none, once, and answering where it is in force.

Belongs here: the order of what every change goes through, sending again, being overtaken. Never here: what makes a
document legal (`checking`), or which documents a change is made of.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from gateway.controlplane.checking import Checks, Inspect, Needs
from gateway.controlplane.convergence import Published, Reach, converge
from gateway.controlplane.documents import NAMES
from gateway.controlplane.operations import Made, Operations
from gateway.controlplane.pending import Pending, at_fault, named_at_fault, read_documents
from gateway.controlplane.previewing import ChangePreview
from gateway.controlplane.proposal import Proposed, Terms
from gateway.controlplane.storewatch import StoreWatch
from gateway.controlplane.terms import Origin, check_origin, check_terms
from gateway.errors import (
    AuditUnavailable,
    ChangeError,
    DocumentNotFound,
    RevisionConflict,
    RulesInDoubt,
    RulesUnavailable,
    TooManyMoves,
    UnconfirmedChange,
)
from gateway.logs import logger
from gateway.ports import ChangeSet, DocumentName, Head, RulesStore

ATTEMPTS = 8
"""Tries of a change that others overtake while it is being checked."""

Foresee = Callable[[Sequence[Proposed]], Awaitable[ChangePreview]]
"""Works out who would move. Raises `AuditUnavailable` when recorded requests cannot be read."""


class Licence(Struct, frozen=True):
    """What a change may do that others may not.

    `unseen_if_same`: a document that is as proposed already needs no expected revision. `allow_incomplete`: versions
    may lack their metadata contract. `settles`: the unconfirmed revision whose documents it may overwrite. `trusted`:
    the documents were in force before, so the disk is not looked at.
    """

    unseen_if_same: bool = False
    allow_incomplete: bool = False
    settles: int | None = None
    trusted: bool = False


NO_LICENCE: Final = Licence()


class Publisher:
    """Makes changes, and answers when every live worker has them in force, or after `wait_s` with the laggards."""

    def __init__(self, store: RulesStore, watch: StoreWatch, inspect: Inspect, foresee: Foresee, wait_s: float) -> None:
        """`inspect` prepares a version for a moment and raises `ArtifactError` for one that cannot run."""
        self._store = store
        self._watch = watch
        self._inspect = inspect
        self._foresee = foresee
        self._wait_s = wait_s
        self._operations = Operations(store)

    async def publish(
        self, proposed: Sequence[Proposed], origin: Origin, terms: Terms, licence: Licence = NO_LICENCE
    ) -> Published:
        """Make the change and wait for the workers. Raises what `make` does."""
        return await self.published(await self.make(proposed, origin, terms, licence), terms)

    async def published(self, made: Made, terms: Terms) -> Published:
        """Wait until a change is in force, and say where."""
        reach = Reach((), {}) if terms.dry_run else await self.reach(made.revision, made.models)
        return Published(
            revision=made.revision,
            changed=made.changed,
            in_force=reach.everywhere,
            acknowledged=reach.acknowledged,
            laggards=reach.laggards,
            documents=made.documents,
            preview=made.preview,
            confirm_within_ms=terms.confirm_within_ms if made.changed else None,
            dry_run=terms.dry_run,
        )

    async def reach(self, revision: int, models: Collection[str]) -> Reach:
        """Wait until a revision of the store's present life is in force for these models, and say where."""
        known = self._watch.known
        return await converge(self._store, Head(known.epoch if known else "", revision), models, self._wait_s)

    async def make(
        self, proposed: Sequence[Proposed], origin: Origin, terms: Terms, licence: Licence = NO_LICENCE
    ) -> Made:
        """Make the change, without waiting for anybody, unless every document is as proposed already.

        Raises:
            RulesInDoubt, RulesUnavailable: the store takes no changes now.
            InvalidDocument: origin or terms do not fit, or the operation id was used for another change.
            RevisionRequired, RevisionConflict, DocumentNotFound: a document is not as its proposer thinks.
            UnconfirmedChange: an earlier change of a document waits to be confirmed.
            TooManyMoves, AuditUnavailable: more callers would move than allowed, or nobody can tell.
            ChangeError, ArtifactError: see `Checks.check`.
        """
        check_origin(origin)
        check_terms(terms)
        checks = Checks(self._store, self._inspect, allow_incomplete=licence.allow_incomplete, trusted=licence.trusted)
        for _ in range(ATTEMPTS):
            floor = await self._watch.floor()
            if not terms.dry_run and (made := await self._operations.made(proposed, origin)) is not None:
                return made
            try:
                return await self._attempt(proposed, origin, terms, licence, checks, floor)
            except _Overtaken:
                continue
            except RulesUnavailable:
                raise
            except ChangeError:
                # Its own twin, sent again by an impatient client, may have been first.
                if not terms.dry_run and (made := await self._operations.made(proposed, origin)) is not None:
                    return made
                # What is missing or older than expected may be so because the store has just lost rules.
                await self._watch.look()
                await self._watch.floor()
                raise
        raise RevisionConflict("the rules change faster than this change can be checked; try again", 0)

    async def _attempt(  # noqa: PLR0917 - one try of `make`, with all that it was given
        self,
        proposed: Sequence[Proposed],
        origin: Origin,
        terms: Terms,
        licence: Licence,
        checks: Checks,
        floor: Head,
    ) -> Made:
        present = await read_documents(self._store, [one.document for one in proposed])
        every = [Pending(one, present.get(one.document)) for one in proposed]
        alone = len(every) == 1
        for one in every:
            same = licence.unseen_if_same and one.outcome == "unchanged"
            with at_fault(one, alone=alone):
                one.check_expected(must_say=not (same or terms.dry_run))
        change = [one for one in every if one.outcome != "unchanged"]
        outcomes = tuple(one.report() for one in every)
        if not change:
            return Made(max((one.current for one in every), default=floor.revision), False, outcomes)
        await self._refuse_unconfirmed(change, licence.settles, alone=alone)
        needs = await checks.check(change, alone=alone)
        with named_at_fault(change[0].current if alone else None, ""):
            preview = await self._preview([one.proposed for one in change], terms)
        if terms.dry_run:
            return Made(floor.revision, True, outcomes, preview)
        revision = await self._apply(_change_set(change, needs, origin, terms, licence, floor, preview))
        self._watch.made(floor, revision, origin.operation_id)
        return Made(revision, True, outcomes, preview)

    async def _apply(self, change: ChangeSet) -> int:
        try:
            return await self._store.apply(change)
        except (RevisionConflict, DocumentNotFound):
            raise _Overtaken from None  # what was checked has changed; checking it again says what is wrong now
        except RulesInDoubt:
            # So it is, or it was resettled through another gateway; the floor of the next try says which.
            await self._watch.look()
            await self._watch.floor()
            raise _Overtaken from None

    async def _refuse_unconfirmed(self, change: Sequence[Pending], settles: int | None, *, alone: bool) -> None:
        held = {
            name: waiting
            for waiting in await self._store.unconfirmed()
            if waiting.revision != settles
            for name in waiting.documents
        }
        for one in change:
            if (waiting := held.get(one.proposed.document)) is not None:
                with at_fault(one, alone=alone):
                    raise UnconfirmedChange(
                        f"{NAMES[one.proposed.kind]} {one.proposed.name} was changed by revision {waiting.revision}, "
                        f"which is taken back in {waiting.remaining_ms / 1000:.0f} s unless it is confirmed; first "
                        f"{_settling(waiting.documents)}"
                    )

    async def _preview(self, change: Sequence[Proposed], terms: Terms) -> ChangePreview | None:
        if not terms.preview and terms.max_moves is None:
            return None
        try:
            preview = await self._foresee(change)
        except AuditUnavailable as error:
            if terms.max_moves is not None:
                raise
            logger().warning("preview_not_made", why=error.message)
            return None
        if terms.max_moves is not None and preview.callers_moved > terms.max_moves:
            seen = sum(one.sample.callers for one in preview.models)
            raise TooManyMoves(
                f"max_moves: {preview.callers_moved} of the {seen} callers seen lately would move to another version, "
                f"and {terms.max_moves} may; nothing is changed"
            )
        return preview


class _Overtaken(Exception):
    """The rules have changed between the check and the change."""


def _settling(documents: Sequence[DocumentName]) -> str:
    models = sorted(name for kind, name in documents if kind == "route")
    if not models:
        return "confirm it or wait until it is taken back"
    return f"`pointsman routes confirm {models[0]}`, or `pointsman routes rollback {models[0]}` to take it back now"


def _change_set(  # noqa: PLR0917 - the parts of one change, brought together
    change: Sequence[Pending],
    needs: Needs,
    origin: Origin,
    terms: Terms,
    licence: Licence,
    floor: Head,
    preview: ChangePreview | None,
) -> ChangeSet:
    return ChangeSet(
        operation_id=origin.operation_id,
        actor=origin.actor,
        comment=origin.comment,
        at_ns=time.time_ns(),
        writes=tuple(one.write() for one in change),
        requires=needs.requires,
        expect_head=needs.expect_head,
        floor=floor,
        confirm_within_ms=terms.confirm_within_ms,
        settles=licence.settles,
        preview=_kept(preview) if preview is not None else None,
    )


def _kept(preview: ChangePreview) -> bytes:
    """Return a preview as history keeps it: the figures, without the list of callers, which may be long."""
    models = tuple(
        msgspec.structs.replace(one, moved=(), moved_left_out=len(one.moved) + one.moved_left_out)
        for one in preview.models
    )
    return msgspec.json.encode(msgspec.structs.replace(preview, models=models))
