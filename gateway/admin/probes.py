"""Metrics and probes of the control process.

Belongs here: handing out what is known. Never here: counting, or judging a worker's readiness.
"""

import asyncio
from collections.abc import Callable, Collection

from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import answer
from gateway.admin.audit_parts import AuditParts
from gateway.book import CONTENT_TYPE, Book

_PATIENCE_SECONDS = 0.25
"""What a scrape waits for records that have been written but not counted yet; figures of a moment ago will do then."""


class Probes:
    """`/metrics`, `/healthz` and `/readyz`. `troubles` returns why the process is not ready; nothing when it is."""

    def __init__(self, book: Book, parts: AuditParts, troubles: Callable[[], Collection[str]]) -> None:
        self._book = book
        self._parts = parts
        self._troubles = troubles

    async def metrics(self, _: Request) -> Response:
        """Return every figure in Prometheus' text format, every reply that left before the scrape counted in."""
        return Response(await asyncio.to_thread(self._render), headers={"content-type": CONTENT_TYPE})

    def _render(self) -> bytes:
        self._parts.recorder.catch_up(_PATIENCE_SECONDS)
        return self._book.render()

    async def live(self, _: Request) -> Response:
        """Say that the process runs."""
        return answer({"live": True})

    async def ready(self, _: Request) -> Response:
        """Say whether the process can do its work, and if not, why."""
        if troubles := list(self._troubles()):
            return answer({"ready": False, "why": troubles}, 503)
        return answer({"ready": True})
