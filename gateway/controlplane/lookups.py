"""The look-ups of those who change rules, and of those who ask what they are, were, and would be.

Belongs here: the present documents, and one door to the past, to explanations and to previews. Never here: changes,
HTTP, or being called from the data plane, which has a snapshot of its own.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from gateway.controlplane.archiving import Archivist, Tell, tell_nobody
from gateway.controlplane.differences import FieldDifference, differences
from gateway.controlplane.documents import NAMES, is_text, pinned_by, shown, versions_named_by
from gateway.controlplane.explaining import Explaining
from gateway.controlplane.foreseeing import Foreseeing
from gateway.controlplane.past import Past, StoredRules, rules_now
from gateway.controlplane.previewing import ChangePreview, Traffic
from gateway.controlplane.proposal import Proposed
from gateway.controlplane.questions import Explained, Question
from gateway.errors import DocumentNotFound, RulesUnavailable
from gateway.ports import AuditStore, DocumentName, Kind, Revision, RevisionArchive, RulesStore, StoredDocument


class ModelEntry(Struct, frozen=True):
    """One model: its versions by name, and its route if it has one."""

    model: str
    versions: Mapping[str, StoredDocument]
    route: StoredDocument | None


class Lookups:
    """Reads the rules. Every method raises `RulesUnavailable` when the store does not answer.

    Those of the past raise `AuditUnavailable` when the archive fails, and do without the store where they can.
    `archivist` keeps the archive up to the store; its `run` is a task of the control process.
    """

    def __init__(
        self, store: RulesStore, audit: AuditStore, archive: RevisionArchive, tell: Tell = tell_nobody
    ) -> None:
        self._store = store
        self.archivist = Archivist(store, archive, tell)
        self._past = Past(store, archive, self.archivist)
        self._explaining = Explaining(store, audit, self._past)
        self._foreseeing = Foreseeing(store, audit, self._past)

    # ── now ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def route(self, model: str) -> StoredDocument:
        """Return a model's route. Raises `DocumentNotFound`."""
        return await self._get("route", model)

    async def cohort(self, name: str) -> StoredDocument:
        """Return a cohort. Raises `DocumentNotFound`."""
        return await self._get("cohort", name)

    async def cohorts(self) -> Mapping[str, StoredDocument]:
        """Return every cohort by name, in order."""
        return dict(sorted((await self._store.read_all("cohort")).items()))

    async def version(self, model: str, version: str) -> StoredDocument:
        """Return a version's manifest. Raises `DocumentNotFound`."""
        return await self._get("version", f"{model}/{version}")

    async def versions(self, model: str) -> Mapping[str, StoredDocument]:
        """Return the manifests of a model's versions by name, in order; empty when it has none."""
        if not is_text(model):
            return {}
        found = await self._store.read_all("version", prefix=f"{model}/")
        return {name.partition("/")[2]: stored for name, stored in sorted(found.items())}

    async def models(self) -> tuple[ModelEntry, ...]:
        """Return every model that has a version or a route, by name. Looks at every document."""
        versions: dict[str, dict[str, StoredDocument]] = {}
        for name, stored in sorted((await self._store.read_all("version")).items()):
            model, _, version = name.partition("/")
            versions.setdefault(model, {})[version] = stored
        routes = await self._store.read_all("route")
        return tuple(
            ModelEntry(model, versions.get(model, {}), routes.get(model)) for model in sorted(versions | dict(routes))
        )

    # ── the past ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def revision(self, number: int) -> Revision | None:
        """Return one change of the rules, or None when there is none of that number that anybody still knows."""
        return await self._past.revision(number)

    async def as_of(self, number: int, documents: Collection[DocumentName]) -> Mapping[DocumentName, StoredDocument]:
        """Return documents as they were at a revision; those that did not exist then are missing.

        A number that was skipped (when a store that lost changes was resettled) means the revision before it.

        Raises:
            DocumentNotFound: the number lies in the future, or nobody knows what a document was then.
        """
        return await self._past.documents_at(number, documents)

    async def route_at(self, model: str, revision: int) -> StoredDocument:
        """Return a model's route as it was at a revision.

        Raises:
            DocumentNotFound: there is no such revision, the model had no route then, or nobody knows.
        """
        return (await self._rules_at(model, revision)).route

    async def history(self, model: str, before: int | None, limit: int) -> Sequence[Revision]:
        """Return up to `limit` changes of a model's rules below revision `before`, newest first.

        They are those of its route, of the cohorts that it pins now, and of its versions; while the store does not
        answer, only of the versions that its route named last.

        Raises:
            DocumentNotFound: there is no such model, and there never was one.
        """
        if not is_text(model):
            raise DocumentNotFound(f"there is no model {shown(model)}")
        try:
            route = await self._store.read("route", model)
            versions: Collection[str] = await self.versions(model)
        except RulesUnavailable:
            route = await self._past.last_known("route", model)
            versions = versions_named_by(route.json if route is not None else None)
        names: list[DocumentName] = [("route", model)]
        names += [("version", f"{model}/{version}") for version in versions]
        names += [("cohort", name) for name in pinned_by(route.json if route is not None else None)]
        found = await self._past.history(names, before, limit)
        if not found and before is None and route is None:
            raise DocumentNotFound(f"there is no model {shown(model)}")
        return found

    async def all_history(self, before: int | None, limit: int) -> Sequence[Revision]:
        """Return up to `limit` changes of the rules below revision `before`, newest first."""
        return await self._past.history(None, before, limit)

    async def diff(self, model: str, older: int, newer: int | None) -> Sequence[FieldDifference]:
        """Return in which fields a model's route differs between two revisions, or between one and now.

        Cohorts that it pins in both are compared, too, under `cohorts["name"]`.

        Raises:
            DocumentNotFound: there is no such revision, the model had no route then, or nobody knows.
        """
        before = await self._rules_at(model, older)
        after = await (self._rules_at(model, newer) if newer is not None else rules_now(self._store, model))
        shared = before.cohorts.keys() & after.cohorts.keys()
        return await asyncio.to_thread(lambda: differences(_decoded(before, shared), _decoded(after, shared)))

    async def _rules_at(self, model: str, revision: int) -> StoredRules:
        await self._past.made(revision)
        return await self._past.rules_at(model, revision)

    # ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────

    async def explain(self, model: str, question: Question) -> Explained:
        """Return how a model's route decides about a request, by the code that serves.

        Raises:
            DocumentNotFound: no such route, revision or record, or the record is of a request that was not decided.
            InvalidDocument: the question asks for two things at once.
            AuditUnavailable: its record cannot be read.
        """
        return await self._explaining.explain(model, question)

    async def preview(self, proposed: Sequence[Proposed], traffic: Traffic) -> ChangePreview:
        """Return which callers would move if these documents were put in force together; changes nothing.

        Raises:
            InvalidDocument: a proposed document does not parse.
            AuditUnavailable: the records cannot be read.
        """
        return await self._foreseeing.preview(proposed, traffic)

    # ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _get(self, kind: Kind, name: str) -> StoredDocument:
        stored = await self._store.read(kind, name) if is_text(name) else None
        if stored is None:
            raise DocumentNotFound(f"there is no {NAMES[kind]} {shown(name)}")
        return stored


def _decoded(rules: StoredRules, cohorts: Collection[str]) -> Mapping[str, Any]:
    route: dict[str, Any] = msgspec.json.decode(rules.route.json)
    return {**route, "cohorts": {name: msgspec.json.decode(rules.cohorts[name].json) for name in sorted(cohorts)}}
