"""Between which times and sequences the records of a day lie, so that look-ups need not open days that cannot help.

A day is complete as soon as a later one has begun; what was found out about a complete day is remembered. (Thinning
takes records out of it, which leaves what is said here true: where a record can be, not that there is one.)

Belongs here: those facts. Never here: look-ups that use them.
"""

from collections.abc import Sequence
from typing import Any, Final

import apsw

from gateway.stores.audit_sqlite_files import DayFiles
from gateway.stores.audit_sqlite_index import Extent, Index
from gateway.stores.sqlite_file import Damaged

_TIMES: Final = """
SELECT (SELECT min(received_ns) FROM records), (SELECT max(received_ns) FROM records),
       (SELECT min(received_ns) FROM stubs), (SELECT max(received_ns) FROM stubs)
"""
_JOURNALS: Final = """
SELECT name,
  (SELECT min(sequence) FROM records WHERE journal = id), (SELECT max(sequence) FROM records WHERE journal = id),
  (SELECT min(sequence) FROM stubs WHERE journal = id), (SELECT max(sequence) FROM stubs WHERE journal = id)
FROM journals
"""


class Extents:
    """The extents of all days. Every call may come from any thread; raises `AuditUnavailable`."""

    def __init__(self, files: DayFiles, index: Index) -> None:
        self._files = files
        self._index = index
        self._known: dict[str, Extent] = {}
        self._begun: set[str] = set()

    def newest(self, days: Sequence[str] | None = None) -> str | None:
        """Return the day that records are written to, of which alone more may come: the last that has begun."""
        for day in reversed(self._files.days() if days is None else days):
            if day in self._begun:
                return day
            try:
                begun = self._files.ask(day, _has_begun)
            except Damaged:
                begun = True  # what was committed to it was no less
            if begun:
                self._begun.add(day)
                return day
        return None

    def all(self) -> dict[str, Extent]:
        """Return the extents of all days, in order of days."""
        days = self._files.days()
        newest = self.newest(days)
        for gone in self._known.keys() - set(days):
            self._known.pop(gone, None)
        unknown = [day for day in days if day not in self._known]
        kept = self._index.extents() if len(unknown) > 1 else {}
        found: dict[str, Extent] = {}
        for day in unknown:
            complete = newest is not None and day < newest
            extent = kept.get(day) if complete else None
            if extent is None:
                extent = self._read(day)
            if extent is None:
                continue
            (self._known if complete and not extent.unreadable else found)[day] = extent
        return {day: one for day in days if (one := found.get(day) or self._known.get(day)) is not None}

    def _read(self, day: str) -> Extent | None:
        try:
            return self._files.ask(day, extent_in)
        except Damaged as error:
            return Extent(-(2**63), 2**63 - 1, {}, error.message)

    def forget(self, day: str) -> None:
        """Forget a day, since it is no longer there."""
        self._known.pop(day, None)
        self._begun.discard(day)


def extent_in(connection: apsw.Connection) -> Extent:
    """Return the extent of a day."""
    times: Any = connection.execute(_TIMES).fetchone()
    rows: list[Any] = connection.execute(_JOURNALS).fetchall()
    ranges = {name: _range(ends) for name, *ends in rows}
    first_ns, last_ns = _range(times) or (2**63 - 1, -(2**63))
    return Extent(first_ns, last_ns, {name: found for name, found in ranges.items() if found is not None})


def _range(ends: Sequence[int | None]) -> tuple[int, int] | None:
    known = [end for end in ends if end is not None]
    return (min(known), max(known)) if known else None


def _has_begun(connection: apsw.Connection) -> bool:
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM begun)").get)
