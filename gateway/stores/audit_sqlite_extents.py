"""Between which times and sequences the records of a day lie, so that look-ups need not open days that cannot help.

A day is complete as soon as a later one has begun; what was found out about a complete day is remembered. (Thinning
takes records out of it, which leaves what is said here true: where a record can be, not that there is one.)

Belongs here: those facts. Never here: look-ups that use them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import apsw
from msgspec import Struct

from gateway.ports import Place
from gateway.stores.audit_sqlite_files import DayFiles
from gateway.stores.audit_sqlite_index import Index
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


class Extent(Struct, frozen=True):
    """The first and last received time (Unix ns) in a day, and of each journal the first and last sequence.

    Stubs count. A day without either has a last time before its first.
    """

    first_ns: int
    last_ns: int
    journals: Mapping[str, tuple[int, int]]

    def meets(self, since_ns: int | None, until_ns: int | None) -> bool:
        """Tell whether something in it may have been received within these times, `until_ns` excluded."""
        return (until_ns is None or self.first_ns < until_ns) and (since_ns is None or self.last_ns >= since_ns)

    def holds(self, place: Place) -> bool:
        """Tell whether a place may be in it."""
        first, last = self.journals.get(place.journal, (1, 0))
        return first <= place.sequence <= last


NOTHING: Final = Extent(2**63 - 1, -(2**63), {})


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
            if self._files.ask(day, _has_begun):
                self._begun.add(day)
                return day
        return None

    def all(self) -> dict[str, Extent]:
        """Return the extents of all days, in order of days."""
        days = self._files.days()
        newest = self.newest(days)
        if len(self._known) > len(days):
            for gone in self._known.keys() - set(days):
                self._known.pop(gone, None)
        found: dict[str, Extent] = {}
        for day in days:
            known = self._known.get(day)
            if known is None:
                known = self._extent(day)
                if known is None:
                    continue
                if newest is not None and day < newest:
                    self._known[day] = known
            found[day] = known
        return found

    def _extent(self, day: str) -> Extent | None:
        try:
            return self._files.ask(day, extent_in)
        except Damaged:
            # Look-ups have to ask it, and will say what is wrong; which places it held is known to the index.
            return Extent(-(2**63), 2**63 - 1, self._index.extents(day))

    def forget(self, day: str) -> None:
        """Forget a day, since it is no longer there."""
        self._known.pop(day, None)
        self._begun.discard(day)


def extent_in(connection: apsw.Connection) -> Extent:
    """Return the extent of a day."""
    times: Any = connection.execute(_TIMES).fetchone()
    rows: list[Any] = connection.execute(_JOURNALS).fetchall()
    ranges = {name: _range(ends) for name, *ends in rows}
    first_ns, last_ns = _range(times) or (NOTHING.first_ns, NOTHING.last_ns)
    return Extent(first_ns, last_ns, {name: found for name, found in ranges.items() if found is not None})


def _range(ends: Sequence[int | None]) -> tuple[int, int] | None:
    known = [end for end in ends if end is not None]
    return (min(known), max(known)) if known else None


def _has_begun(connection: apsw.Connection) -> bool:
    return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM begun)").get)
