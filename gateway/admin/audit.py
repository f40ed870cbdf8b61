"""The look-up of a request: every record of it, what version answered and from what it was made, and why that one.

Belongs here: records, manifests and rules put side by side. Never here: a judgement, or a decision taken again.
"""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import answer, extended, missing_of, moment
from gateway.controlplane import ControlPlane, shown
from gateway.errors import AuditUnavailable, DocumentNotFound, RulesUnavailable
from gateway.ports import AuditStore
from gateway.record import Payload, Record
from gateway.recorder import Recorder

CATCH_UP_SECONDS = 1.0
"""How long a look-up waits until the records of the moment it came are in the store."""
_MANIFESTS = "version manifests"
_ROUTES = "routes"


class Audit:
    """`GET /admin/v1/audit/requests/{id}`; the id is a request id, a record id, or the `id` of an OIP body."""

    def __init__(self, control: ControlPlane, store: AuditStore, recorder: Recorder) -> None:
        self._control = control
        self._store = store
        self._recorder = recorder

    async def request(self, request: Request) -> Response:
        """Show every record of a request, oldest first, each with its shadows, its version and the decision.

        Raises:
            DocumentNotFound: there is no record of that id.
            AuditUnavailable: the audit store does not answer.
        """
        any_id = request.path_params["id"]
        caught_up = await asyncio.to_thread(self._recorder.catch_up, CATCH_UP_SECONDS)
        records = await asyncio.to_thread(self._store.find, any_id)
        behind = "" if caught_up else "the recorder is behind, so the newest records are not here yet; look again"
        if not records:
            raise DocumentNotFound(_not_found(any_id, behind))
        context = _Context(self._control)
        entries = [await _entry(record, shadows, context) for record, shadows in families(records)]
        notes = [note for note in (behind, context.trouble) if note]
        return answer({"id": any_id, "records": entries, **({"notes": notes} if notes else {})})


class _Context:
    """What the rules say about records, each document asked for once; nothing more after its store failed.

    Present manifests come from the rules store; routes of the past, which is where a record's is, from the archive.
    """

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._manifests: dict[tuple[str, str], orjson.Fragment | None] = {}
        self._routes: dict[tuple[str, int], orjson.Fragment | None] = {}
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str:
        """What cannot be shown, and why; nothing when all of it can."""
        return "; ".join(f"{what} cannot be shown: {why}" for what, why in self._troubles.items())

    async def manifest(self, model: str, version: str | None) -> orjson.Fragment | None:
        """Return a version's manifest, or None when it cannot be had."""
        if version is None:
            return None
        key = (model, version)
        if key not in self._manifests and _MANIFESTS not in self._troubles:
            try:
                stored = await self._control.version(model, version)
                self._manifests[key] = extended(stored.json, {"incomplete": missing_of(stored.json)})
            except DocumentNotFound:
                self._manifests[key] = None
            except RulesUnavailable as error:
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


def families(records: Sequence[Record]) -> list[tuple[Record, list[Record]]]:
    """Return each primary record with its shadows, in the order given; a shadow without its primary stands alone."""
    primaries = {record.record_id for record in records if record.role == "primary"}
    shadows: dict[str, list[Record]] = {}
    for record in records:
        if record.role == "shadow" and record.primary_id in primaries:
            shadows.setdefault(str(record.primary_id), []).append(record)
    alone = (record for record in records if record.role == "primary" or record.primary_id not in primaries)
    return [(record, shadows.get(record.record_id, [])) for record in alone]


async def _entry(record: Record, shadows: Sequence[Record], context: _Context) -> dict[str, Any]:
    return {
        **shown_record(record),
        "shadows": [shown_record(shadow) for shadow in shadows],
        "version": await context.manifest(record.model, record.served or record.intended),
        "decision": {
            "reason": record.reason,
            "rule": record.rule,
            "cohort": record.cohort,
            "revision": record.revision,
            "explained": explained(record),
            "route": await context.route(record.model, record.revision),
        },
    }


def shown_record(record: Record) -> dict[str, Any]:
    """Return every field of a record as JSON has it, also those of default value, and the time for people to read."""
    fields: dict[str, Any] = {name: getattr(record, name) for name in record.__struct_fields__}
    fields["received"] = moment(record.received_ns)
    fields["request"] = shown_payload(record.request)
    fields["response"] = shown_payload(record.response)
    fields["attempts"] = [{name: getattr(one, name) for name in one.__struct_fields__} for one in record.attempts]
    return fields


def shown_payload(payload: Payload) -> dict[str, Any]:
    """Return a payload with its body as text if it is UTF-8, else in base64 and `encoding` saying so."""
    fields = {name: getattr(payload, name) for name in payload.__struct_fields__}
    if payload.body is not None:
        try:
            fields["body"] = payload.body.decode()
        except UnicodeDecodeError:
            fields |= {"body": base64.b64encode(payload.body).decode(), "encoding": "base64"}
    return fields


def explained(record: Record) -> str:
    """Return in a sentence or two why this version answered, or why none did."""
    sentences = [_chosen(record)]
    if record.served is not None and record.served != record.intended:
        sentences.append(f"Version {record.served} served in its place, because it failed.")
    elif record.served is None and record.error:
        sentences.append(f"No version answered: {record.error}")
    if record.stale:
        sentences.append("The rules were the last known ones, because the rules store did not answer then.")
    return " ".join(sentences)


def _chosen(record: Record) -> str:
    subject = "the caller's routing key" if record.keyed else "the record id (the request brought no routing key)"
    match record.reason:
        case "explicit":
            return f"The caller named version {record.intended}, and the route lets callers do that."
        case "pin":
            return f"The caller is in cohort {record.cohort}, which {record.rule} sends to version {record.intended}."
        case "split":
            return (
                "No pin held for the caller. Of the versions in the split, weighted rendezvous hashing of "
                f"{subject} gave version {record.intended}."
            )
        case "shadow":
            return (
                f"A copy of request {record.primary_id}, which the route's shadows send to version {record.intended}."
            )
        case _:
            return "The request was refused before a version was chosen."


def _not_found(any_id: str, behind: str) -> str:
    note = f" ({behind})" if behind else ""
    return f"no record has the request id, record id or OIP id {shown(any_id)}{note}"
