"""Working out a preview: requests of late, decided by the rules of now and by those proposed.

Belongs here: which models a change touches, and which requests to ask about. Never here: a decision (that is
`routing`), or making the change.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from gateway.controlplane.documents import pinned_by, route_rules
from gateway.controlplane.past import Past
from gateway.controlplane.previewing import (
    MOST_REQUESTS,
    ChangePreview,
    ModelPreview,
    Traffic,
    preview_of,
    sample_of,
)
from gateway.controlplane.proposal import Proposed
from gateway.errors import AuditUnavailable, DocumentNotFound, InvalidDocument, RulesUnavailable
from gateway.ports import AuditStore, DocumentName, RulesStore, Sampled, StoredDocument
from routing import Facts, Looked, RouteRules, Seen, compare, looked_at, unit_digest

_AT_ONCE = 16  # reads of documents under way
_UNTOLD = Looked()

Revisions = tuple[int | None, int | None]
"""Those of a route and of the newest of its cohorts."""


class _Touched(Struct, frozen=True):
    """One model before and after; `revision` and `cohort_revision` are of the route and its cohorts now."""

    model: str
    revision: int
    cohort_revision: int | None
    present: RouteRules
    proposed: RouteRules


class _Recorded(Struct, frozen=True):
    """Requests of the records, newest first, and at which headers the rules looked that decided them."""

    sampled: Sequence[Sampled]
    looked: Mapping[Revisions, Looked]
    since_ns: int
    limited: bool


class Foreseeing:
    """Works out previews. Raises `RulesUnavailable`, `AuditUnavailable`, or `InvalidDocument` for what is proposed."""

    def __init__(self, store: RulesStore, audit: AuditStore, past: Past) -> None:
        self._store = store
        self._audit = audit
        self._past = past

    async def preview(self, proposed: Sequence[Proposed], traffic: Traffic) -> ChangePreview:
        """Return who moves between the rules of now and the same with `proposed`; changes nothing."""
        overlay = {one.document: one.json for one in proposed}
        models = await self._touched(overlay)
        share = max(1, MOST_REQUESTS // max(1, len(models)))
        found = [await self._model(model, overlay, traffic, share) for model in sorted(models)]
        return ChangePreview(
            sum(one.callers_moved for one in found), sum(one.requests_moved for one in found), tuple(found)
        )

    # ── what the change touches ──────────────────────────────────────────────────────────────────────────────────

    async def _touched(self, overlay: Mapping[DocumentName, bytes | None]) -> set[str]:
        """Return the models of proposed routes, and those whose routes pin a cohort that would be another."""
        models = {name for kind, name in overlay if kind == "route"}
        cohorts = [(kind, name) for kind, name in overlay if kind == "cohort"]
        stored = await self._read(cohorts)
        changed = {name for kind, name in cohorts if overlay[kind, name] != _json(stored.get((kind, name)))}
        if changed:
            routes = await self._store.read_all("route")
            models |= await asyncio.to_thread(_pinning, routes, changed)
        return models

    async def _both(self, model: str, overlay: Mapping[DocumentName, bytes | None]) -> _Touched:
        name: DocumentName = ("route", model)
        route = (await self._read([name])).get(name)
        present = _json(route)
        proposed = overlay.get(name, present)
        pinned = pinned_by(present)
        names = sorted({*pinned, *pinned_by(proposed)})
        cohorts = {name: stored for (_, name), stored in (await self._read(("cohort", one) for one in names)).items()}
        now = {name: stored.json for name, stored in cohorts.items()}
        then = {name: json for name in names if (json := overlay.get(("cohort", name), now.get(name))) is not None}
        return _Touched(
            model=model,
            revision=route.revision if route is not None else 0,
            cohort_revision=max((cohorts[one].revision for one in pinned if one in cohorts), default=None),
            present=await asyncio.to_thread(_present_rules, present, now),
            proposed=await asyncio.to_thread(route_rules, proposed, then),
        )

    async def _read(self, names: Iterable[DocumentName]) -> dict[DocumentName, StoredDocument]:
        wanted = list(names)
        found: dict[DocumentName, StoredDocument] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            read = await asyncio.gather(*(self._store.read(kind, name) for kind, name in some))
            found |= {name: stored for name, stored in zip(some, read, strict=True) if stored is not None}
        return found

    # ── whom it moves ────────────────────────────────────────────────────────────────────────────────────────────

    async def _model(
        self, model: str, overlay: Mapping[DocumentName, bytes | None], traffic: Traffic, most: int
    ) -> ModelPreview:
        touched = await self._both(model, overlay)
        now_ns = time.time_ns()
        if traffic.keys is not None:
            return await asyncio.to_thread(_of_keys, touched, traffic.keys, now_ns)
        since_ns = max(0, now_ns - traffic.window_s * 1_000_000_000)
        sampled = await asyncio.to_thread(self._audit.sample, model, since_ns, most)
        looked = await self._looked(touched, {(one.revision, one.cohort_revision) for one in sampled})
        recorded = _Recorded(sampled, looked, since_ns, len(sampled) >= most)
        return await asyncio.to_thread(_of_records, touched, recorded, now_ns)

    async def _looked(self, touched: _Touched, revisions: Iterable[Revisions]) -> Mapping[Revisions, Looked]:
        """Return at which headers the rules looked that decided the sampled requests, by their revisions."""
        return {one: await self._looked_then(touched, *one) for one in revisions}

    async def _looked_then(self, touched: _Touched, revision: int | None, cohort_revision: int | None) -> Looked:
        if (revision, cohort_revision) == (touched.revision, touched.cohort_revision):
            return looked_at(touched.present)
        if revision is None:
            return _UNTOLD
        try:
            then = await self._past.rules_at(touched.model, revision, cohort_revision)
            return looked_at(await asyncio.to_thread(then.parsed))
        except (DocumentNotFound, InvalidDocument, RulesUnavailable, AuditUnavailable):
            return _UNTOLD


def _json(stored: StoredDocument | None) -> bytes | None:
    return stored.json if stored is not None else None


def _pinning(routes: Mapping[str, StoredDocument], cohorts: set[str]) -> set[str]:
    """Return the models whose routes pin one of the cohorts. Only routes that hold a name at all are parsed."""
    quoted = [b'"%b"' % name.encode() for name in cohorts]
    return {
        model
        for model, stored in routes.items()
        if any(name in stored.json for name in quoted) and not cohorts.isdisjoint(pinned_by(stored.json))
    }


def _present_rules(route: bytes | None, cohorts: Mapping[str, bytes]) -> RouteRules:
    try:
        return route_rules(route, cohorts)
    except InvalidDocument:
        return RouteRules()  # what does not parse decides nothing, and is about to be replaced


def _of_keys(touched: _Touched, keys: Sequence[str], now_ns: int) -> ModelPreview:
    units = {unit_digest(key): key for key in keys}
    moves = compare((Seen(Facts(unit_digest(key), "", now_ns)) for key in keys), touched.present, touched.proposed)
    return preview_of(touched.model, touched.revision, moves, sample_of("keys", moves, None, False), units)


def _of_records(touched: _Touched, recorded: _Recorded, now_ns: int) -> ModelPreview:
    """Return whom a change would move now: expiry is held against the present, not against when a request came."""
    seen = (
        Seen(
            Facts(one.unit, one.record_id, now_ns, one.keyed, one.asked_version, one.headers),
            recorded.looked[one.revision, one.cohort_revision],
        )
        for one in recorded.sampled
    )
    moves = compare(seen, touched.present, touched.proposed)
    since = f"{datetime.fromtimestamp(recorded.since_ns // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    sample = sample_of("records", moves, since, recorded.limited)
    return preview_of(touched.model, touched.revision, moves, sample, {})
