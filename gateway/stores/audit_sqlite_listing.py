"""Listings over all days of the audit store, page by page, newest first by (day, received time).

A page looks at a bounded number of records: it goes through the index that fits its filter best, and ends where it has
found enough or looked at too many. Where it ended, the next one goes on.

Belongs here: pages and where they end. Never here: what a filter means for one record.
"""

import base64
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Final

import apsw
import msgspec
from msgspec import Struct

from gateway.columns import bounded
from gateway.errors import InvalidInput
from gateway.ports import Filter, Page
from gateway.record import Record
from gateway.stores import audit_sqlite_lookups as lookups
from gateway.stores.audit_sqlite_extents import Extents
from gateway.stores.audit_sqlite_files import DayFiles
from gateway.stores.sqlite_file import Damaged

MOST_LOOKED_AT: Final = (
    15_000  # a page of a rare filter stays below 200 ms, each record looked at being a row of its own
)
_A_DAY_COUNTS: Final = 100  # opening the file of a day takes as long as looking at so many records
_LAST_DAY: Final = "9999-12-31"


class _Cursor(Struct, frozen=True, array_like=True):
    """Behind which record a page begins: received time and number, in a day; number 0: at the day's beginning."""

    day: str
    received_ns: int
    number: int


class _Part(Struct, frozen=True):
    """What one day gives to a page, how many records were looked at, and behind which the rest begins, if any."""

    records: Sequence[Record]
    looked_at: int
    rest: tuple[int, int] | None


def page(
    files: DayFiles, extents: Extents, wanted: Filter, after: str | None, limit: int, *, most: int = MOST_LOOKED_AT
) -> Page:
    """Return the next `limit` records of a listing.

    Raises:
        InvalidInput: `after` is not the `next` of a page.
    """
    cursor = _unpacked(after) if after is not None else _Cursor(_LAST_DAY, 0, 0)
    records: list[Record] = []
    for day, extent in reversed(extents.all().items()):
        if day > cursor.day or not extent.meets(wanted.since_ns, wanted.until_ns):
            continue
        if most <= 0 or len(records) >= limit:
            return Page(records, _packed(_Cursor(day, 0, 0)))
        behind = (cursor.received_ns, cursor.number) if day == cursor.day and cursor.number else None
        question = partial(_part, day=day, wanted=wanted, behind=behind, limit=limit - len(records), most=most)
        part = files.ask(day, question) or _Part((), 0, None)
        records += part.records
        if part.rest is not None:
            return Page(records, _packed(_Cursor(day, *part.rest)))
        most -= part.looked_at + _A_DAY_COUNTS
    return Page(records, None)


def _part(
    connection: apsw.Connection, day: str, wanted: Filter, behind: tuple[int, int] | None, *, limit: int, most: int
) -> _Part:
    found = lookups.conditions(connection, wanted)
    if found is None:
        return _Part((), 0, None)
    fits, values = found
    index, through, bounds = _way(connection, wanted)
    if behind is not None:
        through += " AND received_ns <= ? AND (received_ns < ? OR number < ?)"
        bounds += [bounded(value) for value in (behind[0], *behind)]
    statement = (
        f"SELECT number, received_ns, {fits} FROM records INDEXED BY {index} WHERE {through} "  # noqa: S608 - names of ours
        "ORDER BY received_ns DESC, number DESC"
    )
    numbers: list[int] = []
    looked_at, rest, last = 0, None, (0, 0)
    with closing(connection.execute(statement, (*values, *bounds))) as cursor:
        for row in cursor:
            number, received_ns, fitting = row
            if looked_at >= most or len(numbers) >= limit:
                rest = last
                break
            looked_at, last = looked_at + 1, (received_ns, number)
            if fitting:
                numbers.append(number)
    if behind is not None and rest is not None and rest >= behind:
        raise Damaged(f"the order of the records kept under {day} is broken; verify the records")
    return _Part(lookups.listed_in(connection, day, numbers), looked_at, rest)


def _way(connection: apsw.Connection, wanted: Filter) -> tuple[str, str, list[int]]:
    """Return the index that leads through the fewest records, the condition that it needs, and its values."""
    bounds: list[int] = []
    if wanted.role == "control":
        index, through = "records_of_control", "role = 2"
    elif wanted.outcome is not None and wanted.outcome != "served":
        index, through = "records_not_served", "outcome <> 0"
    elif wanted.model is not None:
        index, through = "records_by_model", "model = ?"
        bounds.append(lookups.word_of(connection, wanted.model) or 0)
    else:
        index, through = "records_by_time", "1"
    for condition, value in ((" AND received_ns >= ?", wanted.since_ns), (" AND received_ns < ?", wanted.until_ns)):
        if value is not None:
            through += condition
            bounds.append(bounded(value))
    return index, through, bounds


def _packed(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).decode()


def _unpacked(text: str) -> _Cursor:
    try:
        return msgspec.msgpack.decode(base64.b64decode(text, altchars=b"-_", validate=True), type=_Cursor)
    except (ValueError, msgspec.DecodeError):
        raise InvalidInput("after: it is not the `next` of a page") from None
