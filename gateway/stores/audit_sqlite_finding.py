"""Looking an id up over all days of the audit store, and opening few of them.

A record id tells when its record was received, so of complete days only those are opened that have records of that
time. Ids that callers choose, and the ids of strays, are looked for in the filters of the index; where there is no
filter yet, which is the newest day's last chunk, in the file itself.

Belongs here: which days to ask. Never here: what to ask one day.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import apsw

from gateway.columns import made_in, packed_id
from gateway.ports import FIND_LIMIT, Kept, Place
from gateway.stores import audit_sqlite_lookups as lookups
from gateway.stores.audit_sqlite_day import CHUNK_BITS, oip_key, request_key, stray_key
from gateway.stores.audit_sqlite_extents import Extents
from gateway.stores.audit_sqlite_files import DayFiles
from gateway.stores.audit_sqlite_index import UNFINISHED, Extent, Finished, Index

_MS = 1_000_000
_Search = Callable[[apsw.Connection, str, Iterable[int], int], list[int]]
_InDay = Callable[[apsw.Connection, Iterable[str]], list[int]]


class Finding:
    """One look-up: what the index and the extents say is asked once."""

    def __init__(self, files: DayFiles, index: Index, extents: Extents) -> None:
        self._files = files
        self._index = index
        self._extents: dict[str, Extent] = extents.all()
        self._finished: Mapping[str, Finished] = index.finished()
        self._strays = any(one.strays for one in self._finished.values())

    def find(self, any_id: str) -> Sequence[Kept]:
        """Return the records that a record id, request id or OIP id names, oldest first, with their families."""
        named = {
            **self._of(lookups.of_ids, [any_id]),
            **self._chosen(lookups.of_request, any_id, request_key(any_id), lambda kept: kept.frame.record.request_id),
            **self._chosen(lookups.of_oip, any_id, oip_key(any_id), lambda kept: kept.frame.record.oip_id),
        }
        records = [kept.frame.record for kept in named.values()]
        shadowed = [
            record.primary_id for record in records if record.role == "shadow" and record.primary_id is not None
        ]
        named |= self._of(lookups.of_ids, shadowed)
        named |= self._of(lookups.shadows_of, [record.record_id for record in records if record.role == "primary"])
        return sorted(named.values(), key=_oldest_first)

    def _of(self, search: _InDay, record_ids: Sequence[str]) -> dict[Place, Kept]:
        found: dict[Place, Kept] = {}
        for day, ids in self._days_of(record_ids).items():
            found |= self._kept(day, search, ids)
        return found

    def _days_of(self, record_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return which days may have records of which of these ids, or shadows of them."""
        found: dict[str, list[str]] = {}
        for record_id in dict.fromkeys(record_ids):
            packed = packed_id(record_id)
            made = made_in(packed)
            strays = self._index.may_hold(stray_key(packed)) if self._strays else {}
            for day, extent in self._extents.items():
                timely = made is not None and extent.meets(made * _MS, (made + 1) * _MS)
                if timely or day in strays or not self._finished.get(day, UNFINISHED).final:
                    found.setdefault(day, []).append(record_id)
        return found

    def _chosen(self, search: _Search, any_id: str, key: int, said: Callable[[Kept], str | None]) -> dict[Place, Kept]:
        """Return the newest records that a caller gave an id, which `said` reads."""
        found: dict[Place, Kept] = {}
        filters = self._index.may_hold(key)
        for day in reversed(self._extents):
            finished = self._finished.get(day, UNFINISHED)
            chunks = list(filters.get(day, ()))
            if not finished.final:
                last = self._files.ask(day, lookups.last_number) or 0
                chunks += range(finished.chunks, (last >> CHUNK_BITS) + 1)
            if chunks:
                kept = self._kept(day, search, any_id, chunks, FIND_LIMIT - len(found))
                found |= {place: one for place, one in kept.items() if said(one) == any_id}
            if len(found) >= FIND_LIMIT:
                break
        return found

    def _kept(self, day: str, search: Callable[..., list[int]], *sought: Any) -> dict[Place, Kept]:
        def question(connection: apsw.Connection) -> list[Kept]:
            return lookups.kept_in(connection, day, search(connection, *sought))

        found = self._files.ask(day, question) or ()
        return {Place(kept.frame.journal, kept.frame.sequence): kept for kept in found}


def _oldest_first(kept: Kept) -> tuple[int, bool, str, Place]:
    record = kept.frame.record
    place = Place(kept.frame.journal, kept.frame.sequence)
    return record.received_ns, record.role != "primary", record.record_id, place
