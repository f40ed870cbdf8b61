"""Proofs over HTTP that are made at once: what is complete, one record's receipt, the key that signs.

Belongs here: one handler per call. Never here: how something is proven, or work that takes long (`evidence`).
"""

import asyncio

import msgspec
import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import answer
from gateway.admin.audit import CATCH_UP_SECONDS
from gateway.admin.audit_parts import SEAL_SECONDS, AuditParts
from gateway.admin.requests import actor_of
from gateway.admin.times import times_of
from gateway.errors import AuditUnavailable, NotCovered
from gateway.evidence.completeness import board_sequences, completeness
from gateway.evidence.receipts import place_of, receipt


class Proofs:
    """The handlers; each is a Starlette endpoint for one method of one path."""

    def __init__(self, parts: AuditParts) -> None:
        self._parts = parts

    async def completeness(self, request: Request) -> Response:
        """Count for each journal what was served, and what became of every record of it.

        Raises:
            AuditUnavailable: the store or a journal cannot be read.
        """
        since_ns, until_ns = times_of(request)
        parts = self._parts

        def count() -> bytes:
            try:
                found = completeness(
                    parts.store,
                    parts.gateway,
                    parts.data_dir / "journal",
                    board_sequences(parts.data_dir / "run"),
                    since_ns=since_ns,
                    until_ns=until_ns,
                )
            except OSError as error:
                raise AuditUnavailable(f"a journal cannot be read: {error.strerror}") from None
            return msgspec.json.encode({**msgspec.to_builtins(found), "complete": found.complete})

        counted = await asyncio.to_thread(count)
        asked = {"since_ns": since_ns, "until_ns": until_ns}
        await parts.records.keep("audit.completeness", actor_of(request), asked)
        return answer(orjson.Fragment(counted))

    async def receipt(self, request: Request) -> Response:
        """Return the receipt of one record. One that no checkpoint covers yet is sealed first.

        Raises:
            DocumentNotFound: there is no record of that record id.
            NotCovered: it was pruned, or no checkpoint could be made in time.
            NotProven: the store does not prove it any more.
            AuditUnavailable: the store fails.
        """
        record_id = request.path_params["id"]
        parts = self._parts
        await asyncio.to_thread(parts.recorder.catch_up, CATCH_UP_SECONDS)
        place = await asyncio.to_thread(place_of, parts.store, record_id)
        try:
            made = await asyncio.to_thread(receipt, parts.store, place, parts.key)
        except NotCovered:
            await asyncio.to_thread(parts.recorder.seal, SEAL_SECONDS)
            made = await asyncio.to_thread(receipt, parts.store, place, parts.key)
        await parts.records.keep("audit.receipt", actor_of(request), {"record_id": record_id})
        return answer(orjson.Fragment(made))

    async def key(self, _: Request) -> Response:
        """Return the public key of this gateway, for whoever checks its receipts and checkpoints."""
        return answer({"gateway": self._parts.gateway, "key": self._parts.key.id, "pem": self._parts.key.pem})
