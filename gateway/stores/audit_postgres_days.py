"""The days of the audit store in PostgreSQL: partitions of their own, made ahead of time by whoever writes.

Belongs here: which partitions there are, their names, making them. Never here: what stands in one.
"""

import re
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Final

import psycopg

from gateway.logs import logger
from gateway.stores.audit_postgres_schema import SCHEMA_LOCK
from gateway.stores.postgres_connection import Link

DAYS_AHEAD: Final = 2
"""For how many days after the one that is written partitions are made."""
PARTITIONED: Final = ("records", "parts")
_NAME: Final = re.compile(r"records_(\d{4})(\d\d)(\d\d)\Z", re.ASCII)
_DAYS: Final = """
SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'records'::regclass
"""


def days_of(connection: Link) -> list[date]:
    """Return the days that have partitions, in order; also those made ahead. Tables of other names are not ours."""
    found = (parse_day("-".join(match.groups())) for (name,) in connection.rows(_DAYS) if (match := _NAME.match(name)))
    return sorted(day for day in found if day is not None)


def parse_day(text: str) -> date | None:
    """Return a day as the port writes it; None if it is none."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if day.isoformat() == text else None


def partition(table: str, day: date) -> str:
    """Return the name of a day's partition."""
    return f"{table}_{day:%Y%m%d}"


class Partitions:
    """The partitions that are known to be there, so that they need not be asked for with each batch."""

    def __init__(self) -> None:
        self._known: set[date] = set()

    def make(self, connection: Link, day: date) -> None:
        """Make the partitions of a day if there are none, and of the next days ahead of time."""
        if day not in self._known:
            self._make(connection, (day,))
        ahead = [later for n in range(1, DAYS_AHEAD + 1) if (later := day + timedelta(n)) not in self._known]
        if ahead:
            try:
                self._make(connection, ahead)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
                # The day's own partition is there; the next batch tries again.
                logger().warning("partitions_not_made", days=[str(one) for one in ahead], why=type(error).__name__)

    def forget(self) -> None:
        """Ask again the next time; a day was dropped."""
        self._known.clear()

    def _make(self, connection: Link, days: Iterable[date]) -> None:
        with connection.holding(SCHEMA_LOCK), connection.transaction():
            there = set(days_of(connection))
            for day in days:
                if day not in there:
                    _attach(connection, day)
        self._known.update(days)


def _attach(connection: Link, day: date) -> None:
    # Attaching lets others go on reading and writing; CREATE TABLE … PARTITION OF would wait for all of them.
    for table in PARTITIONED:
        name = partition(table, day)
        made = f"CREATE TABLE {name} (LIKE {table} INCLUDING INDEXES INCLUDING STORAGE INCLUDING COMPRESSION)"
        range_ = f"FROM ('{day}') TO ('{day + timedelta(1)}')"
        connection.execute(f"{made}; ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES {range_}".encode())
    # Of the partition alone, since a key of the whole table would have to begin or end with the day. A planner without
    # statistics takes one day for a small part of such an index, and reads all of it.
    place = f"CREATE UNIQUE INDEX ON {partition('records', day)} (journal, sequence) INCLUDE (day)"
    connection.execute(place.encode())
