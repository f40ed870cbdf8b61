"""Batches of the recorder as rows of a day's file.

Belongs here: what one transaction inserts, and how it is compared with what stands there. Never here: which file.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import apsw

from gateway.columns import unpacked_id
from gateway.logs import logger
from gateway.ports import Batch, Gap, JournalPosition
from gateway.record import Frame, decode_record
from gateway.stores.audit_sqlite_day import INSERT, row_of

_SEALED: Final = "INSERT INTO sealed VALUES (?, ?, ?)"
_PARTS: Final = "INSERT INTO parts VALUES (?, ?, ?)"
_NEXT: Final = "SELECT 1 + coalesce(max(number), 0) FROM records"
_STANDS: Final = """
SELECT record_id, previous, sealed FROM records LEFT JOIN sealed USING (number)
WHERE journal = (SELECT id FROM journals WHERE name = ?) AND sequence = ?
"""
_STUB: Final = """
SELECT chain FROM stubs WHERE journal = (SELECT id FROM journals WHERE name = ?) AND sequence = ?
"""
_POSITIONS: Final = 'SELECT journal, segment, "offset", sequence, chain FROM positions'
_MOVE: Final = """
INSERT INTO positions VALUES (?, ?, ?, ?, ?) ON CONFLICT (journal) DO UPDATE
SET segment = excluded.segment, "offset" = excluded."offset", sequence = excluded.sequence, chain = excluded.chain
"""
_GAPS: Final = 'SELECT journal, first, count, segment, "offset", why, at_ns FROM gaps ORDER BY journal, first, at_ns'
_GAP: Final = "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_WORDS_KEPT: Final = 50_000


def positions_in(connection: apsw.Connection) -> Mapping[str, JournalPosition]:
    """Return the positions that a day's file has."""
    rows: list[Any] = connection.execute(_POSITIONS).fetchall()
    return {row[0]: JournalPosition(*row) for row in rows}


def gaps_in(connection: apsw.Connection) -> Sequence[Gap]:
    """Return the gaps that a day's file has, in order of journal and sequence."""
    rows: list[Any] = connection.execute(_GAPS).fetchall()
    return [Gap(*row) for row in rows]


def begin(connection: apsw.Connection, positions: Iterable[JournalPosition], gaps: Iterable[Gap], at_ns: int) -> None:
    """Make a file the one that has the positions and gaps of the store."""
    connection.execute("INSERT INTO begun VALUES (?)", (at_ns,))
    _move(connection, positions)
    _note(connection, gaps)


def stands_in(connection: apsw.Connection, frame: Frame) -> bool:
    """Tell whether a frame's place is taken in a day; raise the alarm when something else stands in it."""
    place = (frame.journal, frame.sequence)
    row: Any = connection.execute(_STANDS, place).fetchone()
    if row is not None:
        record_id, *stands = row
        if stands != [frame.previous, frame.sealed]:
            conflict(frame, f"record {unpacked_id(record_id)} stands in its place, and is another")
        return True
    row = connection.execute(_STUB, place).fetchone()
    if row is not None and row[0] != frame.chain:
        conflict(frame, "what stands in its place is the stub of another record")
    return row is not None


def conflict(frame: Frame, why: str) -> None:
    """Raise the alarm for a frame whose place is taken by another."""
    logger().error(
        "record_conflict", record_id=frame.record.record_id, journal=frame.journal, sequence=frame.sequence, why=why
    )


class DayWriter:
    """Writes into one day's file through `connection`.

    What it remembers of the file holds only while every transaction is committed: after one that was not, make another.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._next: int = connection.execute(_NEXT).get
        self._word = _Interned(connection, "words", "word").__getitem__
        self._journal = _Interned(connection, "journals", "name").__getitem__
        self._positions = dict(positions_in(connection))

    @property
    def next_number(self) -> int:
        """The number that the next record gets."""
        return self._next

    def write(self, batch: Batch, fresh: Sequence[Frame]) -> None:
        """Insert, in the transaction that is open, the frames of a batch that are new, its gaps, and its positions."""
        rows, sealed, parts = [], [], []
        journal, word = self._journal, self._word
        for number, frame in enumerate(fresh, self._next):
            try:
                columns = row_of(frame.record, word)
            except UnicodeEncodeError:
                columns = row_of(decode_record(frame.sealed), word)  # there it stands escaped
            rows.append((number, journal(frame.journal), frame.sequence, *columns))
            sealed.append((number, frame.previous, frame.sealed))
            if frame.request or frame.response:
                parts.append((number, frame.request, frame.response))
        self._connection.executemany(INSERT, rows)
        self._connection.executemany(_SEALED, sealed)
        self._connection.executemany(_PARTS, parts)
        self._next += len(rows)
        moved = [at for at in batch.positions if self._positions.get(at.journal) != at]
        _move(self._connection, moved)
        self._positions.update((at.journal, at) for at in moved)
        _note(self._connection, batch.gaps)


class _Interned(dict[str, int]):
    """The small integers of names in a table, looked up or made when they are asked for."""

    def __init__(self, connection: apsw.Connection, table: str, column: str) -> None:
        super().__init__()
        self._connection = connection
        self._find = f"SELECT id FROM {table} WHERE {column} = ?"  # noqa: S608 - names of ours
        self._make = f"INSERT INTO {table} ({column}) VALUES (?) RETURNING id"  # noqa: S608 - names of ours

    def __missing__(self, name: str) -> int:
        if len(self) >= _WORDS_KEPT:
            self.clear()  # names that callers make up must not fill the memory
        found: int | None = self._connection.execute(self._find, (name,)).get
        self[name] = number = found if found is not None else self._connection.execute(self._make, (name,)).get
        return number


def _move(connection: apsw.Connection, positions: Iterable[JournalPosition]) -> None:
    connection.executemany(_MOVE, ((at.journal, at.segment, at.offset, at.sequence, at.chain) for at in positions))


def _note(connection: apsw.Connection, gaps: Iterable[Gap]) -> None:
    rows = ((gap.journal, gap.first, gap.count, gap.segment, gap.offset, gap.why, gap.at_ns) for gap in gaps)
    connection.executemany(_GAP, rows)
