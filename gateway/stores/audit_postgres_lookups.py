"""Look-ups by id in the audit store in PostgreSQL.

A record id of ours tells the millisecond in which its record was received, so it is looked for in the days that have
records of then. What callers named can lie in any day: all are gone through, newest first, a few in one statement,
because a statement locks every index of each partition that it looks at. Making a plan for them takes longer than
executing it, so each connection keeps those of the blocks of days that it has looked through.

Belongs here: statements that find a few records, and rows made into what the port promises. Never here: listings.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date
from typing import Any, Final

import msgspec

from gateway.columns import LARGEST, bounded
from gateway.errors import AuditUnavailable
from gateway.ports import FIND_LIMIT, Kept, Place
from gateway.record import Record, decode_record
from gateway.sealing import frame_of
from gateway.stores.audit_postgres_rows import made_ms, oip_key, plain_text, record_key, request_key
from gateway.stores.postgres_connection import Link

DAYS_AT_ONCE: Final = 16
_MS: Final = 1_000_000
_SPANS: Final = "SELECT day, min(first_ns), max(last_ns), bool_or(strays) FROM spans GROUP BY day ORDER BY day"
_RECEIVED: Final = """
SELECT day, max(last_ns) FROM spans GROUP BY day HAVING max(last_ns) >= %s AND min(first_ns) < %s ORDER BY day
"""
_RELATED: Final = """
SELECT number FROM records JOIN unnest(%s::bytea[], %s::bigint[]) AS wanted (id, made)
ON received_ns >= made AND received_ns < made + 1000000 AND (record_id = id OR primary_id = id)
WHERE day = %s AND sealed IS NOT NULL
"""
_STRAY: Final = """
SELECT number FROM records WHERE day = %(day)s AND stray_key = ANY (%(keys)s)
UNION SELECT number FROM records WHERE day = %(day)s AND stray_primary_key = ANY (%(keys)s)
"""
_NAMED: Final = """
(SELECT 'q', day, number FROM records WHERE request_key = %(request)s AND {days}
 ORDER BY received_ns DESC LIMIT %(limit)s)
UNION ALL
(SELECT 'o', day, number FROM records WHERE oip_key = %(oip)s AND {days}
 ORDER BY received_ns DESC LIMIT %(limit)s)
"""
WHOLE: Final = """
SELECT records.number, journal, sequence, previous, sealed, request, response, erasure
FROM records LEFT JOIN parts ON parts.number = records.number AND parts.day = %(day)s WHERE records.day = %(day)s
"""
_PICKED: Final = WHOLE + "AND records.number = ANY (%(numbers)s)"

Numbers = dict[date, set[int]]
"""Which records of which days."""


def find(connection: Link, any_id: str) -> Sequence[Kept]:
    """Return the records that an id names, oldest first, with their families. Needs a transaction with one snapshot."""
    looking = _Looking(connection)
    numbers = looking.related([any_id])
    looking.named(any_id, numbers)
    found = looking.kept(numbers)
    named = [kept for kept in found if any_id in _ids(kept.frame.record)]
    records = {kept.frame.record.record_id for kept in named}
    primaries = {primary for kept in named if (primary := kept.frame.record.primary_id) is not None}
    if further := (records | primaries) - {any_id}:
        found += looking.kept(looking.related(further), but=numbers)
    family = [
        kept
        for kept in found
        if any_id in _ids(kept.frame.record)
        or kept.frame.record.record_id in primaries
        or kept.frame.record.primary_id in records
    ]
    return sorted({Place(kept.frame.journal, kept.frame.sequence): kept for kept in family}.values(), key=_oldest_first)


def days_received(connection: Link, since_ns: int | None, until_ns: int | None) -> list[tuple[date, int]]:
    """Return the days that can have records received then, in order, and the last time (Unix ns) known of each."""
    since = bounded(since_ns) if since_ns is not None else -LARGEST
    until = bounded(until_ns) if until_ns is not None else LARGEST + 1
    return [(day, last_ns) for day, last_ns in connection.rows(_RECEIVED, (since, until))]


def record_of(day: date, sealed: bytes) -> Record:
    """Return the record of a sealed part.

    Raises:
        AuditUnavailable: it is none.
    """
    try:
        return decode_record(sealed)
    except (msgspec.DecodeError, TypeError) as error:
        raise AuditUnavailable(f"a record kept under {day} is damaged ({error}); verify the log") from None


def kept_of(day: date, row: Sequence[Any]) -> Kept:
    """Return a row of `WHOLE` as the port has it.

    Raises:
        AuditUnavailable: its sealed part is no record.
    """
    _, journal, sequence, previous, sealed, request, response, erasure = row
    try:
        frame = frame_of(plain_text(journal), sequence, previous, sealed, request or b"", response or b"")
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        raise AuditUnavailable(
            f"record {sequence} of journal {journal}, kept under {day}, is damaged ({error}); verify the log"
        ) from None
    return Kept(frame, day.isoformat(), plain_text(erasure) if erasure is not None else None)


class _Looking:
    """One look-up: which days there are, and what is found in them."""

    def __init__(self, connection: Link) -> None:
        self._connection = connection
        self._spans = connection.rows(_SPANS)

    def related(self, record_ids: Iterable[str]) -> Numbers:
        """Return the records with these record ids, and those whose primary has one."""
        ids = list(record_ids)
        telling = [made for one in ids if (made := made_ms(one)) is not None]
        found: Numbers = defaultdict(set)
        for day, first_ns, last_ns, strays in self._spans:
            then = [(packed, ms * _MS) for packed, ms in telling if first_ns < (ms + 1) * _MS and last_ns >= ms * _MS]
            if then:
                packed_ids, times = zip(*then, strict=True)
                found[day].update(self._numbers(_RELATED, (list(packed_ids), list(times), day)))
            if strays:
                found[day].update(self._numbers(_STRAY, {"day": day, "keys": [record_key(one) for one in ids]}))
        return found

    def named(self, any_id: str, found: Numbers) -> None:
        """Add the newest records with this request id, and those with this OIP id."""
        left = {"q": FIND_LIMIT, "o": FIND_LIMIT}
        keys = {"request": request_key(any_id), "oip": oip_key(any_id)}
        for block in sorted({day.toordinal() // DAYS_AT_ONCE for day, *_ in self._spans}, reverse=True):
            if not any(left.values()):
                return
            first, end = (date.fromordinal(edge * DAYS_AT_ONCE) for edge in (block, block + 1))
            statement = _NAMED.format(days=f"day >= '{first}' AND day < '{end}'")
            values = {**keys, "limit": max(left.values())}
            for kind, day, number in self._connection.rows(statement, values, prepare=True):
                if left[kind]:
                    left[kind] -= 1
                    found[day].add(number)

    def kept(self, numbers: Numbers, but: Numbers | None = None) -> list[Kept]:
        """Return these records, but for some."""
        found = []
        for day, all_ in numbers.items():
            wanted = list(all_ - but.get(day, set()) if but is not None else all_)
            if wanted:
                rows = self._connection.rows(_PICKED, {"day": day, "numbers": wanted})
                found += [kept_of(day, row) for row in rows]
        return found

    def _numbers(self, statement: str, values: Any) -> Iterator[int]:
        return (row[0] for row in self._connection.rows(statement, values))


def _ids(record: Record) -> Collection[str | None]:
    return record.record_id, record.request_id, record.oip_id


def _oldest_first(kept: Kept) -> tuple[int, bool, str]:
    record = kept.frame.record
    return record.received_ns, record.role != "primary", record.record_id
