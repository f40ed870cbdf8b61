"""Erasing the contents of records for good: of one request, or of everything that one caller ever sent.

What is erased are the parts: bodies, their digests and salts. The sealed records stay, so the chain still verifies,
and with them what decided (the digest of the routing key, the values of headers that cohorts look at). A control
record of the erasure comes first, so that nothing can go without one.

Belongs here: the order of those steps. Never here: SQL, the format of journals, or HTTP.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from gateway.control_records import ControlRecords
from gateway.errors import AuditUnavailable, DocumentNotFound
from gateway.evidence.places import ERASE, places_digest
from gateway.journal.erasing import erase_in_journals
from gateway.ports import AuditStore, Place
from routing import unit_digest

_NAMED_RECORDS = 100


class Erased(Struct, frozen=True):
    """What an erasure took: `records` now, of `places` in all (the others had no contents any more)."""

    erasure: str
    places: int
    records: int


class Erasing:
    """Erases contents. `caught_up` waits until the journals are in the store and tells whether they are."""

    def __init__(
        self, store: AuditStore, control: ControlRecords, journals: Path, caught_up: Callable[[], bool]
    ) -> None:
        self._store = store
        self._control = control
        self._journals = journals
        self._caught_up = caught_up

    async def erase_caller(self, key: str, actor: str, comment: str) -> Erased:
        """Erase the contents of every record of the caller with this routing key, shadows included.

        Raises:
            DocumentNotFound: there is no such record.
            AuditUnavailable: the store or the journals fail, or are not in step; what is not done can be done again.
        """
        await self._wait()
        unit = unit_digest(key)
        places = await asyncio.to_thread(self._store.places_of, unit)
        if not places:
            raise DocumentNotFound("no record is of a caller with that routing key")
        return await self._erase(places, {"unit": unit.hex()}, [], actor, comment)

    async def erase_request(self, any_id: str, actor: str, comment: str) -> Erased:
        """Erase the contents of every record that an id finds, shadows included. Raises as `erase_caller` does."""
        await self._wait()
        found = [
            kept for kept in await asyncio.to_thread(self._store.find, any_id) if kept.frame.record.role != "control"
        ]
        if not found:
            raise DocumentNotFound("no record has that request id, record id or OIP id")
        places = [Place(kept.frame.journal, kept.frame.sequence) for kept in found]
        names = [kept.frame.record.record_id for kept in found]
        return await self._erase(places, {"request_id": any_id}, names, actor, comment)

    async def _wait(self) -> None:
        if not await asyncio.to_thread(self._caught_up):
            raise AuditUnavailable("the recorder is behind, so not all of the records are there yet; try again shortly")

    async def _erase(
        self, places: Sequence[Place], asked: dict[str, str], names: Sequence[str], actor: str, comment: str
    ) -> Erased:
        details = {
            **asked,
            "count": len(set(places)),
            "places_sha256": places_digest(places),
            "record_ids": list(names[:_NAMED_RECORDS]),
        }
        erasure = await self._control.keep(ERASE, actor, details, comment=comment)
        records = await asyncio.to_thread(self._store.erase, places, erasure)
        try:
            await asyncio.to_thread(erase_in_journals, self._journals, places)
        except OSError as error:
            raise AuditUnavailable(f"the store has erased them, the journals could not: {error}; erase again") from None
        return Erased(erasure, len(set(places)), records)
