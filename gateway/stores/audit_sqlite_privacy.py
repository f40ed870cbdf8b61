"""Taking things out of one day of the audit store: contents, and the records of a model.

Contents are overwritten with zeros of the same length, in place: a row that was taken out would make SQLite move its
neighbours, and could leave copies of them in the unused room of pages.

Belongs here: the statements, and getting the bytes out of the file and its log. Never here: who may ask, or records
of having done it.
"""

import time
from collections.abc import Collection
from typing import Any, Final

import apsw

from gateway.chain import link
from gateway.columns import packed_id
from gateway.errors import AuditUnavailable
from gateway.logs import logger
from gateway.ports import Place
from gateway.stores.sqlite_file import SqliteFile

EMPTY_LOG_SECONDS: Final = 30.0
_AT_ONCE: Final = 500
_VACUUM: Final = "VACUUM"
_NUMBER: Final = "SELECT number FROM records WHERE journal = (SELECT id FROM journals WHERE name = ?) AND sequence = ?"
_ERASED: Final = "INSERT INTO erasures VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING number"
_ZEROS: Final = """
UPDATE parts SET request = zeroblob(length(request)), response = zeroblob(length(response)) WHERE number = ?
"""
_OF_MODEL: Final = """
SELECT number, name, sequence, previous, sealed FROM records LEFT JOIN sealed USING (number)
JOIN journals ON journals.id = journal WHERE model = (SELECT id FROM words WHERE word = ?) AND number > ?
ORDER BY number LIMIT ?
"""
_STUB: Final = """
INSERT INTO stubs SELECT number, journal, sequence, received_ns, previous, ?, ? FROM records JOIN sealed USING (number)
WHERE number = ?
"""
_TAKEN_OUT: Final = (
    "DELETE FROM records WHERE number = ?",
    "DELETE FROM sealed WHERE number = ?",
    "DELETE FROM parts WHERE number = ?",
    "DELETE FROM erasures WHERE number = ?",
)


def numbers_of(connection: apsw.Connection, places: Collection[Place]) -> list[int]:
    """Return the numbers of the records that stand in these places."""
    found = (connection.execute(_NUMBER, (place.journal, place.sequence)).get for place in places)
    return [number for number in found if number is not None]


def erase(file: SqliteFile, numbers: Collection[int], erasure: str) -> int:
    """Overwrite the parts of these records, and return of how many that was not done before."""
    by, erased = packed_id(erasure), 0
    with file.transaction() as connection:
        for number in numbers:
            if connection.execute(_ERASED, (number, by)).get is not None:
                connection.execute(_ZEROS, (number,))
                erased += 1
    empty_log(file)
    return erased


def thin(file: SqliteFile, models: Collection[str], pruning: str) -> list[Place]:
    """Replace the records of some models by stubs, give the room back, and return where they stood."""
    places: list[Place] = []
    with file.transaction() as connection:
        for model in models:
            number = 0
            while rows := _of_model(connection, model, number):
                for number, journal, sequence, previous, sealed in rows:
                    if isinstance(previous, bytes) and isinstance(sealed, bytes):
                        _leave_stub(connection, number, link(previous, sequence, sealed), pruning)
                        places.append(Place(journal, sequence))
                    else:
                        logger().error(
                            "record_unreadable", journal=journal, sequence=sequence, why="damaged; not thinned"
                        )
    if places:
        _give_room_back(file)
    empty_log(file)
    return places


def _of_model(connection: apsw.Connection, model: str, after: int) -> list[Any]:
    return connection.execute(_OF_MODEL, (model, after, _AT_ONCE)).fetchall()


def _leave_stub(connection: apsw.Connection, number: int, chain: bytes, pruning: str) -> None:
    connection.execute(_STUB, (chain, packed_id(pruning), number))
    for statement in _TAKEN_OUT:
        connection.execute(statement, (number,))


def _give_room_back(file: SqliteFile) -> None:
    try:
        with file.writer() as connection:
            connection.execute(_VACUUM)
    except AuditUnavailable as error:
        # What was taken out is overwritten all the same; the room is used for nothing until the day is dropped.
        logger().warning("audit_room_not_given_back", why=error.message)


def empty_log(file: SqliteFile, seconds: float | None = None) -> None:
    """Bring everything that was committed into the file itself, and leave nothing in its log.

    Raises:
        AuditUnavailable: somebody reads what was there before, and goes on doing so.
    """
    deadline = time.monotonic() + (EMPTY_LOG_SECONDS if seconds is None else seconds)
    with file.writer() as connection:
        while True:
            busy: Any = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if not busy[0]:
                return
            if time.monotonic() > deadline:
                raise AuditUnavailable("the audit store is being read, so erased bytes are still in its log; try again")
            time.sleep(0.01)
