"""Reading many records of the audit store in PostgreSQL: samples, counts, everything from end to end.

The order of a scan is that of recording. Where several gateways share a store, records that are committed while it
goes on may be missed by it, if they were numbered before what it has read already.

Belongs here: statements that read much, day by day. Never here: pages, or look-ups by id.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.columns import LARGEST, bounded
from gateway.errors import InvalidInput
from gateway.ports import Filter, Kept, Sampled
from gateway.stores.audit_postgres_lookups import WHOLE, days_received, kept_of, record_of
from gateway.stores.audit_postgres_rows import column_text
from gateway.stores.postgres_connection import COUNT_SECONDS, Lend, Link

_CHUNK: Final = 500
_CHUNK_WITH_CONTENTS: Final = 100
_WINDOW: Final = 50_000
_WINDOW_END: Final = """
SELECT number FROM records WHERE day = %(day)s AND number > %(after)s ORDER BY number OFFSET %(window)s - 1 LIMIT 1
"""
# In the order of the index that has them by model; see `audit_postgres_listing`.
_DECIDED: Final = """
SELECT sealed FROM records WHERE day = %(day)s AND model <= %(model)s
AND (model, received_ns) >= (%(model)s, %(since)s) AND decided
ORDER BY model DESC, received_ns DESC, number DESC LIMIT %(limit)s
"""


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


def sample(connection: Link, model: str, since_ns: int, limit: int) -> Sequence[Sampled]:
    """Return the newest primary records of a model that a rule decided, newest first; each takes a few µs."""
    try:
        values = {"model": column_text(model), "since": bounded(since_ns), "limit": limit}
    except UnicodeEncodeError:
        return ()
    found: list[Sampled] = []
    if limit <= 0:
        return found
    for day, last_ns in reversed(days_received(connection, since_ns, None)):
        if len(found) >= limit and last_ns <= found[limit - 1].received_ns:
            continue
        found += [_sampled(day, sealed) for (sealed,) in connection.rows(_DECIDED, {**values, "day": day})]
        found.sort(key=lambda one: one.received_ns, reverse=True)
    return found[:limit]


def _sampled(day: date, sealed: bytes) -> Sampled:
    try:
        said = _decode_decided(sealed)
        unit = bytes.fromhex(said.unit)
    except (msgspec.DecodeError, ValueError, TypeError):
        record_of(day, sealed)  # which says what is wrong, if it is the sealed part
        raise
    return Sampled(
        record_id=said.record_id,
        received_ns=said.received_ns,
        unit=unit,
        keyed=said.keyed,
        headers=said.headers,
        asked_version=said.asked_version,
        intended=said.intended,
        revision=said.revision,
        cohort_revision=said.cohort_revision,
    )


def count(lend: Lend, wanted: Filter) -> int:
    """Return how many records `scan` would return. Raises as it does."""
    found = _conditions(wanted)
    if found is None:
        return 0
    conditions, values = found
    statement = f"SELECT count(*) FROM records WHERE day = %(day)s AND sealed IS NOT NULL {conditions}"  # noqa: S608 - names of ours
    with lend() as connection, connection.taking(COUNT_SECONDS):
        days = days_received(connection, wanted.since_ns, wanted.until_ns)
        return sum(connection.value(statement, {**values, "day": day}) for day, _ in days)


def scan(lend: Lend, wanted: Filter, *, contents: bool) -> Iterator[Sequence[Kept]]:
    """Yield records in the order they were recorded, day by day, in chunks. Between two no connection is held.

    Raises:
        InvalidInput: more is wanted than a model, a role or times.
    """
    found = _conditions(wanted)
    if found is None:
        return
    conditions, values = found
    limit = _CHUNK_WITH_CONTENTS if contents else _CHUNK
    chosen = WHOLE if contents else WHOLE.replace("request, response,", "''::bytea, ''::bytea,")
    statement = (
        f"{chosen} AND sealed IS NOT NULL AND records.number > %(after)s AND records.number <= %(last)s "
        f"{conditions} ORDER BY records.number LIMIT %(limit)s"
    )
    with lend() as connection:
        days = days_received(connection, wanted.since_ns, wanted.until_ns)
    for day, _ in days:
        after: int | None = 0
        while after is not None:
            # Of a filter that fits few, a statement looks at so many records before it gives what it has.
            last = _window_end(lend, day, after) if conditions else None
            bounds = {"day": day, "after": after, "last": last if last is not None else LARGEST, "limit": limit}
            yield from _chunks(lend, statement, {**values, **bounds})
            after = last


def _window_end(lend: Lend, day: date, after: int) -> int | None:
    with lend() as connection:
        ends = connection.rows(_WINDOW_END, {"day": day, "after": after, "window": _WINDOW})
    return ends[0][0] if ends else None


def _chunks(lend: Lend, statement: str, values: dict[str, Any]) -> Iterator[Sequence[Kept]]:
    while True:
        with lend() as connection:
            rows = connection.rows(statement, values)
        if rows:
            yield [kept_of(values["day"], row) for row in rows]
        if len(rows) < values["limit"]:
            return
        values["after"] = rows[-1][0]


def _conditions(wanted: Filter) -> tuple[str, Mapping[str, Any]] | None:
    """Return a filter as SQL and its values; None when no record can fit it.

    Raises:
        InvalidInput: more is wanted than a model, a role or times.
    """
    for name in ("version", "status", "outcome", "reason", "caller", "gateway", "action"):
        if getattr(wanted, name) is not None:
            raise InvalidInput(f"{name}: all records of a model, role or time can be asked for, not those of a {name}")
    conditions, values = [], {}
    try:
        for name, text in (("model", wanted.model), ("role", wanted.role)):
            if text is not None:
                conditions.append(f"AND {name} = %({name})s")
                values[name] = column_text(text)
    except UnicodeEncodeError:
        return None
    for name, bound in (("received_ns >=", wanted.since_ns), ("received_ns <", wanted.until_ns)):
        if bound is not None:
            conditions.append(f"AND {name} {bounded(bound)}")
    return " ".join(conditions), values
