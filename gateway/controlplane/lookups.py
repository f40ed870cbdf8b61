"""The look-ups of those who change rules, and of those who ask what they are.

Belongs here: reading the store's present documents, and explaining a decision with them. Never here: changes, HTTP,
or being called from the data plane, which has a snapshot of its own.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct

from gateway.errors import DocumentNotFound, InvalidDocument
from gateway.ports import Kind, Revision, RulesStore, StoredDocument
from routing import (
    Cohort,
    DocumentError,
    Explanation,
    Facts,
    Route,
    explain,
    parse_cohort,
    parse_route,
    routing_key,
    unit_digest,
)

NAMES: Mapping[Kind, str] = {"route": "route of model", "cohort": "cohort", "version": "version"}
"""What a document is called in a message, before its name."""
_LONGEST_SHOWN = 128

T = TypeVar("T")


class ModelEntry(Struct, frozen=True):
    """One model: its versions by name, and its route if it has one."""

    model: str
    versions: Mapping[str, StoredDocument]
    route: StoredDocument | None


class Lookups:
    """Reads the rules. Every method raises `RulesUnavailable` when the store does not answer."""

    def __init__(self, store: RulesStore) -> None:
        self._store = store

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

    async def revision(self, number: int) -> Revision | None:
        """Return one change of the rules, or None when there is none of that number (any more)."""
        if number < 1:
            return None
        found = await self._store.revisions(number - 1, number)
        return found[0] if found else None

    async def explain(
        self,
        model: str,
        key: str | None,
        headers: Mapping[str, str],
        asked_version: str | None = None,
        record_id: str | None = None,
    ) -> tuple[int, Explanation]:
        """Return the route's revision and how it decides about a caller, by the code that serves.

        Without `key` the routing key is looked for in `headers`; without one there, the decision hangs on `record_id`
        (a new one if it is None), as it does for a request that brings no key.

        Raises:
            DocumentNotFound: the model has no route.
        """
        stored = await self.route(model)
        route = parsed(parse_route, stored.json)
        lower = {name.lower(): value for name, value in headers.items()}
        key = key if key is not None else routing_key(route, lower)
        record = record_id if record_id is not None else str(uuid.uuid4())
        facts = Facts(
            unit=unit_digest(key if key is not None else record),
            record_id=record,
            received_ns=time.time_ns(),
            keyed=key is not None,
            asked_version=asked_version,
            headers=lower,
        )
        return stored.revision, explain(route, await self._pinned(route), facts)

    async def _pinned(self, route: Route) -> Mapping[str, Cohort]:
        names = sorted({pin.cohort for pin in route.pins})
        found = await asyncio.gather(*(self._store.read("cohort", name) for name in names))
        return {
            name: parsed(parse_cohort, stored.json)
            for name, stored in zip(names, found, strict=True)
            if stored is not None
        }

    async def _get(self, kind: Kind, name: str) -> StoredDocument:
        stored = await self._store.read(kind, name) if is_text(name) else None
        if stored is None:
            raise DocumentNotFound(f"there is no {NAMES[kind]} {shown(name)}")
        return stored


def parsed(parse: Callable[[bytes], T], document: bytes) -> T:
    """Return a parsed route or cohort. Raises `InvalidDocument` with the path of the field."""
    try:
        return parse(document)
    except DocumentError as error:
        raise InvalidDocument(error.path, error.message) from None


def is_text(value: str) -> bool:
    """Tell whether a value from outside is Unicode that can be stored, with no lone surrogate in it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """Return a caller's text fit for a message: of bounded length, and printable."""
    cut = name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "…"
    return cut if cut.isprintable() else ascii(cut)
