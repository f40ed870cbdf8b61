"""What one day of the audit store shows as evidence: what it holds, its checkpoints, and its rows as they stand.

Belongs here: statements that count and list without believing what a row says. Never here: several days, or hashes.
"""

from collections.abc import Callable
from typing import Any, Final

import apsw
import msgspec
from msgspec import Struct

from gateway.columns import unpacked_id
from gateway.errors import AuditUnavailable
from gateway.ports import Day, Holding, Row, SignedCheckpoint
from gateway.record import decode_record
from gateway.stores.audit_sqlite_day import COLUMNS, row_of

_HOLDINGS: Final = """
SELECT name, min(sequence), max(sequence), sum(NOT stub), sum(stub) FROM (
  SELECT journal, sequence, received_ns, 0 AS stub FROM records
  UNION ALL SELECT journal, sequence, received_ns, 1 FROM stubs
) JOIN journals ON id = journal {} GROUP BY journal ORDER BY name
"""
_WITHIN: Final = "WHERE received_ns >= ? AND received_ns < ?"
_BETWEEN: Final = """
SELECT (SELECT count(*) FROM records WHERE journal = id AND sequence BETWEEN ?1 AND ?2),
       (SELECT count(*) FROM stubs WHERE journal = id AND sequence BETWEEN ?1 AND ?2) FROM journals WHERE name = ?3
"""
_BY_MODEL: Final = "SELECT word, count(*) FROM records JOIN words ON id = model GROUP BY model"
_TIMES: Final = """
SELECT min(least), max(most) FROM (
  SELECT min(received_ns) AS least, max(received_ns) AS most FROM records
  UNION ALL SELECT min(received_ns), max(received_ns) FROM stubs
)
"""
_CHECKPOINT: Final = "SELECT gateway, number, at_ns, statement, listing, signature, key FROM checkpoints"
_SEAL: Final = "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?)"
_COVER: Final = "INSERT INTO covers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_COVERING: Final = """
SELECT gateway, number FROM covers WHERE journal = ?1 AND last >= ?2 AND first <= ?2 ORDER BY last LIMIT 1
"""
_PLAIN: Final = ", ".join(f"records.{name}" for name in COLUMNS.split(", "))
_ROWS: Final = f"""
SELECT sequence, sealed.previous, sealed, request, response, erasure, {_PLAIN}
FROM records LEFT JOIN sealed USING (number) LEFT JOIN parts USING (number) LEFT JOIN erasures USING (number)
WHERE journal = ? AND sequence BETWEEN ? AND ? ORDER BY sequence LIMIT ?
"""  # noqa: S608 - names of ours
_STUBS: Final = """
SELECT sequence, previous, chain, pruning FROM stubs WHERE journal = ? AND sequence BETWEEN ? AND ? ORDER BY sequence
"""
_COLUMN_NAMES: Final = COLUMNS.split(", ")


class Stretch(Struct, frozen=True):
    """A stretch of a journal that a checkpoint covers."""

    journal: str
    first: int
    last: int


def held(day: str, connection: apsw.Connection, since_ns: int | None, until_ns: int | None) -> list[Holding]:
    """Return what a day holds, by journal in order; see `AuditStore.holdings`."""
    if since_ns is None and until_ns is None:
        rows: list[Any] = connection.execute(_HOLDINGS.format("")).fetchall()
        return [Holding(row[0], day, *row[1:]) for row in rows]
    within = (-(2**63) if since_ns is None else since_ns, 2**63 - 1 if until_ns is None else until_ns)
    edges: list[Any] = connection.execute(_HOLDINGS.format(_WITHIN), within).fetchall()
    found: list[Holding] = []
    for name, first, last, _, _ in edges:
        counts: Any = connection.execute(_BETWEEN, (first, last, name)).fetchone()
        found.append(Holding(name, day, first, last, *counts))
    return found


def day_of(day: str, connection: apsw.Connection) -> Day | None:
    """Return what a day has; None when there is no record nor what is left of one."""
    times: Any = connection.execute(_TIMES).fetchone()
    if times[0] is None:
        return None
    models: list[Any] = connection.execute(_BY_MODEL).fetchall()
    return Day(day, dict(models), *times)


def seal(connection: apsw.Connection, checkpoint: SignedCheckpoint) -> None:
    """Insert a checkpoint."""
    one = checkpoint
    connection.execute(_SEAL, (one.gateway, one.number, one.at_ns, one.statement, one.listing, one.signature, one.key))
    for stretch in stretches_of(one.listing):
        connection.execute(_COVER, (stretch.journal, stretch.last, stretch.first, one.gateway, one.number))


def stretches_of(listing: bytes) -> list[Stretch]:
    """Return the stretches of a listing; of one that is none of ours, nothing."""
    try:
        return msgspec.json.decode(listing, type=list[Stretch])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def checkpoint_in(day: str, connection: apsw.Connection, gateway: str, number: int) -> SignedCheckpoint | None:
    """Return a checkpoint, if this day has it."""
    row: Any = connection.execute(f"{_CHECKPOINT} WHERE gateway = ? AND number = ?", (gateway, number)).fetchone()
    return _checkpoint(day, row) if row is not None else None


def last_checkpoint_in(day: str, connection: apsw.Connection, gateway: str) -> SignedCheckpoint | None:
    """Return the newest checkpoint of a gateway in this day."""
    row: Any = connection.execute(
        f"{_CHECKPOINT} WHERE gateway = ? ORDER BY number DESC LIMIT 1", (gateway,)
    ).fetchone()
    return _checkpoint(day, row) if row is not None else None


def checkpoints_in(
    day: str, connection: apsw.Connection, gateway: str, above: int, limit: int
) -> list[SignedCheckpoint]:
    """Return the next checkpoints of a gateway in this day."""
    rows: list[Any] = connection.execute(
        f"{_CHECKPOINT} WHERE gateway = ? AND number > ? ORDER BY number LIMIT ?", (gateway, above, limit)
    ).fetchall()
    return [_checkpoint(day, row) for row in rows]


def numbers_in(connection: apsw.Connection) -> list[tuple[str, int, int]]:
    """Return the gateways that have checkpoints in this day, and their first and last numbers."""
    rows: list[Any] = connection.execute(
        "SELECT gateway, min(number), max(number) FROM checkpoints GROUP BY gateway"
    ).fetchall()
    return [(gateway, first, last) for gateway, first, last in rows]


def covering_in(day: str, connection: apsw.Connection, journal: str, sequence: int) -> SignedCheckpoint | None:
    """Return the checkpoint of this day that covers a place."""
    row: Any = connection.execute(_COVERING, (journal, sequence)).fetchone()
    return checkpoint_in(day, connection, *row) if row is not None else None


def _checkpoint(day: str, row: Any) -> SignedCheckpoint:
    gateway, number, at_ns, *rest = row
    return SignedCheckpoint(gateway, number, day, at_ns, *rest)


class RowReader:
    """Reads the rows of one journal in one day's file, each checked against its sealed part."""

    def __init__(self, connection: apsw.Connection, journal: str) -> None:
        self._connection = connection
        self._journal = journal
        self._id = connection.execute("SELECT id FROM journals WHERE name = ?", (journal,)).get
        words: list[Any] = connection.execute("SELECT word, id FROM words").fetchall()
        self._word: Callable[[str], int | None] = dict(words).get

    def read(self, first: int, last: int, limit: int) -> list[Row]:
        """Return what stands in the next `limit` places with a record, and in those with a stub between them."""
        rows: list[Any] = self._connection.execute(_ROWS, (self._id, first, last, limit)).fetchall()
        upto = rows[-1][0] if len(rows) == limit else last
        found = [self._row(row) for row in rows]
        stubs: list[Any] = self._connection.execute(_STUBS, (self._id, first, upto)).fetchall()
        if not stubs:
            return found
        found += [
            Row(self._journal, sequence, previous, None, b"", b"", chain=chain, pruning=unpacked_id(pruning))
            for sequence, previous, chain, pruning in stubs
        ]
        return sorted(found, key=lambda row: row.sequence)

    def _row(self, row: Any) -> Row:
        sequence, previous, sealed, request, response, erasure, *columns = row
        if sealed is None:
            return Row(self._journal, sequence, b"", b"", b"", b"", damage="its sealed part is not there")
        try:
            expected = row_of(decode_record(sealed), self._word)
            damage = "" if expected == tuple(columns) else _contradicting(expected, columns)
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            damage = f"its sealed part is no record: {error}"
        if erasure is not None:
            erased = unpacked_id(erasure)
            return Row(self._journal, sequence, previous, sealed, b"", b"", erasure=erased, damage=damage)
        return Row(self._journal, sequence, previous, sealed, request or b"", response or b"", damage=damage)


def _contradicting(expected: tuple[Any, ...], found: list[Any]) -> str:
    names = [name for name, wanted, is_ in zip(_COLUMN_NAMES, expected, found, strict=True) if wanted != is_]
    return f"not what its sealed part says: {', '.join(names)}"


def unreadable(path: str, error: Exception) -> AuditUnavailable:
    """Return what to raise when a file cannot be read."""
    return AuditUnavailable(f"the audit store's file {path} failed: {error}")
