"""Which documents bring a route back as it was: for a rollback, and for taking back what nobody confirmed.

Belongs here: choosing documents of the past. Never here: making the change, or reading the archive itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Literal

from msgspec import Struct

from gateway.controlplane.checking import pinning
from gateway.controlplane.documents import is_text, parsed, shown
from gateway.controlplane.past import Past
from gateway.controlplane.pending import read_documents
from gateway.controlplane.proposal import Proposed
from gateway.errors import CohortInUse, DocumentNotFound
from gateway.ports import DocumentName, Revision, RulesStore, StoredDocument, Unconfirmed
from routing import parse_route

RevisionOf = Callable[[int], Awaitable[Revision | None]]
Cohorts = Literal["restore", "keep"]


class Wanted(Struct, frozen=True):
    """Which rollback: of the route of `model` to revision `to` (None: before its last change).

    `cohorts` says what happens to cohorts that other models' routes pin, too; `expect` is the revision that the route
    has now, if the caller says.
    """

    model: str
    to: int | None = None
    cohorts: Cohorts | None = None
    expect: int | None = None


class Restored(Struct, frozen=True):
    """The documents that bring a route back, and the unconfirmed revision that is settled by doing so."""

    proposed: tuple[Proposed, ...]
    settles: int | None = None


def undone(revision: Revision, documents: Collection[DocumentName]) -> tuple[Proposed, ...]:
    """Return what takes those documents of a revision back to what they were before it.

    Versions and cohorts that it made stay, as others may name them by now; a route that it made goes.
    """
    return tuple(
        Proposed(change.kind, change.name, change.before, revision.revision if change.after is not None else 0)
        for change in revision.changes
        if (change.kind, change.name) in documents
        and change.before != change.after
        and (change.before is not None or change.kind == "route")
    )


async def unconfirmed_revision(store: RulesStore, look_up: RevisionOf, number: int) -> Revision:
    """Return a revision that waits to be confirmed: from the store, whose word counts, else from the archive.

    Raises:
        DocumentNotFound: neither has it (any more).
    """
    found = await store.revisions(number - 1, number)
    revision = found[0] if found else await look_up(number)
    if revision is None:
        raise DocumentNotFound(f"revision {number} is in no history any more, so what was before it is not known")
    return revision


class Restoring:
    """Finds the documents that a rollback brings back. Raises `RulesUnavailable` and `AuditUnavailable`."""

    def __init__(self, store: RulesStore, past: Past) -> None:
        self._store = store
        self._past = past

    async def documents(self, wanted: Wanted) -> Restored:
        """Return what brings a route back.

        With the route come the cohorts that it pinned, as they were then. An unconfirmed change of the route is taken
        back whole on the way.

        Raises:
            DocumentNotFound: the route did not exist then, or has never been otherwise.
            CohortInUse: such a cohort is pinned by other models' routes, too, and `wanted` does not say what to do.
        """
        model, to = wanted.model, wanted.to
        route: DocumentName = ("route", model)
        present = await self._store.read(*route) if is_text(model) else None
        waiting = next((one for one in await self._store.unconfirmed() if route in one.documents), None)
        undo = await self._undo(waiting) if waiting is not None and (to is None or to < waiting.revision) else ()
        settles = waiting.revision if waiting is not None and undo else None
        if to is None and undo:
            return Restored(tuple(_expecting(one, route, wanted.expect) for one in undo), settles)
        number = to if to is not None else await self._before(model, present)
        then = (await self._past.documents_at(number, [route])).get(route)
        if then is None:
            raise DocumentNotFound(f"there was no {_route_of(model)} at revision {number}")
        now = present.revision if present is not None else 0
        back = [Proposed(*route, then.json, wanted.expect if wanted.expect is not None else now)]
        back += await self._cohorts(wanted, then, number)
        named = {one.document for one in back}
        return Restored((*back, *(one for one in undo if one.document not in named)), settles)

    async def _undo(self, waiting: Unconfirmed) -> tuple[Proposed, ...]:
        revision = await unconfirmed_revision(self._store, self._past.revision, waiting.revision)
        return undone(revision, waiting.documents)

    async def _before(self, model: str, present: StoredDocument | None) -> int:
        """Return the newest revision at which the route was otherwise than it is now."""
        if present is None:
            raise DocumentNotFound(f"there is no {_route_of(model)}; say which revision of it is to come back")
        route: DocumentName = ("route", model)
        number = present.revision
        # A route that was written again as it was, when the rules were resettled, was no other before that.
        while made := await self._past.history(None, number, 1):
            earlier = (await self._past.documents_at(made[0].revision, [route])).get(route)
            if earlier is None:
                break
            if earlier.json != present.json:
                return made[0].revision
            number = earlier.revision
        raise DocumentNotFound(
            f"the {_route_of(model)} has never been otherwise than it is now, at revision {present.revision}"
        )

    async def _cohorts(self, wanted: Wanted, route: StoredDocument, number: int) -> Sequence[Proposed]:
        """Return the cohorts of a route that are to be as they were at a revision, and are not."""
        names: list[DocumentName] = sorted({("cohort", pin.cohort) for pin in parsed(parse_route, route.json).pins})
        if not names:
            return []
        then, now = await self._past.documents_at(number, names), await read_documents(self._store, names)
        differing = [name for name in names if name in then and (name not in now or now[name].json != then[name].json)]
        shared = frozenset(name for _, name in differing if ("cohort", name) in now)
        if shared and wanted.cohorts is None:
            await self._refuse_shared(wanted.model, number, shared)
        return [
            Proposed(*name, then[name].json, now[name].revision if name in now else 0)
            for name in differing
            if name not in now or wanted.cohorts != "keep"
        ]

    async def _refuse_shared(self, model: str, number: int, differing: frozenset[str]) -> None:
        routes = {name: stored.json for name, stored in (await self._store.read_all("route")).items() if name != model}
        users = await asyncio.to_thread(pinning, routes, differing)
        if users:
            pinned = "; ".join(f"{cohort} by the route of {', '.join(models)}" for cohort, models in users.items())
            raise CohortInUse(
                f"cohorts: since revision {number} a cohort has changed that other models' routes pin, too ({pinned}); "
                "say whether to restore it for all of them (--cohorts restore) or to keep it as it is (--cohorts keep)"
            )


def _expecting(one: Proposed, route: DocumentName, expect: int | None) -> Proposed:
    """Return a proposal with the revision that the caller has seen, if it is the route and the caller said so."""
    if one.document != route or expect is None:
        return one
    return Proposed(one.kind, one.name, one.json, expect)


def _route_of(model: str) -> str:
    return f"route of model {shown(model)}"
