"""Taking things out of one day of the audit store: contents, records of a model.

Contents are overwritten with zeros of the same length, in place: a row that was taken out would make SQLite move its
neighbours, and could leave copies of them in the unused room of pages.

Belongs here: the statements, and getting the bytes out of the file and its log. Never here: who may ask, or records
of having done it.
"""

import time
from collections.abc import Collection, Sequence
from typing import Any, Final

import apsw

from gateway.columns import packed_id
from gateway.errors import AuditUnavailable
from gateway.ports import Place

TRUNCATE_SECONDS: Final = 30.0
_NUMBER = "SELECT number FROM records WHERE journal = (SELECT id FROM journals WHERE name = ?) AND sequence = ?"
_ERASED = "INSERT INTO erasures VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING number"
_ZEROS = """
UPDATE parts SET request = zeroblob(length(request)), response = zeroblob(length(response)) WHERE number = ?
"""
_STUB = """
INSERT INTO stubs SELECT number, journal, sequence, received_ns, previous, ?, ? FROM records JOIN sealed USING (number)
WHERE number = ?
"""
_THINNED = """
SELECT number, name, sequence, previous, sealed FROM records JOIN sealed USING (number)
JOIN journals ON journals.id = journal WHERE model = (SELECT id FROM words WHERE word = ?) AND number > ?
ORDER BY number LIMIT ?
"""


def places_in(connection: apsw.Connection, places: Collection[Place]) -> dict[Place, int]:
    """Return which of these places have a record in this day, and its number."""
    found = {}
    for place in places:
        number = connection.execute(_NUMBER, (place.journal, place.sequence)).get
        if number is not None:
            found[place] = int(number)
    return found


def erase(connection: apsw.Connection, numbers: Collection[int], erasure: str) -> int:
    """Overwrite the parts of these records, and return of how many that was not done before."""
    by, erased = packed_id(erasure), 0
    for number in numbers:
        if connection.execute(_ERASED, (number, by)).get is not None:
            connection.execute(_ZEROS, (number,))
            erased += 1
    return erased


def thinnable(connection: apsw.Connection, model: str, after: int, limit: int) -> Sequence[Any]:
    """Return the next records of a model: (number, journal, sequence, previous, sealed)."""
    rows: list[Any] = connection.execute(_THINNED, (model, after, limit)).fetchall()
    return rows


def leave_stub(connection: apsw.Connection, number: int, chain: bytes, pruning: str) -> None:
    """Replace a record by a stub."""
    connection.execute(_STUB, (chain, packed_id(pruning), number))
    for table in ("records", "sealed", "parts", "erasures"):
        connection.execute(f"DELETE FROM {table} WHERE number = ?", (number,))  # noqa: S608 - names of ours


def empty_log(connection: apsw.Connection, path: str) -> None:
    """Bring everything that was committed into the file itself, and leave nothing in its log.

    Raises:
        AuditUnavailable: somebody reads what was there before, and goes on doing so.
    """
    deadline = time.monotonic() + TRUNCATE_SECONDS
    while True:
        row: Any = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if row[0] == 0:
            return
        if time.monotonic() > deadline:
            raise AuditUnavailable(f"{path} is being read, so what was erased is still in its log; erase it again")
        time.sleep(0.01)
