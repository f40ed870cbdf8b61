"""The documents a worker follows: the last good one of every name, parsed as far as decisions need.

Belongs here: parsing what the store gives, keeping the good one when a new one does not parse, and working out which
models a change touches. Never here: asking the store, preparing versions, or what is in force.
"""

import asyncio
from collections.abc import Container, Iterable, Mapping, Set
from typing import Any

import msgspec
from msgspec import Struct

from gateway.catalog import Manifest, parse_manifest
from gateway.errors import InvalidDocument
from gateway.ports import DocumentName, Head, StoredDocument
from gateway.snapshot.frozen_map import FrozenMap
from gateway.snapshot.shapes import RouteEntry
from routing import Cohort, DocumentError, Route, consulted_headers, parse_cohort, parse_route

Changed = Mapping[DocumentName, StoredDocument | None]
"""Documents as they are now; None for one that is gone."""

_PARSED_AT_ONCE = 50  # documents parsed between two turns of the event loop: about 2 ms


class Taken(Struct, frozen=True):
    """What came of documents that were taken: the models that are touched, and what changed of those that are kept.

    `kept` has what parsed and what is gone. Of a document that does not parse, the last good one is kept as it was.
    """

    touched: frozenset[str]
    kept: Changed


class _Named(Struct):
    """The part of a manifest that is checked for every registered version; the rest is, once a route names it."""

    model: str
    version: str


class _Parsed(Struct):
    name: DocumentName
    stored: StoredDocument | None
    document: Route | Cohort | _Named | None


class Documents:
    """One worker's documents as of `head`. Everything handed out is immutable and may be kept by snapshots.

    `operation_id` is that of the change which made `head`: two histories that both have a revision 50 differ in it.
    `complaints` says what is wrong with documents of the store that do not parse.
    """

    def __init__(self) -> None:
        self.head: Head | None = None
        self.operation_id = ""
        self.stored: dict[DocumentName, StoredDocument] = {}
        self.routes: dict[str, RouteEntry] = {}
        self.cohorts: Mapping[str, Cohort] = {}
        self.cohort_revisions: Mapping[str, int] = {}
        self._registered: FrozenMap[tuple[str, str], None] = FrozenMap()
        self.complaints: dict[DocumentName, str] = {}
        self._manifests: dict[tuple[str, str], Manifest] = {}

    @property
    def registered(self) -> Set[tuple[str, str]]:
        """Every version there is, by model and version; it stays as it is when others come."""
        return self._registered.keys()

    def differences(self, documents: Mapping[DocumentName, StoredDocument]) -> Changed:
        """Return what has to be taken so that these documents become `documents`.

        Those that there is a complaint about are among it: what was complained of is not stored here, so that alone
        does not tell whether it is gone, or is again what is stored.
        """
        changed: dict[DocumentName, StoredDocument | None] = {
            name: stored
            for name, stored in documents.items()
            if self.stored.get(name) != stored or name in self.complaints
        }
        gone = (self.stored.keys() | self.complaints.keys()) - documents.keys()
        return changed | dict.fromkeys(gone)

    async def take(self, head: Head, operation_id: str, changed: Changed) -> Taken:
        """Go to `head` with what changed since.

        Parsing gives way to the event loop between portions; nothing is visible before all of it is parsed.
        """
        parsed: list[_Parsed] = []
        complaints: dict[DocumentName, str] = {}
        for count, (name, stored) in enumerate(changed.items(), start=1):
            try:
                parsed.append(_Parsed(name, stored, _parse(name, stored)))
            except DocumentError as error:
                complaints[name] = str(error)
            if count % _PARSED_AT_ONCE == 0:
                await asyncio.sleep(0)
        touched = self._commit(parsed)
        for name in changed:
            self.complaints.pop(name, None)
        self.complaints |= complaints
        self.head, self.operation_id = head, operation_id
        return Taken(frozenset(touched), {one.name: one.stored for one in parsed})

    def _commit(self, parsed: Iterable[_Parsed]) -> set[str]:
        touched: set[str] = set()
        cohorts: dict[str, _Parsed] = {}
        registered: set[tuple[str, str]] = set()
        for one in parsed:
            kind, name = one.name
            if one.stored is None:
                self.stored.pop(one.name, None)
            else:
                self.stored[one.name] = one.stored
            if kind == "cohort":
                cohorts[name] = one
                continue
            model, _, version = name.partition("/")
            touched.add(model)
            if kind == "version":
                self._manifests.pop((model, version), None)
                registered.add((model, version))
            elif isinstance(one.document, Route) and one.stored is not None:
                self.routes[model] = RouteEntry(one.document, one.stored.revision)
            else:
                self.routes.pop(model, None)
        self._commit_registered(registered)
        touched |= self._commit_cohorts(cohorts)
        for model in touched & self.routes.keys():
            self.routes[model] = self.refreshed(self.routes[model])
        return touched

    def _commit_registered(self, changed: set[tuple[str, str]]) -> None:
        gone = {key for key in changed if ("version", "/".join(key)) not in self.stored}
        self._registered = self._registered.changed(dict.fromkeys(changed - gone), gone)

    def _commit_cohorts(self, changed: Mapping[str, _Parsed]) -> set[str]:
        """Put cohorts in place and return the models whose routes pin one of them."""
        if not changed:
            return set()
        cohorts, revisions = dict(self.cohorts), dict(self.cohort_revisions)
        for name, one in changed.items():
            cohorts.pop(name, None)
            revisions.pop(name, None)
            if isinstance(one.document, Cohort) and one.stored is not None:
                cohorts[name] = one.document
                revisions[name] = one.stored.revision
        self.cohorts, self.cohort_revisions = cohorts, revisions
        return set(self._pinning(changed))

    def refreshed(self, entry: RouteEntry) -> RouteEntry:
        """Return `entry` as it is with the cohorts of now."""
        if not entry.route.pins:
            return entry
        revisions = [self.cohort_revisions[p.cohort] for p in entry.route.pins if p.cohort in self.cohort_revisions]
        consulted = consulted_headers(entry.route, self.cohorts)
        return RouteEntry(entry.route, entry.revision, consulted, max(revisions, default=None))

    def manifest(self, model: str, version: str) -> Manifest | None:
        """Return the manifest of a version that a route names; None when it is not registered or does not parse.

        Manifests are parsed here rather than when they arrive: most versions of the past are named by no route.
        """
        key = (model, version)
        if key not in self._manifests:
            name: DocumentName = ("version", f"{model}/{version}")
            if name not in self.stored:
                return None
            try:
                self._manifests[key] = parse_manifest(self.stored[name].json)
            except InvalidDocument as error:
                self.complaints[name] = str(error)
                return None
        return self._manifests[key]

    def problems(self) -> dict[str, str]:
        """Return the complaints by the model that they concern; a cohort's concern every model that pins it."""
        found: dict[str, list[str]] = {}
        for (kind, name), why in sorted(self.complaints.items()):
            models = [name.partition("/")[0]] if kind != "cohort" else self._pinning({name})
            for model in models:
                found.setdefault(model, []).append(f"{kind} {name} does not parse: {why}")
        return {model: "; ".join(complaints) for model, complaints in found.items()}

    def _pinning(self, cohorts: Container[str]) -> Iterable[str]:
        return [
            model
            for model, entry in self.routes.items()
            if entry.route.pins and any(pin.cohort in cohorts for pin in entry.route.pins)
        ]


def _parse(name: DocumentName, stored: StoredDocument | None) -> Route | Cohort | _Named | None:
    """Return a document of the store, or None for one that is gone. Raises `DocumentError`."""
    if stored is None:
        return None
    kind, expected = name
    document: Any
    match kind:
        case "route":
            document = parse_route(stored.json)
            found = document.model
        case "cohort":
            document = parse_cohort(stored.json)
            found = document.name
        case "version":
            document = _named(stored.json)
            found = f"{document.model}/{document.version}"
    if found != expected:
        raise DocumentError("", f"it is the document of {found}")
    return document  # type: ignore[no-any-return]


def _named(json: bytes) -> _Named:
    try:
        return _decode_named(json)
    except msgspec.DecodeError as error:
        raise DocumentError("", f"it is no manifest: {error}") from None


_decode_named = msgspec.json.Decoder(_Named).decode
