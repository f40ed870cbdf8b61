"""What the rules were: every revision ever made, and the documents as they stood at one.

Belongs here: asking the archive, and for what it has not got yet, the store. Never here: decisions, or changes.

An answer is exact or there is none: where the archive lacks a stretch, that is said rather than guessed over.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from msgspec import Struct

from gateway.controlplane.archiving import Archivist
from gateway.controlplane.documents import NAMES, is_text, pinned_by, route_rules, shown
from gateway.errors import AuditUnavailable, DocumentNotFound, InvalidDocument, RulesUnavailable
from gateway.ports import DocumentName, Head, Kind, Revision, RevisionArchive, RulesStore, StoredDocument
from routing import RouteRules

RulesName = tuple[str, int, int | None]
"""A model, the revision of its route, and that of the cohorts that it pins (None: that of the route, too)."""


class StoredRules(Struct, frozen=True):
    """One model's route with the cohorts that it pins, as they are stored."""

    route: StoredDocument
    cohorts: Mapping[str, StoredDocument]

    @property
    def cohort_revision(self) -> int | None:
        """The newest revision among the cohorts; None when it pins none."""
        return max((stored.revision for stored in self.cohorts.values()), default=None)

    def parsed(self) -> RouteRules:
        """Return them as decisions need them. Raises `InvalidDocument`."""
        return route_rules(self.route.json, {name: stored.json for name, stored in self.cohorts.items()})


class Past:
    """Looks back. Every method raises `AuditUnavailable` when the archive fails; most do without the store.

    Without an archivist the archive has to do as it is: that of another process, which keeps it.
    """

    def __init__(self, store: RulesStore, archive: RevisionArchive, archivist: Archivist | None) -> None:
        self._store = store
        self._archive = archive
        self._archivist = archivist

    async def revision(self, number: int) -> Revision | None:
        """Return one change of the rules, or None when there is none of that number that anybody still knows."""
        if number < 1:
            return None
        try:
            if (found := await asyncio.to_thread(self._archive.revision, number)) is not None:
                return found
            await self._bring_up()
            return await asyncio.to_thread(self._archive.revision, number)
        except AuditUnavailable:
            revisions = await self._store.revisions(number - 1, number)
            if not revisions:
                raise
            return revisions[0]

    async def history(
        self, documents: Collection[DocumentName] | None, before: int | None, limit: int
    ) -> Sequence[Revision]:
        """Return up to `limit` revisions below `before` that changed one of `documents` (None: any), newest first."""
        await self._bring_up()
        return await asyncio.to_thread(self._archive.history, documents, before, limit)

    async def made(self, number: int) -> Revision:
        """Return one change of the rules. Raises `DocumentNotFound`, which says where the rules are now."""
        if (found := await self.revision(number)) is None:
            raise DocumentNotFound(await self._why_not(number))
        return found

    async def at(self, at_ns: int) -> Revision:
        """Return the newest change that was made at or before a time (Unix ns).

        Raises:
            InvalidDocument: the time is yet to come.
            DocumentNotFound: nobody knows the rules of that time.
        """
        if at_ns > time.time_ns():
            raise InvalidDocument("at", "that time is yet to come; leave it out to ask about the rules of now")
        await self._bring_up()
        number, since = await asyncio.to_thread(self._archive.revision_at, at_ns), await self._since()
        if number is None or since is None or number < since:
            raise DocumentNotFound(f"the rules of that time are not known; {await self._extent()}")
        return await self.made(number)

    async def documents_at(
        self, number: int, documents: Collection[DocumentName]
    ) -> Mapping[DocumentName, StoredDocument]:
        """Return documents as they were at a revision; those that did not exist then are missing.

        A number that was skipped (when a store that lost changes was resettled) means the revision before it.

        Raises:
            DocumentNotFound: the number lies in the future, or nobody knows what a document was then.
            RulesUnavailable: the archive does not know, and the store, which may, does not answer.
        """
        if await self.revision(number) is None and not 1 <= number <= await self.newest():
            raise DocumentNotFound(await self._why_not(number))
        named = [name for name in documents if is_text(name[1])]
        found = dict(await asyncio.to_thread(self._archive.as_of, number, named))
        if await asyncio.to_thread(self._archive.unbroken_since, number) != 1:
            for name in named:
                if name not in found:
                    found[name] = await self._unchanged_since(number, name)
        return found

    async def last_known(self, kind: Kind, name: str) -> StoredDocument | None:
        """Return a document as the archive knows it last, or None. For when the store does not answer."""
        kept = await asyncio.to_thread(self._archive.kept)
        if kept is None:
            return None
        return (await asyncio.to_thread(self._archive.as_of, kept.revision, [(kind, name)])).get((kind, name))

    async def rules_at(self, model: str, revision: int, cohort_revision: int | None = None) -> StoredRules:
        """Return a model's route as of a revision, with its cohorts as of `cohort_revision` or the same revision.

        Raises:
            DocumentNotFound: the model had no route then, or nobody knows.
        """
        route = (await self.documents_at(revision, [("route", model)])).get(("route", model))
        if route is None:
            raise DocumentNotFound(
                f"model {shown(model)} had no route at revision {revision}; the rules are at revision "
                f"{await self.newest()} now"
            )
        cohorts: Mapping[DocumentName, StoredDocument] = {}
        if names := pinned_by(route.json):
            upto = cohort_revision if cohort_revision is not None else revision
            cohorts = await self.documents_at(upto, [("cohort", name) for name in names])
        return StoredRules(route, {name: stored for (_, name), stored in cohorts.items()})

    async def rules_of(self, wanted: Collection[RulesName]) -> Mapping[RulesName, StoredRules]:
        """Return what `rules_at` returns, for many at once; those about which it would raise are missing.

        A revision that changed thousands of documents is read once for all of them.
        """
        together: dict[tuple[int, int], list[RulesName]] = {}
        for one in wanted:
            _, revision, cohort_revision = one
            together.setdefault((revision, revision if cohort_revision is None else cohort_revision), []).append(one)
        found: dict[RulesName, StoredRules] = {}
        for (revision, upto), ones in together.items():
            with suppress(DocumentNotFound, RulesUnavailable, AuditUnavailable):
                found |= await self._rules_of(revision, upto, ones)
        return found

    async def _rules_of(self, revision: int, upto: int, wanted: Sequence[RulesName]) -> dict[RulesName, StoredRules]:
        routes = await self.documents_at(revision, [("route", model) for model, _, _ in wanted])
        pinned = {one: pinned_by(route.json) for one in wanted if (route := routes.get(("route", one[0]))) is not None}
        names = sorted({name for of_one in pinned.values() for name in of_one})
        cohorts = await self.documents_at(upto, [("cohort", name) for name in names]) if names else {}
        return {
            one: StoredRules(
                routes["route", one[0]],
                {name: stored for name in of_one if (stored := cohorts.get(("cohort", name))) is not None},
            )
            for one, of_one in pinned.items()
        }

    async def newest(self) -> int:
        """Return the revision of the rules now; of the archive when the store does not answer, 0 if it is empty."""
        head: Head | None = None
        with suppress(RulesUnavailable):
            head = await self._store.head()
        kept = await asyncio.to_thread(self._archive.kept)
        return max(head.revision if head is not None else 0, kept.revision if kept is not None else 0)

    async def _bring_up(self) -> None:
        """Have the archive as far as the store; without the store, what is kept has to do."""
        if self._archivist is None:
            return
        with suppress(RulesUnavailable):
            await self._archivist.catch_up()

    async def _unchanged_since(self, number: int, document: DocumentName) -> StoredDocument:
        """Return a document that the archive does not know, from the store: it may not have changed since then."""
        kind, name = document
        present = await self._store.read(kind, name)
        if present is not None and present.revision <= number:
            return present
        raise DocumentNotFound(
            f"what {NAMES[kind]} {shown(name)} was at revision {number} is not known; {await self._extent()}"
        )

    async def _why_not(self, number: int) -> str:
        newest = await self.newest()
        if number > newest:
            return f"there is no revision {number} yet; the rules are at revision {newest} now"
        if number >= 1 and (await self._since() or 1) > number:
            return f"revision {number} is not kept; {await self._extent()}"
        return f"there never was a revision {number}; the rules are at revision {newest} now"

    async def _since(self) -> int | None:
        """Return the first revision from which on the archive has every one; None when it has none."""
        kept = await asyncio.to_thread(self._archive.kept)
        return await asyncio.to_thread(self._archive.unbroken_since, kept.revision) if kept is not None else None

    async def _extent(self) -> str:
        since, newest = await self._since(), await self.newest()
        extent = f"has every one from revision {since} on" if since is not None else "has none yet"
        return f"the archive of revisions {extent}, and the rules are at revision {newest} now"


async def rules_now(store: RulesStore, model: str) -> StoredRules:
    """Return a model's route and its cohorts as they are. Raises `DocumentNotFound` or `RulesUnavailable`."""
    route = await store.read("route", model) if is_text(model) else None
    if route is None:
        raise DocumentNotFound(f"there is no {NAMES['route']} {shown(model)}")
    names = pinned_by(route.json)
    found = await asyncio.gather(*(store.read("cohort", name) for name in names))
    return StoredRules(route, {name: one for name, one in zip(names, found, strict=True) if one is not None})
