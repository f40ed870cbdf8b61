"""Looking back over HTTP: what changed, when, by whom and why; the difference of two revisions; decisions explained.

Belongs here: one handler per call of the admin API's table. Never here: working out a decision or a difference.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import answer
from gateway.admin.bodies import ExplainBody, read_body
from gateway.admin.parameters import revision_of, whole
from gateway.controlplane import ControlPlane, Explained, Question
from gateway.errors import DocumentNotFound, InvalidDocument, InvalidInput
from gateway.ports import DocumentChange, Revision
from gateway.times import moment

MOST = 500
"""Revisions that one answer holds at most."""
_USUAL = 50
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Past:
    """The handlers; each is a Starlette endpoint for one method of one path."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    # ── history ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def history(self, request: Request) -> Response:
        """List the changes that made a model's rules what they are: its route, its versions, the cohorts it pins."""
        model = request.path_params["model"]
        before, limit = _page(request)
        found = await self._control.history(model, before, limit + 1)
        return answer({"model": model, **_listed(found, limit)})

    async def changes(self, request: Request) -> Response:
        """List the changes of every document."""
        before, limit = _page(request)
        return answer(_listed(await self._control.all_history(before, limit + 1), limit))

    async def change(self, request: Request) -> Response:
        """Show one change with its documents before and after."""
        number = revision_of(request.path_params["revision"])
        if (revision := await self._control.revision(number)) is None:
            raise DocumentNotFound(f"there is no revision {number}; GET /admin/v1/changes lists those there are")
        return answer(
            {
                **_head(revision),
                "changes": [
                    {**_brief(one), "before": _fragment(one.before), "after": _fragment(one.after)}
                    for one in revision.changes
                ],
                "preview": _fragment(revision.preview),
            }
        )

    async def diff(self, request: Request) -> Response:
        """Show field by field in what a route differs between two revisions, or between one and now."""
        model = request.path_params["model"]
        older, newer = whole(request, "from", 1), whole(request, "to", 1)
        if older is None:
            raise InvalidInput("from: name the revision to compare with, such as ?from=7&to=9")
        found = await self._control.diff(model, older, newer)
        return answer({"model": model, "from": older, "to": newer, "differences": msgspec.to_builtins(found)})

    # ── explain ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def explain(self, request: Request) -> Response:
        """Say which version serves (or served) a request, and rule by rule why."""
        body = await read_body(request, ExplainBody)
        revision, at_ns = _when(body.at)
        question = Question(
            key=body.key,
            headers=body.headers,
            version=body.version,
            record_id=body.record_id,
            request_id=body.request_id,
            revision=revision,
            at_ns=at_ns,
        )
        return answer(_explained(await self._control.explain(request.path_params["model"], question)))


def _page(request: Request) -> tuple[int | None, int]:
    return whole(request, "before", 1), whole(request, "limit", 1, MOST) or _USUAL


def _listed(found: Sequence[Revision], limit: int) -> dict[str, Any]:
    """Return a page of a history, which was asked for one more than fits; `next` is the `before` of the next page.

    Pages hang on numbers, not on places in a list, so what is made meanwhile moves none of them.
    """
    shown = found[:limit]
    listed = [
        {**_head(one), "changes": [_brief(change) for change in one.changes], "preview": _totals(one.preview)}
        for one in shown
    ]
    return {"revisions": listed, "next": shown[-1].revision if len(found) > limit else None}


def _head(revision: Revision) -> dict[str, Any]:
    return {
        "revision": revision.revision,
        # Rounded up, so that the rules of this very time are those that the revision made.
        "at": moment(revision.at_ns + 999),
        "actor": revision.actor,
        "comment": revision.comment,
        "operation_id": revision.operation_id,
    }


def _brief(change: DocumentChange) -> dict[str, Any]:
    outcome = "deleted" if change.after is None else "made" if change.before is None else "changed"
    return {"kind": change.kind, "name": change.name, "outcome": outcome}


def _fragment(json: bytes | None) -> orjson.Fragment | None:
    return orjson.Fragment(json) if json is not None else None


class _Totals(msgspec.Struct):
    callers_moved: int
    requests_moved: int


def _totals(preview: bytes | None) -> dict[str, int] | None:
    if preview is None:
        return None
    totals: dict[str, int] = msgspec.to_builtins(msgspec.json.decode(preview, type=_Totals))
    return totals


def _explained(explained: Explained) -> dict[str, Any]:
    """Return an explanation in one level, the moment that expiry was held against as a time to read."""
    fields: dict[str, Any] = msgspec.to_builtins(explained)
    fields |= fields.pop("explanation")
    return {**fields, "at": moment(explained.moment_ns)}


def _when(at: object) -> tuple[int | None, int | None]:
    """Return the revision or the time (Unix ns) that `at` names; none of the two without it."""
    if at is None:
        return None, None
    if isinstance(at, int) and not isinstance(at, bool) and at >= 1:
        return at, None
    if isinstance(at, str):
        try:
            parsed = msgspec.convert(at, _Moment)
        except msgspec.ValidationError:
            pass
        else:
            return None, (parsed - _EPOCH) // _MICROSECOND * 1000
    raise InvalidDocument("at", "expected the number of a revision, or a time such as 2026-12-31T00:00:00Z")
