"""Listings of many records in the audit store in PostgreSQL: page by page, sampled, counted, from end to end.

A statement looks at one day, and at a bounded number of records of it: where a filter leaves few, the end of that
stretch is found first, in an index alone.

Belongs here: statements that list, day by day, and the form of a page's `next`. Never here: look-ups by id.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.columns import LARGEST, bounded
from gateway.errors import InvalidInput
from gateway.ports import Filter, Kept, Page, Sampled
from gateway.record import Record, decode_record
from gateway.stores.audit_postgres_lookups import WHOLE, kept_of
from gateway.stores.audit_postgres_rows import column_text
from gateway.stores.postgres_connection import Lend, Link

LOOKED_AT: Final = 20_000
"""How many records one page looks at, at most."""
_CHUNK: Final = 500
_CHUNK_WITH_CONTENTS: Final = 100
_WINDOW: Final = 50_000
_CURSOR: Final = re.compile(r"(\d{4}-\d\d-\d\d)_(-?\d{1,19})_(\d{1,19})\Z", re.ASCII)
_NEWEST_FIRST: Final = "ORDER BY received_ns DESC, number DESC"
_DAYS: Final = """
SELECT day, max(last_ns) FROM spans GROUP BY day HAVING max(last_ns) >= %s AND min(first_ns) < %s ORDER BY day
"""
_WINDOW_END: Final = """
SELECT number FROM records WHERE day = %(day)s AND number > %(after)s ORDER BY number OFFSET %(window)s - 1 LIMIT 1
"""
_BELOW: Final = """
day = %(day)s AND pruning IS NULL AND received_ns <= %(at_ns)s AND (received_ns, number) < (%(at_ns)s, %(at)s)
"""
_DECIDED: Final = f"""
SELECT sealed FROM records
WHERE day = %(day)s AND model = %(model)s AND received_ns >= %(since)s AND decided {_NEWEST_FIRST} LIMIT %(limit)s
"""  # noqa: S608 - words of ours


class _Decided(Struct, frozen=True):
    """What a sealed part says of a decision; the rest of it is passed over."""

    record_id: str
    received_ns: int
    unit: str
    intended: str
    keyed: bool = False
    headers: Mapping[str, str] = {}
    asked_version: str | None = None
    revision: int | None = None
    cohort_revision: int | None = None


_decode_decided = msgspec.msgpack.Decoder(_Decided).decode


class _Terms(Struct, frozen=True):
    """A filter as SQL: `by` is what an index has in order, `rest` what is looked at record by record."""

    by: str
    rest: str
    values: Mapping[str, Any]


def page(connection: Link, wanted: Filter, after: str | None, limit: int) -> Page:
    """Return the next `limit` records of a listing, newest first by (day, received time)."""
    last_day, *place = _place(after) if after is not None else (date.max, LARGEST, LARGEST)
    terms = _terms(wanted)
    if terms is None:
        return Page((), None)
    records: list[Record] = []
    budget = LOOKED_AT
    for day in [day for day, _ in reversed(_days(connection, wanted)) if day <= last_day]:
        at = place if day == last_day else (LARGEST, LARGEST)
        values = {**terms.values, "day": day, "at_ns": at[0], "at": at[1]}
        found, going_on, looked_at = _stretch(connection, terms, values, limit - len(records), budget)
        records += found
        budget -= looked_at
        if going_on is not None:
            return Page(records, f"{day}_{going_on[0]}_{going_on[1]}")
    return Page(records, None)


def _stretch(
    connection: Link, terms: _Terms, values: Mapping[str, Any], limit: int, budget: int
) -> tuple[list[Record], tuple[int, int] | None, int]:
    """Return records of a day, where to go on in it (None: it is done), and how many records were looked at."""
    within, looked_at, end_ns = "", 0, 0
    if terms.rest:
        looked_at, end_ns = _end(connection, terms, {**values, "budget": budget})
        within = f"AND received_ns >= {end_ns}"
    statement = (
        f"SELECT received_ns, number, sealed FROM records WHERE {_BELOW} {within} {terms.by} {terms.rest} "  # noqa: S608 - names of ours
        f"{_NEWEST_FIRST} LIMIT %(limit)s"
    )
    rows = connection.rows(statement, {**values, "limit": limit})
    records = [decode_record(sealed) for *_, sealed in rows]
    if len(rows) == limit:
        return records, (rows[-1][0], rows[-1][1]), looked_at
    return records, (end_ns, 0) if looked_at == budget else None, looked_at


def _end(connection: Link, terms: _Terms, values: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many records the next stretch has, at most `budget`, and the time (ns) of its last one."""
    times = f"SELECT received_ns FROM records WHERE {_BELOW} {terms.by} ORDER BY received_ns DESC LIMIT %(budget)s"  # noqa: S608 - names of ours
    statement = f"SELECT count(*), coalesce(min(received_ns), 0) FROM ({times}) AS times"  # noqa: S608 - as above
    ((looked_at, end_ns),) = connection.rows(statement, values)
    return looked_at, end_ns


def sample(connection: Link, model: str, since_ns: int, limit: int) -> Sequence[Sampled]:
    """Return the newest primary records of a model that a rule decided, newest first; each takes a few µs."""
    try:
        values = {"model": column_text(model), "since": bounded(since_ns), "limit": limit}
    except UnicodeEncodeError:
        return ()
    found: list[Sampled] = []
    if limit <= 0:
        return found
    for day, last_ns in reversed(_days(connection, Filter(since_ns=since_ns))):
        if len(found) >= limit and last_ns <= found[limit - 1].received_ns:
            continue
        rows = connection.rows(_DECIDED, {**values, "day": day})
        found += [_sampled(_decode_decided(sealed)) for (sealed,) in rows]
        found.sort(key=lambda one: one.received_ns, reverse=True)
    return found[:limit]


def _sampled(said: _Decided) -> Sampled:
    return Sampled(
        record_id=said.record_id,
        received_ns=said.received_ns,
        unit=bytes.fromhex(said.unit),
        keyed=said.keyed,
        headers=said.headers,
        asked_version=said.asked_version,
        intended=said.intended,
        revision=said.revision,
        cohort_revision=said.cohort_revision,
    )


def count(lend: Lend, wanted: Filter) -> int:
    """Return how many records `scan` would return. Raises as it does."""
    terms = _terms(_scannable(wanted))
    if terms is None:
        return 0
    statement = f"SELECT count(*) FROM records WHERE day = %(day)s AND pruning IS NULL {terms.by} {terms.rest}"  # noqa: S608 - names of ours
    with lend() as connection:
        days = _days(connection, wanted)
        return sum(connection.value(statement, {**terms.values, "day": day}) for day, _ in days)


def scan(lend: Lend, wanted: Filter, *, contents: bool) -> Iterator[Sequence[Kept]]:
    """Yield records in the order they were recorded, day by day, in chunks. Between two no connection is held.

    Raises:
        InvalidInput: more is wanted than a model, a role or times.
    """
    terms = _terms(_scannable(wanted))
    if terms is None:
        return
    with lend() as connection:
        days = _days(connection, wanted)
    for day, _ in days:
        after: int | None = 0
        while after is not None:
            last = None
            if terms.by or terms.rest:
                with lend() as connection:
                    ends = connection.rows(_WINDOW_END, {"day": day, "after": after, "window": _WINDOW})
                last = ends[0][0] if ends else None
            yield from _chunks(lend, day, terms, (after, last if last is not None else LARGEST), contents)
            after = last


def _scannable(wanted: Filter) -> Filter:
    for name in ("version", "status", "outcome", "reason", "caller", "gateway", "action"):
        if getattr(wanted, name) is not None:
            raise InvalidInput(f"{name}: all records of a model, role or time can be asked for, not those of a {name}")
    return wanted


def _chunks(lend: Lend, day: date, terms: _Terms, numbers: tuple[int, int], contents: bool) -> Iterator[Sequence[Kept]]:
    """Yield the records of a day that fit, whose numbers are above the first of `numbers` and up to the last."""
    after, last = numbers
    limit = _CHUNK_WITH_CONTENTS if contents else _CHUNK
    chosen = WHOLE if contents else WHOLE.replace("request, response,", "''::bytea, ''::bytea,")
    statement = (
        f"{chosen} AND pruning IS NULL AND records.number > %(after)s AND records.number <= %(last)s "
        f"{terms.by} {terms.rest} ORDER BY records.number LIMIT %(limit)s"
    )
    while True:
        values = {**terms.values, "day": day, "after": after, "last": last, "limit": limit}
        with lend() as connection:
            rows = connection.rows(statement, values)
        if rows:
            yield [kept_of(day, row) for row in rows]
        if len(rows) < limit:
            return
        after = rows[-1][0]


def _days(connection: Link, wanted: Filter) -> list[tuple[date, int]]:
    """Return the days that can have such records, in order, and the last time (Unix ns) that is known of each."""
    since = bounded(wanted.since_ns) if wanted.since_ns is not None else -LARGEST
    until = bounded(wanted.until_ns) if wanted.until_ns is not None else LARGEST + 1
    return [(day, last_ns) for day, last_ns in connection.rows(_DAYS, (since, until))]


def _terms(wanted: Filter) -> _Terms | None:
    """Return a filter as SQL; None when no record can fit it."""
    values: dict[str, Any] = {}
    try:
        for name in ("model", "version", "outcome", "reason", "role", "caller", "gateway", "action"):
            if (text := getattr(wanted, name)) is not None:
                values[name] = column_text(text)
    except UnicodeEncodeError:
        return None
    if wanted.status is not None:
        values["status"] = bounded(wanted.status)
    rest = {name: f"AND {name} = %({name})s" for name in values}
    by = [rest.pop("model", "")]
    # Indexes of their own have the few records that most questions are about.
    if wanted.role == "control":
        by.append(rest.pop("role"))
    elif "model" not in values and wanted.outcome in ("failed", "refused"):
        by.append("AND outcome <> 'served'")
    if wanted.since_ns is not None:
        by.append("AND received_ns >= %(since)s")
        values["since"] = bounded(wanted.since_ns)
    if wanted.until_ns is not None:
        by.append("AND received_ns < %(until)s")
        values["until"] = bounded(wanted.until_ns)
    return _Terms(" ".join(by), " ".join(rest.values()), values)


def _place(after: str) -> tuple[date, int, int]:
    match = _CURSOR.match(after)
    try:
        if match is not None:
            return date.fromisoformat(match[1]), bounded(int(match[2])), bounded(int(match[3]))
    except ValueError:
        pass  # no such day
    raise InvalidInput("after: it is not the `next` of a page")
