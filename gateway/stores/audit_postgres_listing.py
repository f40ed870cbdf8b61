"""Listings of the audit store in PostgreSQL, page by page.

A statement looks at one day, and at a bounded number of records of it: where a filter leaves few, the end of that
stretch is found first, in an index alone. A model's records are asked for in the order of the one index that has them
by model; asked for in order of time alone, they would be picked out of all records while a planner thinks that many.

Belongs here: pages, and the form of their `next`. Never here: look-ups by id, or reading everything.
"""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from msgspec import Struct

from gateway.columns import LARGEST, bounded
from gateway.errors import InvalidInput
from gateway.ports import Filter, Page
from gateway.record import Record
from gateway.stores.audit_postgres_lookups import days_received, record_of
from gateway.stores.audit_postgres_rows import column_text
from gateway.stores.postgres_connection import Link

LOOKED_AT: Final = 4_000
"""How many records one page looks at, at most. Each may stand on a block of its own: at ten million records, 20 000
took 0.2 s, and up to 0.8 s on a busy machine."""
_CURSOR: Final = re.compile(r"(\d{4}-\d\d-\d\d)_(-?\d{1,19})_(\d{1,19})\Z", re.ASCII)
_NAMED: Final = ("model", "version", "outcome", "reason", "role", "caller", "gateway", "action")
Place = tuple[int, int]
"""Received time (ns) and number of the record after which a listing goes on; of a time, the largest number is first."""


class _Order(Struct, frozen=True):
    """What an index has, newest first: the records it is of, from `from_ns` to `at_ns`, and the name of its order."""

    records: str
    by: str = "received_ns DESC"


_TIMES: Final = "received_ns <= %(at_ns)s AND received_ns >= %(from_ns)s"
_ALL: Final = _Order(f"sealed IS NOT NULL AND {_TIMES}")
_CONTROL: Final = _Order(f"role = 'control' AND {_TIMES}")
_NOT_SERVED: Final = _Order(f"outcome <> 'served' AND {_TIMES}")
_OF_MODEL: Final = _Order(
    "(model, received_ns) <= (%(model)s, %(at_ns)s) AND (model, received_ns) >= (%(model)s, %(from_ns)s)",
    "model DESC, received_ns DESC",
)


class _Listing(Struct, frozen=True):
    """A filter as SQL: the order in which an index has its records, and what is looked at record by record."""

    order: _Order
    rest: str
    values: Mapping[str, Any]


def page(connection: Link, wanted: Filter, after: str | None, limit: int) -> Page:
    """Return the next `limit` records of a listing, newest first by (day, received time).

    Raises:
        InvalidInput: `after` is not the `next` of a page.
    """
    last_day, *last = _cursor(after) if after is not None else (date.max, LARGEST, LARGEST)
    listing = _listing(wanted)
    if listing is None:
        return Page((), None)
    until_ns = bounded(wanted.until_ns) - 1 if wanted.until_ns is not None else LARGEST
    records: list[Record] = []
    budget = LOOKED_AT
    for day, _ in reversed(days_received(connection, wanted.since_ns, wanted.until_ns)):
        if day > last_day:
            continue
        place = (until_ns, LARGEST)
        if day == last_day:
            place = min(place, (last[0], last[1]))
        found, going_on, looked_at = _stretch(connection, listing, day, place, (limit - len(records), budget))
        records += found
        budget -= looked_at
        if going_on is not None:
            return Page(records, f"{day}_{going_on[0]}_{going_on[1]}")
    return Page(records, None)


def _stretch(
    connection: Link, listing: _Listing, day: date, place: Place, most: tuple[int, int]
) -> tuple[list[Record], Place | None, int]:
    """Return records of a day, where to go on in it (None: it is done), and how many were looked at.

    `most` is how many records are wanted, and how many may be looked at.
    """
    limit, budget = most
    values = {**listing.values, "day": day, "at_ns": place[0], "at": place[1], "limit": limit, "budget": budget}
    looked_at = 0
    if listing.rest:
        looked_at, values["from_ns"] = _end(connection, listing.order, values)
    statement = (
        f"SELECT received_ns, number, sealed FROM records WHERE day = %(day)s AND {listing.order.records} "  # noqa: S608 - names of ours
        f"AND (received_ns, number) < (%(at_ns)s, %(at)s) {listing.rest} "
        f"ORDER BY {listing.order.by}, number DESC LIMIT %(limit)s"
    )
    rows = connection.rows(statement, values)
    records = [record_of(day, sealed) for *_, sealed in rows]
    if rows and len(rows) == limit:
        return records, (rows[-1][0], rows[-1][1]), looked_at
    return records, (values["from_ns"], 0) if looked_at == budget else None, looked_at


def _end(connection: Link, order: _Order, values: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many records the next stretch has, at most `budget`, and the time (ns) of its last one.

    Of a stretch that has none, it is the time where all ends.
    """
    times = f"SELECT received_ns FROM records WHERE day = %(day)s AND {order.records} ORDER BY {order.by}"  # noqa: S608 - names of ours
    statement = f"SELECT count(*), coalesce(min(received_ns), %(from_ns)s) FROM ({times} LIMIT %(budget)s) AS times"  # noqa: S608 - as above
    ((looked_at, end_ns),) = connection.rows(statement, values)
    return looked_at, end_ns


def _listing(wanted: Filter) -> _Listing | None:
    """Return a filter as SQL; None when no record can fit it."""
    values: dict[str, Any] = {}
    try:
        for name in _NAMED:
            if (text := getattr(wanted, name)) is not None:
                values[name] = column_text(text)
    except UnicodeEncodeError:
        return None
    if wanted.status is not None:
        values["status"] = bounded(wanted.status)
    rest = {name: f"AND {name} = %({name})s" for name in values}
    order = _ALL
    # The few records that most questions are about have indexes of their own.
    if wanted.role == "control":
        order = _CONTROL
        rest.pop("role")
    elif wanted.model is not None:
        order = _OF_MODEL
        rest.pop("model")
    elif wanted.outcome in ("failed", "refused"):
        order = _NOT_SERVED
    values["from_ns"] = bounded(wanted.since_ns) if wanted.since_ns is not None else -LARGEST
    return _Listing(order, " ".join(rest.values()), values)


def _cursor(after: str) -> tuple[date, int, int]:
    match = _CURSOR.match(after)
    try:
        if match is not None:
            return date.fromisoformat(match[1]), bounded(int(match[2])), bounded(int(match[3]))
    except ValueError:
        pass  # no such day
    raise InvalidInput("after: it is not the `next` of a page")
