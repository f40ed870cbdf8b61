"""Taking contents and records out: erasing on request, pruning what is over.

Belongs here: HTTP to those two. Never here: what is taken, or the control records of it (`evidence` keeps them).
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import answer
from gateway.admin.audit_parts import AuditParts
from gateway.admin.bodies import read_body
from gateway.admin.requests import actor_of, comment_of
from gateway.errors import InvalidDocument

_Named = Annotated[str, Meta(min_length=1, max_length=1024)]


class EraseBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose contents go: those of one routing key, or those of one request by any of its ids."""

    unit_key: _Named | None = None
    request_id: _Named | None = None


class PruneBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether only to say what would be pruned."""

    dry_run: bool = False


class Privacy:
    """`POST /admin/v1/audit/erase` and `POST /admin/v1/audit/prune`."""

    def __init__(self, parts: AuditParts) -> None:
        self._parts = parts

    async def erase(self, request: Request) -> Response:
        """Erase contents for good; the records stay and still verify."""
        body = await read_body(request, EraseBody)
        actor, comment = actor_of(request), comment_of(request)
        if (body.unit_key is None) == (body.request_id is None):
            raise InvalidDocument("unit_key", "name either unit_key or request_id, and not both")
        if body.unit_key is not None:
            erased = await self._parts.erasing.erase_caller(body.unit_key, actor, comment)
        else:
            assert body.request_id is not None
            erased = await self._parts.erasing.erase_request(body.request_id, actor, comment)
        return answer(msgspec.to_builtins(erased))

    async def prune(self, request: Request) -> Response:
        """Prune what is over by the settings now, or say what that would be."""
        body = await read_body(request, PruneBody)
        if body.dry_run:
            due = await self._parts.pruning.due()
        else:
            due = await self._parts.pruning.prune(actor_of(request), comment_of(request))
        return answer({"dry_run": body.dry_run, "pruned": msgspec.to_builtins(due)})
