"""Looking records up: one request with all that belongs to it, and listings of many.

Belongs here: records, manifests and rules put side by side. Never here: a judgement, or a decision taken again.
Every look-up leaves a control record before it is answered.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import answer, extended, missing_of
from gateway.admin.audit_parts import AuditParts
from gateway.admin.parameters import named, whole
from gateway.admin.requests import actor_of
from gateway.admin.shown import decision_of, shown_kept, shown_record
from gateway.admin.times import moment_of
from gateway.controlplane import ControlPlane, shown
from gateway.errors import AuditUnavailable, DocumentNotFound, RulesUnavailable
from gateway.ports import DocumentName, Filter, Kept
from gateway.record import Record

CATCH_UP_SECONDS = 1.0
"""How long a look-up waits until the records of the moment it came are in the store."""
LISTED = ("model", "version", "outcome", "reason", "role", "caller", "gateway", "action")
"""The parameters of a listing that are compared as they are."""
LISTING = (*LISTED, "status", "from", "to", "after", "limit")
_PAGE, _LARGEST_PAGE = 50, 1_000
_MANIFESTS = "version manifests"
_ROUTES = "routes"


class Audit:
    """`GET /admin/v1/audit/requests/{id}` and `GET /admin/v1/audit/records`."""

    def __init__(self, control: ControlPlane, parts: AuditParts) -> None:
        self._control = control
        self._parts = parts

    async def request(self, request: Request) -> Response:
        """Show every record of a request, oldest first, each with its shadows, its version and the decision.

        Raises:
            DocumentNotFound: there is no record of that id.
            AuditUnavailable: the audit store does not answer.
        """
        any_id = request.path_params["id"]
        caught_up = await asyncio.to_thread(self._parts.recorder.catch_up, CATCH_UP_SECONDS)
        found = await asyncio.to_thread(self._parts.store.find, any_id)
        behind = "" if caught_up else "the recorder is behind, so the newest records are not here yet; look again"
        await self._parts.records.keep("audit.lookup", actor_of(request), {"id": any_id[:1024], "found": len(found)})
        if not found:
            raise DocumentNotFound(_not_found(any_id, behind))
        context = _Context(self._control)
        entries = [await _entry(kept, shadows, context) for kept, shadows in families(found)]
        notes = [note for note in (behind, context.trouble) if note]
        return answer({"id": any_id, "records": entries, **({"notes": notes} if notes else {})})

    async def records(self, request: Request) -> Response:
        """List records, newest first: those that fit all of the parameters. `after` is the `next` of the page before.

        Raises:
            InvalidInput: a parameter is not of its form.
            AuditUnavailable: the audit store does not answer.
        """
        wanted = filter_of(request)
        limit = whole(request, "limit", 1, _LARGEST_PAGE) or _PAGE
        after = request.query_params.get("after")
        if after is None:
            await asyncio.to_thread(self._parts.recorder.catch_up, CATCH_UP_SECONDS)
        page = await asyncio.to_thread(self._parts.store.page, wanted, after, limit)
        asked = {name: value for name, value in request.query_params.items() if name not in ("after", "limit")}
        await self._parts.records.keep("audit.list", actor_of(request), {"filter": asked, "found": len(page.records)})
        return answer({"records": [shown_record(record) for record in page.records], "next": page.next})


def filter_of(request: Request) -> Filter:
    """Return which records the query of a request asks for. Raises `InvalidInput`."""
    given = {name: value for name in LISTED if (value := named(request, name)) is not None}
    return Filter(
        **given,
        status=whole(request, "status", 100, 599),
        since_ns=moment_of(request, "from"),
        until_ns=moment_of(request, "to"),
    )


class _Context:
    """What the rules say about records, each document asked for once; nothing more after its store failed.

    All of it is of the past: routes by the revision that decided, manifests as they were in the rules that were in
    force.
    """

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._manifests: dict[tuple[str, str, int], orjson.Fragment | None] = {}
        self._routes: dict[tuple[str, int], orjson.Fragment | None] = {}
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str:
        """What cannot be shown, and why; nothing when all of it can."""
        return "; ".join(f"{what} cannot be shown: {why}" for what, why in self._troubles.items())

    async def manifest(self, model: str, version: str | None, rules_revision: int | None) -> orjson.Fragment | None:
        """Return a version's manifest as it was at a revision of the rules, or None when it cannot be had."""
        if version is None or rules_revision is None:
            return None
        key = (model, version, rules_revision)
        if key not in self._manifests and _MANIFESTS not in self._troubles:
            name: DocumentName = ("version", f"{model}/{version}")
            try:
                stored = (await self._control.as_of(rules_revision, [name])).get(name)
                self._manifests[key] = (
                    extended(stored.json, {"incomplete": missing_of(stored.json)}) if stored is not None else None
                )
            except DocumentNotFound:
                self._manifests[key] = None
            except (RulesUnavailable, AuditUnavailable) as error:
                self._troubles[_MANIFESTS] = error.message
        return self._manifests.get(key)

    async def route(self, model: str, revision: int | None) -> orjson.Fragment | None:
        """Return the route of a model as the revision made it, or None when that cannot be had."""
        if revision is None:
            return None
        key = (model, revision)
        if key not in self._routes and _ROUTES not in self._troubles:
            try:
                self._routes[key] = await self._made_by(model, revision)
            except (RulesUnavailable, AuditUnavailable) as error:
                self._troubles[_ROUTES] = error.message
        return self._routes.get(key)

    async def _made_by(self, model: str, revision: int) -> orjson.Fragment | None:
        change = await self._control.revision(revision)
        for document in change.changes if change is not None else ():
            if document.kind == "route" and document.name == model and document.after is not None:
                return orjson.Fragment(document.after)
        return None


def families(found: Sequence[Kept]) -> list[tuple[Kept, list[Kept]]]:
    """Return each primary record with its shadows, in the order given; a shadow without its primary stands alone."""
    primaries = {kept.frame.record.record_id for kept in found if kept.frame.record.role == "primary"}
    shadows: dict[str, list[Kept]] = {}
    alone: list[Kept] = []
    for kept in found:
        record = kept.frame.record
        if record.role == "shadow" and record.primary_id in primaries:
            shadows.setdefault(str(record.primary_id), []).append(kept)
        else:
            alone.append(kept)
    return [(kept, shadows.get(kept.frame.record.record_id, [])) for kept in alone]


async def _entry(kept: Kept, shadows: Sequence[Kept], context: _Context) -> dict[str, Any]:
    record: Record = kept.frame.record
    return {
        **shown_kept(kept),
        "shadows": [shown_kept(shadow) for shadow in shadows],
        "version": await context.manifest(record.model, record.served or record.tried_first, record.rules_revision),
        "decision": {**decision_of(record), "route": await context.route(record.model, record.revision)},
    }


def _not_found(any_id: str, behind: str) -> str:
    note = f" ({behind})" if behind else ""
    return f"no record has the request id, record id or OIP id {shown(any_id)}{note}"
