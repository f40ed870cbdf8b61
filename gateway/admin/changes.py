"""Changes of many documents over HTTP, what they would move, going back, and letting an unconfirmed change stand.

Belongs here: one handler per call of the admin API's table. Never here: a rule; every yes and no is the control
plane's.
"""

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import answer, outcome
from gateway.admin.bodies import MANY_BYTES, ChangeBody, PreviewBody, RollbackBody, read_body, read_nothing, texts_of
from gateway.admin.requests import etag, expected_revision, origin_of
from gateway.controlplane import ControlPlane, Proposed, Traffic, shown
from gateway.errors import InvalidDocument


class Changes:
    """The handlers; each is a Starlette endpoint for one method of one path."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    async def change(self, request: Request) -> Response:
        """Put many documents in force together or not at all, as one revision."""
        origin = origin_of(request)
        body = await read_body(request, ChangeBody, MANY_BYTES)
        published = await self._control.change(
            texts_of(body.documents), body.expect, body.allow_incomplete, origin, body.terms()
        )
        return outcome(published, new=False)

    async def preview(self, request: Request) -> Response:
        """Say whom documents would move, of routing keys or of the requests of late. Changes nothing."""
        body = await read_body(request, PreviewBody, MANY_BYTES)
        return await self._previewed(await self._control.proposed(texts_of(body.documents)), body)

    async def preview_route(self, request: Request) -> Response:
        """Say the same of the route of one model and of cohorts; a route of another model is refused."""
        model = request.path_params["model"]
        body = await read_body(request, PreviewBody, MANY_BYTES)
        proposed = await self._control.proposed(texts_of(body.documents))
        for index, one in enumerate(proposed):
            if one.kind == "route" and one.name != model:
                raise InvalidDocument(
                    f"documents[{index}].model",
                    f"the document is of {one.name}, its address of {shown(model)}; preview it at the address of its "
                    "own model, or several at /admin/v1/changes/preview",
                )
        return await self._previewed(proposed, body)

    async def _previewed(self, proposed: Sequence[Proposed], body: PreviewBody) -> Response:
        if body.keys is not None and body.window_s is not None:
            raise InvalidDocument("window_s", "keys are given, so no record is looked at; leave one of the two out")
        traffic = Traffic(body.keys) if body.window_s is None else Traffic(None, body.window_s)
        return answer(msgspec.to_builtins(await self._control.preview(proposed, traffic)))

    async def rollback(self, request: Request) -> Response:
        """Bring a route back as it was at a revision, or before its last change, as a new revision."""
        model = request.path_params["model"]
        expect = await expected_revision(request, lambda: self._control.route(model))
        origin = origin_of(request)
        body = await read_body(request, RollbackBody)
        published = await self._control.rollback(model, body.to, body.cohorts, expect, origin, body.terms())
        return outcome(published, new=False)

    async def confirm(self, request: Request) -> Response:
        """Let the unconfirmed change of a model's route stand."""
        model = request.path_params["model"]
        await read_nothing(request)
        revision = await self._control.confirm(model, origin_of(request))
        return answer({"model": model, "revision": revision, "confirmed": True}, headers={"etag": etag(revision)})
