"""What one day of the audit store holds, and its checkpoints. Each function takes the connection to the day's file.

Belongs here: statements that count and list. Never here: several days, hashes, or what stands in single rows.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

import apsw
import msgspec
from msgspec import Struct

from gateway.columns import bounded
from gateway.ports import Holding, Place, SignedCheckpoint

# Without times all of it is read from indexes.
_HELD: Final = """
SELECT name, min(first), max(last), sum(records), sum(stubs) FROM (
  SELECT journal, min(sequence) AS first, max(sequence) AS last, count(*) AS records, 0 AS stubs
  FROM records GROUP BY journal
  UNION ALL SELECT journal, min(sequence), max(sequence), 0, count(*) FROM stubs GROUP BY journal
) JOIN journals ON id = journal GROUP BY journal ORDER BY name
"""
_RECEIVED: Final = """
SELECT name, min(sequence), max(sequence) FROM (
  SELECT journal, sequence FROM records WHERE received_ns >= ?1 AND received_ns < ?2
  UNION ALL SELECT journal, sequence FROM stubs WHERE received_ns >= ?1 AND received_ns < ?2
) JOIN journals ON id = journal GROUP BY journal ORDER BY name
"""
_BETWEEN: Final = """
SELECT (SELECT count(*) FROM records WHERE journal = id AND sequence BETWEEN ?1 AND ?2),
       (SELECT count(*) FROM stubs WHERE journal = id AND sequence BETWEEN ?1 AND ?2) FROM journals WHERE name = ?3
"""
_BY_MODEL: Final = "SELECT word, count(*) FROM records LEFT JOIN words ON id = model GROUP BY model"
_PLACES: Final = """
SELECT name, sequence FROM records JOIN journals ON id = journal WHERE model = (SELECT id FROM words WHERE word = ?)
"""
_CHECKPOINT: Final = "SELECT gateway, number, day, at_ns, statement, listing, signature, key FROM checkpoints"
_SEAL: Final = "INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_COVER: Final = "INSERT INTO covers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_COVERING: Final = """
SELECT gateway, number FROM covers WHERE journal = ?1 AND last >= ?2 AND first <= ?2 ORDER BY last LIMIT 1
"""


class Stretch(Struct, frozen=True):
    """A stretch of a journal that a checkpoint covers."""

    journal: str
    first: int
    last: int


def held_in(connection: apsw.Connection, day: str, since_ns: int | None, until_ns: int | None) -> Sequence[Holding]:
    """Return what a day holds, by journal in order; see `AuditStore.holdings`."""
    if since_ns is None and until_ns is None:
        rows: list[Any] = connection.execute(_HELD).fetchall()
        return [Holding(row[0], day, *row[1:]) for row in rows]
    within = (-(2**63) if since_ns is None else bounded(since_ns), 2**63 - 1 if until_ns is None else bounded(until_ns))
    edges: list[Any] = connection.execute(_RECEIVED, within).fetchall()
    found: list[Holding] = []
    for name, first, last in edges:
        counts: Any = connection.execute(_BETWEEN, (first, last, name)).fetchone()
        found.append(Holding(name, day, first, last, *counts))
    return found


def models_in(connection: apsw.Connection) -> dict[str, int]:
    """Return how many records of each model a day holds."""
    rows: list[Any] = connection.execute(_BY_MODEL).fetchall()
    return {model or "": records for model, records in rows}


def places_in(connection: apsw.Connection, models: Collection[str]) -> list[Place]:
    """Return the places of a day's records of some models."""
    return [Place(*row) for model in models for row in _rows(connection, _PLACES, model)]


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────


def seal(connection: apsw.Connection, checkpoint: SignedCheckpoint) -> None:
    """Insert a checkpoint."""
    one = checkpoint
    connection.execute(
        _SEAL, (one.gateway, one.number, one.day, one.at_ns, one.statement, one.listing, one.signature, one.key)
    )
    for stretch in _stretches(one.listing):
        connection.execute(_COVER, (stretch.journal, stretch.last, stretch.first, one.gateway, one.number))


def _stretches(listing: bytes) -> list[Stretch]:
    try:
        return msgspec.json.decode(listing, type=list[Stretch])
    except msgspec.DecodeError:
        return []  # it is kept as it is, and covers nothing


def checkpoint_in(connection: apsw.Connection, gateway: str, number: int) -> SignedCheckpoint | None:
    """Return a checkpoint, if this day has it."""
    rows = _rows(connection, f"{_CHECKPOINT} WHERE gateway = ? AND number = ?", gateway, number)
    return SignedCheckpoint(*rows[0]) if rows else None


def last_checkpoint_in(connection: apsw.Connection, gateway: str) -> SignedCheckpoint | None:
    """Return the newest checkpoint of a gateway in this day."""
    rows = _rows(connection, f"{_CHECKPOINT} WHERE gateway = ? ORDER BY number DESC LIMIT 1", gateway)
    return SignedCheckpoint(*rows[0]) if rows else None


def checkpoints_in(connection: apsw.Connection, gateway: str, above: int, limit: int) -> Sequence[SignedCheckpoint]:
    """Return the next checkpoints of a gateway in this day, those with numbers above `above`."""
    rows = _rows(
        connection, f"{_CHECKPOINT} WHERE gateway = ? AND number > ? ORDER BY number LIMIT ?", gateway, above, limit
    )
    return [SignedCheckpoint(*row) for row in rows]


def numbers_in(connection: apsw.Connection) -> Sequence[tuple[str, int, int]]:
    """Return the gateways that have checkpoints in this day, with the first and last number of each."""
    rows = _rows(connection, "SELECT gateway, min(number), max(number) FROM checkpoints GROUP BY gateway")
    return [(gateway, first, last) for gateway, first, last in rows]


def covering_in(connection: apsw.Connection, place: Place) -> SignedCheckpoint | None:
    """Return the checkpoint of this day that covers a place."""
    rows = _rows(connection, _COVERING, place.journal, place.sequence)
    return checkpoint_in(connection, *rows[0]) if rows else None


def _rows(connection: apsw.Connection, statement: str, *values: Any) -> list[Any]:
    return connection.execute(statement, values).fetchall()
