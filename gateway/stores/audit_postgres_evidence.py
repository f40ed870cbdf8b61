"""What the audit store in PostgreSQL holds, counted in the partitions themselves.

The tables that only help to find records faster are not asked: who edits records may have edited them as well.

Belongs here: statements that count. Never here: look-ups, or what a row says.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

from gateway.columns import LARGEST, bounded
from gateway.ports import Day, Holding
from gateway.stores.audit_postgres_days import days_of
from gateway.stores.audit_postgres_rows import plain_text
from gateway.stores.postgres_connection import COUNT_SECONDS, Lend, Link

_BY_MODEL: Final = """
SELECT model, count(*), min(received_ns), max(received_ns) FROM records
WHERE day = %s AND model IS NOT NULL GROUP BY model
"""
_STUBS: Final = """
SELECT count(*), min(received_ns), max(received_ns) FROM records
WHERE day = %s AND sealed IS NULL AND pruning IS NOT NULL
"""
_WITHIN: Final = """
SELECT journal, min(sequence), max(sequence) FROM (
  SELECT journal, sequence FROM records
  WHERE day = %(day)s AND sealed IS NOT NULL AND received_ns >= %(since)s AND received_ns < %(until)s
  UNION ALL SELECT journal, sequence FROM records
  WHERE day = %(day)s AND sealed IS NULL AND received_ns >= %(since)s AND received_ns < %(until)s
) AS within GROUP BY journal ORDER BY journal
"""
# One look into the key for each journal, where grouping would read all of it.
_EDGES: Final = """
WITH RECURSIVE names (journal) AS (
  (SELECT journal FROM records WHERE day = %(day)s ORDER BY journal LIMIT 1)
  UNION ALL
  SELECT (SELECT records.journal FROM records WHERE day = %(day)s AND records.journal > names.journal
          ORDER BY journal LIMIT 1)
  FROM names WHERE names.journal IS NOT NULL
)
SELECT journal, (SELECT min(sequence) FROM records WHERE day = %(day)s AND records.journal = names.journal),
       (SELECT max(sequence) FROM records WHERE day = %(day)s AND records.journal = names.journal)
FROM names WHERE journal IS NOT NULL
"""
_BETWEEN: Final = """
SELECT (SELECT count(*) FROM records WHERE day = %(day)s AND journal = %(journal)s
        AND sequence BETWEEN %(first)s AND %(last)s),
       (SELECT count(*) FROM records WHERE day = %(day)s AND journal = %(journal)s
        AND sequence BETWEEN %(first)s AND %(last)s AND sealed IS NULL AND pruning IS NOT NULL)
"""


def days(lend: Lend) -> Sequence[Day]:
    """Return every day that has a record, or what is left of one, in order."""
    found = []
    for day in _all_days(lend):
        with lend() as connection, connection.taking(COUNT_SECONDS):
            models = connection.rows(_BY_MODEL, (day,))
            stubs = connection.rows(_STUBS, (day,))
        times = [(first, last) for _, number, first, last in (*models, *((None, *row) for row in stubs)) if number]
        if times:
            records = {plain_text(model): number for model, number, *_ in models}
            found.append(
                Day(day.isoformat(), records, min(first for first, _ in times), max(last for _, last in times))
            )
    return found


def holdings(lend: Lend, since_ns: int | None, until_ns: int | None) -> Sequence[Holding]:
    """Return what the store holds, by journal and day in order; with times, of records received within them."""
    found = []
    for day in _all_days(lend):
        with lend() as connection, connection.taking(COUNT_SECONDS):
            found += held(connection, day, since_ns, until_ns)
    return sorted(found, key=lambda one: (one.journal, one.day))


def held(connection: Link, day: date, since_ns: int | None = None, until_ns: int | None = None) -> list[Holding]:
    """Return what a day holds, by journal in order."""
    if since_ns is None and until_ns is None:
        edges = edges_of(connection, day)
    else:
        since = bounded(since_ns) if since_ns is not None else -LARGEST
        until = bounded(until_ns) if until_ns is not None else LARGEST + 1
        edges = connection.rows(_WITHIN, {"day": day, "since": since, "until": until})
    found = []
    for journal, first, last in edges:
        values = {"day": day, "journal": journal, "first": first, "last": last}
        ((all_, stubs),) = connection.rows(_BETWEEN, values)
        found.append(Holding(plain_text(journal), day.isoformat(), first, last, all_ - stubs, stubs))
    return found


def edges_of(connection: Link, day: date) -> list[tuple[Any, ...]]:
    """Return each journal (as columns have it) of a day, with its first and last sequence there, in order."""
    return connection.rows(_EDGES, {"day": day})


def _all_days(lend: Lend) -> Sequence[date]:
    with lend() as connection:
        return days_of(connection)
