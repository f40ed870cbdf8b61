"""What makes the documents of a change legal, all of them together, as if they were already there.

Belongs here: what one document needs of the others and of the disk. Never here: who may overwrite what, or making the
change.

A check that reads documents can be overtaken by another change, so none is relied on: it says what the change needs
to exist (`Needs`), and the store makes it only if all of that still holds.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from gateway.catalog import Manifest, Signature, parse_manifest, same_content
from gateway.controlplane.artifact import check_artifact, differing_fields
from gateway.controlplane.documents import parsed, versions_named_by
from gateway.controlplane.pending import Pending, at_fault, read_documents
from gateway.errors import CohortInUse, IncompleteManifest, InvalidDocument, VersionExists
from gateway.ports import DocumentName, RulesStore
from routing import DocumentError, Route, named_versions, parse_route

Inspect = Callable[[Manifest], Awaitable[Signature | None]]
"""Prepares a version for a moment, and raises `ArtifactError` for one that cannot run."""


class Needs(Struct, frozen=True):
    """What must still hold when a change is made: documents that exist, and the head if every document was looked at.

    A document that is needed may be one that the change itself writes.
    """

    requires: tuple[DocumentName, ...]
    expect_head: int | None


class Checks:
    """Checks the documents of one change. Used again while others overtake it, it looks at each version once."""

    def __init__(self, store: RulesStore, inspect: Inspect, *, allow_incomplete: bool, trusted: bool) -> None:
        """`trusted`: what versions lie on disk is not looked at, as the routes come back that were in force before."""
        self._store = store
        self._inspect = inspect
        self._allow_incomplete = allow_incomplete
        self._trusted = trusted
        self._passed: set[bytes] = set()

    async def check(self, change: Sequence[Pending], *, alone: bool) -> Needs:
        """Return what the change needs, when it is legal. Unless it was sent `alone`, errors name the document.

        Raises:
            InvalidDocument: a document does not fit, or names a version or cohort that there is not.
            IncompleteManifest: a version lacks its metadata contract, and that is not allowed.
            VersionExists: a version is registered with other content.
            CohortInUse: a cohort is deleted that a route pins after the change.
            ArtifactMissing, DigestMismatch, ArtifactInvalid: a version that is registered or newly named cannot run.
        """
        for one in change:
            if one.proposed.kind == "version":
                with at_fault(one, alone=alone):
                    await self._check_version(one)
        routes = await asyncio.to_thread(_routes, change, alone)
        requires = sorted({name for _, route in routes for name in _named_by(route)})
        there = await self._there(change, requires)
        for one, route in routes:
            with at_fault(one, alone=alone):
                _check_names(route, there)
                await self._check_artifacts(one, route, there)
        return Needs(tuple(requires), await self._check_unused(change, alone))

    # ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _check_version(self, one: Pending) -> None:
        assert one.proposed.json is not None, "versions are never deleted"
        manifest = parse_manifest(one.proposed.json)
        if one.present is not None:
            _check_same(manifest, parse_manifest(one.present.json))
        if self._trusted or one.proposed.json in self._passed:
            return
        if manifest.missing and not self._allow_incomplete:
            raise IncompleteManifest(
                ", ".join(manifest.missing),
                "missing, so nobody could tell later what this version was made from; fill it in, or pass "
                "--allow-incomplete",
            )
        await asyncio.to_thread(check_artifact, manifest)
        await self._inspect(manifest)
        self._passed.add(one.proposed.json)

    # ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _there(self, change: Sequence[Pending], names: Sequence[DocumentName]) -> Mapping[DocumentName, bytes]:
        """Return the JSON of those of the named documents that there are once the change is made."""
        changed = {one.proposed.document: one.proposed.json for one in change}
        stored = await read_documents(self._store, [name for name in names if name not in changed])
        there = {name: document.json for name, document in stored.items()}
        return there | {name: json for name, json in changed.items() if json is not None}

    async def _check_artifacts(self, one: Pending, route: Route, there: Mapping[DocumentName, bytes]) -> None:
        """Look at the artifacts of the versions that the route did not name before: to serve, they must be there."""
        before = versions_named_by(one.present.json if one.present is not None else None)
        for version in sorted(named_versions(route) - before):
            manifest = there["version", f"{route.model}/{version}"]
            if not self._trusted and manifest not in self._passed:
                await asyncio.to_thread(check_artifact, parse_manifest(manifest))
                self._passed.add(manifest)

    # ── cohorts ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _check_unused(self, change: Sequence[Pending], alone: bool) -> int | None:
        """Check that no route pins a cohort that goes, and return the head that this holds for."""
        deleted = {one.proposed.name: one for one in change if one.proposed.kind == "cohort" and not one.proposed.json}
        if not deleted:
            return None
        head = await self._store.head()
        routes = {model: stored.json for model, stored in (await self._store.read_all("route")).items()}
        for one in change:
            if one.proposed.kind == "route":
                routes.pop(one.proposed.name, None)
                if one.proposed.json is not None:
                    routes[one.proposed.name] = one.proposed.json
        for name, users in (await asyncio.to_thread(pinning, routes, frozenset(deleted))).items():
            with at_fault(deleted[name], alone=alone):
                raise CohortInUse(
                    f"cohort {name} is pinned by the route of {', '.join(users)}; remove those pins first"
                )
        return head.revision if head is not None else 0


def pinning(routes: Mapping[str, bytes], cohorts: frozenset[str]) -> Mapping[str, Sequence[str]]:
    """Return the models whose routes pin one of the cohorts, by cohort, both in order. Parses every route.

    Raises:
        InvalidDocument: a route does not parse, so nobody can tell.
    """
    users: dict[str, list[str]] = {}
    for model, document in sorted(routes.items()):
        try:
            pinned = {pin.cohort for pin in parse_route(document).pins}
        except DocumentError as error:
            raise InvalidDocument(
                "", f"the stored route of model {model} does not parse ({error}); put it again"
            ) from None
        for name in sorted(pinned & cohorts):
            users.setdefault(name, []).append(model)
    return dict(sorted(users.items()))


def _routes(change: Sequence[Pending], alone: bool) -> Sequence[tuple[Pending, Route]]:
    """Return the routes that a change writes, parsed; thousands of them take a second, so this is for a thread."""
    found = []
    for one in change:
        if one.proposed.kind == "route" and one.proposed.json is not None:
            with at_fault(one, alone=alone):
                found.append((one, parsed(parse_route, one.proposed.json)))
    return found


def _named_by(route: Route) -> Iterator[DocumentName]:
    yield from (("version", f"{route.model}/{version}") for version in named_versions(route))
    yield from (("cohort", pin.cohort) for pin in route.pins)


def _check_names(route: Route, there: Mapping[DocumentName, bytes]) -> None:
    for index, pin in enumerate(route.pins):
        if ("cohort", pin.cohort) not in there:
            raise InvalidDocument(f"pins[{index}].cohort", f"there is no cohort {pin.cohort}; set it first")
    for path, version in _paths_of_versions(route):
        if ("version", f"{route.model}/{version}") not in there:
            raise InvalidDocument(
                path, f"version {version} of model {route.model} is not registered; register it first"
            )


def _check_same(manifest: Manifest, present: Manifest) -> None:
    if not same_content(manifest, present):
        fields = ", ".join(differing_fields(manifest, present))
        raise VersionExists(
            f"version {manifest.version} of model {manifest.model} is registered with other content (it differs in "
            f"{fields}); versions are immutable, so give this one a new name"
        )


def _paths_of_versions(route: Route) -> Iterator[tuple[str, str]]:
    """Yield the path of every place where a route names a version, with the version."""
    yield from ((f"split[{json.dumps(version)}]", version) for version in route.split)
    yield from ((f"pins[{index}].version", pin.version) for index, pin in enumerate(route.pins))
    yield from ((f"shadows[{index}].version", shadow.version) for index, shadow in enumerate(route.shadows))
    yield from ((f"fallback[{index}]", version) for index, version in enumerate(route.fallback))
