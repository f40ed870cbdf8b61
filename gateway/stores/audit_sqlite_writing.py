"""Batches of the recorder into the file of a day.

Belongs here: what one transaction inserts, and what it leaves alone. Never here: look-ups, or which file is written.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import apsw

from gateway.columns import unpacked_id
from gateway.logs import logger
from gateway.ports import Batch, Gap, JournalPosition
from gateway.record import Frame, decode_record
from gateway.stores.audit_sqlite_day import INSERT, row_of

_SEALED = "INSERT INTO sealed VALUES (?, ?, ?)"
_PARTS = "INSERT INTO parts VALUES (?, ?, ?)"
_NEXT = "SELECT 1 + max(coalesce((SELECT max(number) FROM records), 0), coalesce((SELECT max(number) FROM stubs), 0))"
_STANDS = """
SELECT record_id, previous, sealed FROM records JOIN sealed USING (number) WHERE journal = ? AND sequence = ?
"""
_STUB = "SELECT chain FROM stubs WHERE journal = ? AND sequence = ?"
_LAST = """
SELECT name, max(coalesce((SELECT max(sequence) FROM records WHERE journal = id), 0),
                 coalesce((SELECT max(sequence) FROM stubs WHERE journal = id), 0)) FROM journals
"""
_POSITIONS = 'SELECT journal, segment, "offset", sequence, chain FROM positions'
_MOVE = """
INSERT INTO positions VALUES (?, ?, ?, ?, ?) ON CONFLICT (journal) DO UPDATE
SET segment = excluded.segment, "offset" = excluded."offset", sequence = excluded.sequence, chain = excluded.chain
"""
_GAPS = 'SELECT journal, first, count, segment, "offset", why, at_ns FROM gaps ORDER BY journal, first'
_GAP = "INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_WORDS_KEPT: Final = 50_000


def last_sequences(connection: apsw.Connection) -> dict[str, int]:
    """Return the highest sequence of each journal in a day."""
    rows: list[Any] = connection.execute(_LAST).fetchall()
    return dict(rows)


def positions_in(connection: apsw.Connection) -> dict[str, JournalPosition]:
    """Return the positions that a day's file has."""
    rows: list[Any] = connection.execute(_POSITIONS).fetchall()
    return {row[0]: JournalPosition(*row) for row in rows}


def gaps_in(connection: apsw.Connection) -> list[Gap]:
    """Return the gaps that a day's file has, in order of journal and sequence."""
    rows: list[Any] = connection.execute(_GAPS).fetchall()
    return [Gap(*row) for row in rows]


def turn_of(connection: apsw.Connection) -> int:
    """Return which turn it was when this file began to have the positions; 0: it never did."""
    return int(connection.execute("SELECT coalesce(max(turn), 0) FROM turns").get)


def carry_on(connection: apsw.Connection, turn: int, positions: Iterable[JournalPosition], gaps: Iterable[Gap]) -> None:
    """Make a file the one that has the positions and gaps of the store."""
    connection.execute("DELETE FROM turns")
    connection.execute("INSERT INTO turns VALUES (?)", (turn,))
    connection.execute("DELETE FROM positions")
    _move(connection, positions)
    _note(connection, gaps)


class DayWriter:
    """Writes into one day's file. What it remembers of the file holds only while every transaction is committed:
    after one that was not, make another writer.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._next: int = connection.execute(_NEXT).get
        self._words: dict[str, int] = {}
        self._journals: dict[str, int] = {}
        self.lasts = last_sequences(connection)

    def write(self, batch: Batch, fresh: Sequence[Frame]) -> None:
        """Insert, in the transaction that is open, the frames of a batch that are new, its gaps, and its positions."""
        rows, sealed, parts = [], [], []
        for number, frame in enumerate(fresh, self._next):
            place = (number, self._journal(frame.journal), frame.sequence)
            rows.append(place + self._columns(frame))
            sealed.append((number, frame.previous, frame.sealed))
            if frame.request or frame.response:
                parts.append((number, frame.request, frame.response))
        self._connection.executemany(INSERT, rows)
        self._connection.executemany(_SEALED, sealed)
        self._connection.executemany(_PARTS, parts)
        self._next += len(rows)
        _move(self._connection, batch.positions)
        _note(self._connection, batch.gaps)
        for frame in fresh:
            self.lasts[frame.journal] = max(frame.sequence, self.lasts.get(frame.journal, 0))

    def _columns(self, frame: Frame) -> tuple[Any, ...]:
        try:
            return row_of(frame.record, self._word)
        except UnicodeEncodeError:
            return row_of(decode_record(frame.sealed), self._word)  # there it stands escaped

    def _journal(self, name: str) -> int:
        known = self._journals.get(name)
        if known is None:
            known = self._journals[name] = self._interned("journals", "name", name)
        return known

    def _word(self, word: str) -> int:
        known = self._words.get(word)
        if known is None:
            if len(self._words) >= _WORDS_KEPT:
                self._words.clear()
            known = self._words[word] = self._interned("words", "word", word)
        return known

    def _interned(self, table: str, column: str, name: str) -> int:
        found = self._connection.execute(f"SELECT id FROM {table} WHERE {column} = ?", (name,)).get  # noqa: S608 - names of ours
        if found is None:
            insert = f"INSERT INTO {table} ({column}) VALUES (?) RETURNING id"  # noqa: S608 - names of ours
            found = self._connection.execute(insert, (name,)).get
        return int(found)


def stands(connection: apsw.Connection, frame: Frame) -> bool:
    """Tell whether a frame's place is taken in a day; raise the alarm when something else stands in it."""
    journal = connection.execute("SELECT id FROM journals WHERE name = ?", (frame.journal,)).get
    row: Any = connection.execute(_STANDS, (journal, frame.sequence)).fetchone()
    if row is not None:
        record_id, previous, sealed = row
        if (previous, sealed) != (frame.previous, frame.sealed):
            _conflict(frame, f"record {unpacked_id(record_id)} stands in its place, and is another")
        return True
    stub: Any = connection.execute(_STUB, (journal, frame.sequence)).fetchone()
    if stub is not None and stub[0] != frame.chain:
        _conflict(frame, "the stub in its place is that of another record")
    return stub is not None


def _conflict(frame: Frame, why: str) -> None:
    logger().error(
        "record_conflict", record_id=frame.record.record_id, journal=frame.journal, sequence=frame.sequence, why=why
    )


def _move(connection: apsw.Connection, positions: Iterable[JournalPosition]) -> None:
    connection.executemany(_MOVE, ((at.journal, at.segment, at.offset, at.sequence, at.chain) for at in positions))


def _note(connection: apsw.Connection, gaps: Iterable[Gap]) -> None:
    rows = ((gap.journal, gap.first, gap.count, gap.segment, gap.offset, gap.why, gap.at_ns) for gap in gaps)
    connection.executemany(_GAP, rows)
