"""The state of gateways, workers and rules store, and an operator's word when the store lost rules.

Belongs here: one handler per call of the admin API's table. Never here: which rules are right, or what is wrong with
a worker (that is `troubles`).
"""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import answer
from gateway.admin.bodies import ResettleBody, read_body
from gateway.admin.requests import origin_of
from gateway.admin.troubles import troubles_of
from gateway.controlplane import ControlPlane, Origin, Resettled

_SECOND_LOOK_SECONDS = 0.25


class State:
    """The handlers; each is a Starlette endpoint for one method of one path."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control

    async def status(self, _: Request) -> Response:
        """Show the rules store, every gateway and worker with the rules it has, and what waits to be confirmed.

        `troubles` says what is wrong, and `ok` that nothing is. A worker that is behind may be taking a change of
        this very moment, so the status is looked at again before that is said.
        """
        status = await self._control.status()
        if troubles_of(status):
            await asyncio.sleep(_SECOND_LOOK_SECONDS)
            status = await self._control.status()
        troubles = troubles_of(status)
        return answer({"ok": not troubles, "troubles": troubles, **msgspec.to_builtins(status)})

    async def republish(self, request: Request) -> Response:
        """Make the last good rules of this gateway those of the store, which lost them."""
        return await _resettle(request, self._control.republish)

    async def accept(self, request: Request) -> Response:
        """Take the rules that the store has now for right."""
        return await _resettle(request, self._control.accept)


async def _resettle(request: Request, resettle: Callable[[Origin, bool], Awaitable[Resettled]]) -> Response:
    origin = origin_of(request)
    body = await read_body(request, ResettleBody)
    resettled = await resettle(origin, body.dry_run)
    published = resettled.published
    return answer(msgspec.to_builtins(resettled), 202 if published is not None and not published.in_force else 200)
