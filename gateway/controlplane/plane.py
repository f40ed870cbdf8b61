"""The one door for changes of the rules: validate, compare and set, say who and why, wait for every worker.

Belongs here: what makes a change legal. Never here: HTTP, YAML, how rules are stored, or being called from the data
plane.

A check that reads documents can be overtaken by another change, so none is relied on: a change carries the revisions
it was checked against and what it needs to exist, and the store makes it only if all that still holds.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator

from gateway.catalog import Manifest, Signature, encode_manifest, parse_manifest, same_content
from gateway.controlplane.artifact import check_artifact, differing_fields
from gateway.controlplane.convergence import Published
from gateway.controlplane.lookups import Lookups, parsed, shown
from gateway.controlplane.publishing import ATTEMPTS, Origin, Publisher, Put, change_of, check_expected, overtaken
from gateway.errors import (
    CohortInUse,
    IncompleteManifest,
    InvalidDocument,
    RevisionConflict,
    VersionExists,
)
from gateway.ports import Kind, RulesStore, StoredDocument, Write
from routing import DocumentError, Route, encode_document, named_versions, parse_cohort, parse_route

Inspect = Callable[[Manifest], Awaitable[Signature | None]]


class ControlPlane(Lookups):
    """Reads and changes the rules. Every method raises `RulesUnavailable` when the store does not answer."""

    def __init__(self, store: RulesStore, inspect: Inspect, publish_wait_s: float) -> None:
        """`inspect` prepares a version for a moment and raises `ArtifactError` for one that cannot run."""
        super().__init__(store)
        self._inspect = inspect
        self._publisher = Publisher(store, publish_wait_s)

    # ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def put_route(self, model: str, document: bytes, expect: int | None, origin: Origin) -> Published:
        """Make or change the route of a model. `expect` is the revision it has now; None or 0 when it has none.

        Raises:
            InvalidDocument: it does not fit, or names a version or cohort that there is not.
            RevisionRequired, RevisionConflict: `expect` is missing, or not what the route has now.
            ArtifactMissing, DigestMismatch: a version that it newly names is not on disk as it was registered.
        """
        route = parsed(parse_route, document)
        if route.model != model:
            raise InvalidDocument("model", f"the document is of {shown(route.model)}, its address of {shown(model)}")
        requires: list[tuple[Kind, str]] = [("version", f"{model}/{version}") for version in named_versions(route)]
        requires += [("cohort", name) for name in {pin.cohort for pin in route.pins}]

        async def check(present: StoredDocument | None) -> None:
            await self._check_cohorts(route)
            await self._check_versions(route, present)

        put = Put("route", model, encode_document(route), expect, tuple(sorted(requires)), (model,))
        return await self._publisher.put(put, origin, check)

    async def _check_cohorts(self, route: Route) -> None:
        names = sorted({pin.cohort for pin in route.pins})
        found = dict(zip(names, await asyncio.gather(*(self._store.read("cohort", n) for n in names)), strict=True))
        for index, pin in enumerate(route.pins):
            if found[pin.cohort] is None:
                raise InvalidDocument(f"pins[{index}].cohort", f"there is no cohort {pin.cohort}; set it first")

    async def _check_versions(self, route: Route, present: StoredDocument | None) -> None:
        names = sorted(named_versions(route))
        reads = (self._store.read("version", f"{route.model}/{name}") for name in names)
        found = dict(zip(names, await asyncio.gather(*reads), strict=True))
        for path, version in _paths_of_versions(route):
            if found[version] is None:
                raise InvalidDocument(
                    path, f"version {version} of model {route.model} is not registered; register it first"
                )
        for version in sorted(set(names) - _named_by(present)):
            stored = found[version]
            assert stored is not None
            await asyncio.to_thread(check_artifact, parse_manifest(stored.json))

    # ── cohorts ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def put_cohort(self, name: str, document: bytes, expect: int | None, origin: Origin) -> Published:
        """Make or change a cohort. `expect` is the revision it has now; None or 0 when it does not exist.

        Raises:
            InvalidDocument, RevisionRequired, RevisionConflict
        """
        cohort = parsed(parse_cohort, document)
        if cohort.name != name:
            raise InvalidDocument("name", f"the document is of {shown(cohort.name)}, its address of {shown(name)}")
        return await self._publisher.put(Put("cohort", name, encode_document(cohort), expect), origin)

    async def delete_cohort(self, name: str, expect: int | None, origin: Origin) -> Published:
        """Delete a cohort that no route pins.

        Raises:
            DocumentNotFound, RevisionRequired, RevisionConflict
            CohortInUse: with the models whose routes pin it.
        """
        for _ in range(ATTEMPTS):
            if (revision := await self._publisher.made_before("cohort", name, None, origin)) is None:
                head = await self._store.head()
                present = await self.cohort(name)
                check_expected("cohort", name, present, expect)
                await self._check_unused(name)
                write = Write("cohort", name, None, present.revision)
                # The check looked at every route, so none may have changed since the head was read.
                change = change_of(origin, write, expect_head=head.revision if head is not None else 0)
                try:
                    revision = await self._store.apply(change)
                except RevisionConflict:
                    continue
            return await self._publisher.published(revision, True, ())
        raise overtaken()

    async def _check_unused(self, name: str) -> None:
        routes = await self._store.read_all("route")
        users = sorted(model for model, stored in routes.items() if name in _pinned_by(model, stored))
        if users:
            raise CohortInUse(f"cohort {name} is pinned by the route of {', '.join(users)}; remove those pins first")

    # ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def register(self, model: str, document: bytes, allow_incomplete: bool, origin: Origin) -> Published:
        """Register a version. The same content again changes nothing, or where its artifact lies.

        Raises:
            InvalidDocument: it does not fit, or its artifact's path is relative.
            IncompleteManifest: with the paths that are missing.
            ArtifactMissing, DigestMismatch, ArtifactInvalid: the artifact is not there, not that one, or cannot run.
            VersionExists: it is registered with other content.
        """
        manifest = parse_manifest(document)
        if manifest.model != model:
            raise InvalidDocument("model", f"the document is of {shown(manifest.model)}, its address of {shown(model)}")
        if manifest.missing and not allow_incomplete:
            raise IncompleteManifest(
                ", ".join(manifest.missing),
                "missing, so nobody could tell later what this version was made from; fill it in, or pass "
                "--allow-incomplete",
            )
        await asyncio.to_thread(check_artifact, manifest)
        await self._inspect(manifest)
        name = f"{model}/{manifest.version}"
        for _ in range(ATTEMPTS):
            present = await self._store.read("version", name)
            if present is not None:
                _check_same(manifest, parse_manifest(present.json))
            put = Put("version", name, encode_manifest(manifest), present.revision if present is not None else 0)
            try:
                return await self._publisher.put(put, origin)
            except RevisionConflict:
                continue  # somebody registered it at the same moment: is it the same?
        raise overtaken()


def _named_by(route: StoredDocument | None) -> frozenset[str]:
    """Return the versions that a stored route names; none for one that does not parse, as it is about to go."""
    try:
        return named_versions(parse_route(route.json)) if route is not None else frozenset()
    except DocumentError:
        return frozenset()


def _pinned_by(model: str, route: StoredDocument) -> frozenset[str]:
    try:
        return frozenset(pin.cohort for pin in parse_route(route.json).pins)
    except DocumentError as error:
        raise InvalidDocument("", f"the stored route of model {model} does not parse ({error}); put it again") from None


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
