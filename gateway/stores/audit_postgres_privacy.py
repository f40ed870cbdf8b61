"""Taking things out of the audit store in PostgreSQL: contents, records of a model, whole days.

What a transaction takes out stays in the table's file until its page is written over, also after VACUUM, which leaves
the bytes where they were in the free room of the page. So partitions from which something was taken are written anew
with what is left (VACUUM FULL), and the old files go. While that lasts nobody reads or writes them. Which ones are to
be rewritten is committed together with the taking, so an end in between leaves nothing undone for good.

Belongs here: the statements, and getting the bytes out of the files. Never here: who may ask, or records of having
done it.
"""

import re
import time
from collections.abc import Collection, Sequence
from datetime import date
from typing import Any, Final

import psycopg

from gateway.errors import AuditUnavailable, InvalidInput
from gateway.logs import logger
from gateway.ports import Dropped, Place
from gateway.stores.audit_postgres_days import PARTITIONED, days_of, parse_day, partition
from gateway.stores.audit_postgres_evidence import held
from gateway.stores.audit_postgres_rows import column_text, plain_text
from gateway.stores.audit_postgres_schema import SCHEMA_LOCK
from gateway.stores.postgres_connection import Link

UPKEEP_LOCK: Final = 0x506D5570
"""The advisory lock under which things are taken out; one gateway does so at a time."""
SNAPSHOT_SECONDS: Final = 5.0
"""How long a rewrite waits for those who still see what was there before."""
_OF_UNIT: Final = """
SELECT journal, sequence FROM records
WHERE day = %s AND substr(unit, 1, 64) = substr(%s, 1, 64) AND unit = %s AND role <> 'control'
"""
_OF_MODELS: Final = "SELECT journal, sequence FROM records WHERE day = %s AND model = ANY (%s)"
_DAYS: Final = """
SELECT DISTINCT day FROM stretches JOIN unnest(%s::text[], %s::bigint[]) AS place (j, s)
ON journal = j AND s BETWEEN first AND last ORDER BY day
"""
_ERASE: Final = """
INSERT INTO parts (number, day, request, response, erasure)
SELECT number, day, '', '', %(erasure)s FROM records
JOIN unnest(%(journals)s::text[], %(sequences)s::bigint[]) AS place (j, s)
ON journal = j AND sequence = s WHERE day = %(day)s AND pruning IS NULL
ON CONFLICT (number, day) DO UPDATE SET request = '', response = '', erasure = excluded.erasure
WHERE parts.erasure IS NULL
"""
# The chain after a record, as `gateway.chain.link` works it out.
_THIN: Final = """
WITH thinned AS (
  UPDATE records SET chain = sha256(previous || int8send(sequence) || sealed), sealed = NULL, pruning = %(pruning)s,
    record_id = NULL, primary_id = NULL, stray_key = NULL, stray_primary_key = NULL, request_key = NULL,
    oip_key = NULL, unit = NULL, decided = NULL, model = NULL, version = NULL, status = NULL, outcome = NULL,
    reason = NULL, role = NULL, caller = NULL, gateway = NULL, action = NULL
  WHERE day = %(day)s AND model = ANY (%(models)s) AND sealed IS NOT NULL RETURNING number, journal, sequence
), contents AS (
  DELETE FROM parts USING thinned WHERE day = %(day)s AND parts.number = thinned.number
)
SELECT journal, sequence FROM thinned
"""
_TO_REWRITE: Final = "INSERT INTO rewrites SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
_STILL_SEEN: Final = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
AND age(backend_xmin) >= age(%s::text::xid)
"""
# Whoever comes after who waits for the lock of a whole table waits as well.
_LOCK_BRIEFLY: Final = "SET LOCAL lock_timeout = '3s'"
_HAS_ROWS: Final = "SELECT EXISTS (SELECT FROM records WHERE day = %s)"
_DROPPED: Final = "INSERT INTO dropped VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"


def places_of(connection: Link, unit: bytes) -> Sequence[Place]:
    """Return where the records of a caller stand, with their shadows, in order."""
    found: list[Place] = []
    for day in days_of(connection):
        found += _places(connection, _OF_UNIT, (day, unit, unit))
    return sorted(found)


def places_in(connection: Link, day: str, models: Collection[str]) -> Sequence[Place]:
    """Return the places of a day's records of some models, in order; stubs do not count."""
    that_day = parse_day(day)
    if that_day is None:
        return ()
    return sorted(_places(connection, _OF_MODELS, (that_day, [column_text(one) for one in models])))


def _places(connection: Link, statement: str, values: Sequence[Any]) -> list[Place]:
    rows = connection.rows(statement, values)
    return [Place(plain_text(journal), sequence) for journal, sequence in rows]


def erase(connection: Link, places: Collection[Place], erasure: str) -> int:
    """Take the contents of records for good, and return of how many."""
    _take_turn(connection)
    wanted = sorted(set(places))
    journals, sequences = [column_text(place.journal) for place in wanted], [place.sequence for place in wanted]
    erased = 0
    for (day,) in connection.rows(_DAYS, (journals, sequences)):
        values = {"erasure": column_text(erasure), "journals": journals, "sequences": sequences, "day": day}
        with connection.transaction():
            cursor = connection.execute(_ERASE, values)
            if cursor.rowcount:
                erased += cursor.rowcount
                connection.execute(_TO_REWRITE, ([partition("parts", day)],))
    rewrite(connection)
    return erased


def thin(connection: Link, day: str, models: Collection[str], pruning: str) -> Sequence[Place]:
    """Take the records of some models out of a day, and leave stubs. Returns their places, in order.

    Raises:
        InvalidInput: it is the newest day.
    """
    that_day = parse_day(day)
    if that_day is None:
        return ()
    _take_turn(connection)
    _refuse_newest(connection, that_day, "thinned")
    values = {"day": that_day, "models": [column_text(one) for one in models], "pruning": column_text(pruning)}
    with connection.transaction():
        rows = connection.rows(_THIN, values)
        if rows:
            connection.execute(_TO_REWRITE, ([partition(table, that_day) for table in PARTITIONED],))
    rewrite(connection)
    return sorted(Place(plain_text(journal), sequence) for journal, sequence in rows)


def drop(connection: Link, day: str, pruning: str) -> Sequence[Dropped]:
    """Take a whole day with its checkpoints out of the store, and return what it held.

    Raises:
        InvalidInput: it is the newest day.
    """
    that_day = parse_day(day)
    if that_day is None:
        return ()
    _take_turn(connection)
    with connection.holding(SCHEMA_LOCK), connection.transaction():
        connection.execute(_LOCK_BRIEFLY)
        if that_day not in days_of(connection):
            return ()
        _refuse_newest(connection, that_day, "dropped")
        names = [partition(table, that_day) for table in PARTITIONED]
        # Nothing comes to the day any more; it can still be read.
        connection.execute(f"LOCK TABLE {', '.join(names)} IN SHARE MODE".encode())
        holdings = [
            Dropped(day, one.journal, one.first, one.last, one.records, pruning) for one in held(connection, that_day)
        ]
        _note_dropped(connection, holdings)
        for table in ("checkpoints", "spans", "stretches"):
            connection.execute(f"DELETE FROM {table} WHERE day = %s".encode(), (that_day,))  # noqa: S608 - names of ours
        connection.execute("DELETE FROM rewrites WHERE partition = ANY (%s)", (names,))
        for table, name in zip(PARTITIONED, names, strict=True):
            connection.execute(f"ALTER TABLE {table} DETACH PARTITION {name}; DROP TABLE {name}".encode())
    return holdings


def _refuse_newest(connection: Link, day: date, what: str) -> None:
    days = days_of(connection)
    if day in days and not any(_has_rows(connection, later) for later in days if later > day):
        raise InvalidInput(f"day: {day} is the newest day of the audit store and cannot be {what}")


def _has_rows(connection: Link, day: date) -> bool:
    return bool(connection.value(_HAS_ROWS, (day,)))


def _note_dropped(connection: Link, held_: Sequence[Dropped]) -> None:
    rows = [
        (one.day, column_text(one.journal), one.first, one.last, one.records, column_text(one.pruning)) for one in held_
    ]
    with connection.cursor() as cursor:
        cursor.executemany(_DROPPED, rows)


def _take_turn(connection: Link) -> None:
    """Wait until no other gateway takes things out. The turn ends with the connection."""
    connection.execute("SELECT pg_advisory_lock(%s)", (UPKEEP_LOCK,))


def pending(connection: Link) -> bool:
    """Tell whether partitions are still to be rewritten: a gateway ended in the middle, or is at it."""
    return bool(connection.value("SELECT EXISTS (SELECT FROM rewrites)"))


def finish(connection: Link) -> None:
    """Rewrite what is still to be, unless another gateway is at it."""
    if connection.value("SELECT pg_try_advisory_lock(%s)", (UPKEEP_LOCK,)):
        try:
            rewrite(connection)
        except (psycopg.Error, AuditUnavailable) as error:
            logger().error("not_rewritten", why=type(error).__name__)


def rewrite(connection: Link) -> None:
    """Write the partitions anew from which something was taken, so that it is no longer in any file of theirs.

    Raises:
        AuditUnavailable: somebody still sees what was there before; it stays to be done.
    """
    for (name,) in connection.rows("SELECT partition FROM rewrites ORDER BY partition"):
        _wait_for_readers(connection)
        if _vacuum(connection, name) != 0:
            raise AuditUnavailable(
                f"what was taken out of {name} is still on the disk, because a long transaction, a prepared one, a "
                "backup or a replica still sees it; end that and do the same again"
            )
        connection.execute("DELETE FROM rewrites WHERE partition = %s", (name,))


def _wait_for_readers(connection: Link) -> None:
    """Wait a little for transactions that see what was there before; a rewrite would keep it for them."""
    deadline = time.monotonic() + SNAPSHOT_SECONDS
    now = connection.value("SELECT pg_current_xact_id()::text")
    while connection.value(_STILL_SEEN, (now,)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _vacuum(connection: Link, name: str) -> int | None:
    """Rewrite a partition, and return how many dead rows had to be kept in it; None if PostgreSQL does not tell."""
    kept: list[int] = []

    def listen(notice: psycopg.errors.Diagnostic) -> None:
        # "0 dead row versions cannot be removed yet.", in whatever language, and then more.
        if (found := re.match(r"\D*(\d+)", notice.message_detail or "")) is not None:
            kept.append(int(found[1]))

    connection.add_notice_handler(listen)
    connection.execute(f"VACUUM (FULL, VERBOSE) {name}".encode())
    connection.remove_notice_handler(listen)
    return sum(kept) if kept else None
