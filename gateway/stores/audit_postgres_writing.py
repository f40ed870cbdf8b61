"""Batches of the recorder into PostgreSQL: staged by COPY, then inserted where the places are free, in one transaction.

A place is taken once whatever happens to a connection. In one day the key sees to it. Between days we do: who writes
records of a journal holds its lock, and a record that is not beyond all that the journal ever had here is looked for in
the other days first. So also a commit that was under way when its gateway was killed, and that the server finished
after the next one had read the positions, is met again and doubles nothing.

Belongs here: what one transaction inserts, and what it leaves alone. Never here: look-ups, partitions, connections.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from hashlib import blake2b
from typing import Any, Final

from msgspec import Struct

from gateway.logs import logger
from gateway.ports import Batch, Gap, JournalPosition
from gateway.record import Frame
from gateway.stores.audit_postgres_rows import COLUMNS, TYPES, column_text, escaped, plain_text, row_of_frame
from gateway.stores.postgres_connection import Link

_STAGED: Final = f"day, journal, sequence, previous, sealed, {COLUMNS}"
ARRIVING: Final = f"""
CREATE TEMP TABLE IF NOT EXISTS arriving ON COMMIT DELETE ROWS AS
SELECT {_STAGED}, ''::bytea AS request, ''::bytea AS response FROM records WITH NO DATA
"""  # noqa: S608 - names of ours
"""Makes the table in which a connection stages what it writes; it is empty outside of transactions."""
# Binary: text would cost the gateway three times the CPU, and twice the bytes.
_COPY: Final = "COPY arriving FROM STDIN (FORMAT BINARY)"
_COPY_TYPES: Final = ("date", "text", "int8", "bytea", "bytea", *TYPES, "bytea", "bytea")
_INSERT: Final = f"""
WITH fresh AS (
  INSERT INTO records (number, {_STAGED}) SELECT nextval('numbers'), {_STAGED} FROM arriving
  ON CONFLICT DO NOTHING RETURNING number, day, journal, sequence
), contents AS (
  INSERT INTO parts (number, day, request, response)
  SELECT number, fresh.day, request, response FROM fresh JOIN arriving USING (journal, sequence)
  WHERE request <> '' OR response <> ''
)
SELECT count(*) FROM fresh
"""  # noqa: S608 - names of ours
_LOCK: Final = "SELECT pg_advisory_xact_lock(key) FROM unnest(%s::bigint[]) AS key"
_LASTS: Final = "SELECT journal, max(last) FROM stretches WHERE journal = ANY (%s) GROUP BY journal"
_DAYS: Final = "SELECT DISTINCT day FROM stretches WHERE journal = %s AND first <= %s AND last >= %s"
_STANDING: Final = """
SELECT journal, sequence, previous, sealed, chain FROM records JOIN unnest(%s::text[], %s::bigint[]) AS place (j, s)
ON journal = j AND sequence = s WHERE day = %s
"""
_STRETCH: Final = """
INSERT INTO stretches (journal, day, first, last) VALUES (%s, %s, %s, %s) ON CONFLICT (journal, day) DO UPDATE
SET first = least(stretches.first, excluded.first), last = greatest(stretches.last, excluded.last)
"""
_SPAN: Final = """
INSERT INTO spans (day, gateway, first_ns, last_ns, strays) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (day, gateway) DO UPDATE SET first_ns = least(spans.first_ns, excluded.first_ns),
last_ns = greatest(spans.last_ns, excluded.last_ns), strays = spans.strays OR excluded.strays
"""
_MOVE: Final = """
INSERT INTO positions (journal, segment, "offset", sequence, chain) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (journal) DO UPDATE
SET segment = excluded.segment, "offset" = excluded."offset", sequence = excluded.sequence, chain = excluded.chain
"""
_NOTE: Final = "INSERT INTO gaps VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
_POSITIONS: Final = 'SELECT journal, segment, "offset", sequence, chain FROM positions'
_RECEIVED, _STRAY = (COLUMNS.split(", ").index(name) for name in ("received_ns", "stray_key"))


class Standing(Struct, frozen=True):
    """What stands in a place: a record, or what pruning left of one (then `sealed` is None and `chain` its chain)."""

    previous: bytes
    sealed: bytes | None
    chain: bytes | None

    def is_of(self, frame: Frame) -> bool:
        """Tell whether it is that frame's."""
        if self.sealed is None:
            return self.chain == frame.chain
        return (self.previous, self.sealed) == (frame.previous, frame.sealed)


Place = tuple[str, int]
"""Journal (as columns have it) and sequence."""


def positions(connection: Link) -> dict[str, JournalPosition]:
    """Return the committed position of every journal."""
    rows = connection.rows(_POSITIONS)
    return {(name := plain_text(row[0])): JournalPosition(name, *row[1:]) for row in rows}


def write(connection: Link, batch: Batch) -> None:
    """Insert, in the transaction that is open, what of a batch is new; raise the alarm for what contradicts."""
    day = date.fromisoformat(batch.day)
    frames: dict[Place, Frame] = {}
    for frame in batch.frames:
        first = frames.setdefault((column_text(frame.journal), frame.sequence), frame)
        if first is not frame and (first.previous, first.sealed) != (frame.previous, frame.sealed):
            _conflict(frame)
    if frames:
        _lock(connection, sorted({journal for journal, _ in frames}))
        for place in _taken(connection, frames):
            frames.pop(place)
    if frames:
        _insert(connection, day, frames)
    _move(connection, batch.positions)
    _note(connection, batch.gaps)


def _lock(connection: Link, journals: Sequence[str]) -> None:
    # In one order everywhere, so that two that write for some of the same journals do not wait for each other.
    keys = sorted(_lock_key(journal) for journal in journals)
    connection.execute(_LOCK, (keys,))


def _lock_key(journal: str) -> int:
    return int.from_bytes(blake2b(b"journal " + journal.encode(), digest_size=8).digest(), "big", signed=True)


def _taken(connection: Link, frames: Mapping[Place, Frame]) -> list[Place]:
    """Return which of these places are taken, on whatever day; look only for those that can be."""
    lasts = dict(connection.rows(_LASTS, (list({journal for journal, _ in frames}),)))
    suspects: dict[str, list[int]] = defaultdict(list)
    for journal, sequence in frames:
        if sequence <= lasts.get(journal, -1):
            suspects[journal].append(sequence)
    taken: list[Place] = []
    for journal, sequences in suspects.items():
        for (day,) in connection.rows(_DAYS, (journal, max(sequences), min(sequences))):
            standing = _standing(connection, day, [(journal, sequence) for sequence in sequences])
            _compare(frames, standing)
            taken += standing
    return list(dict.fromkeys(taken))


def _standing(connection: Link, day: date, places: Iterable[Place]) -> dict[Place, Standing]:
    journals, sequences = zip(*places, strict=True)
    rows = connection.rows(_STANDING, (list(journals), list(sequences), day))
    return {(journal, sequence): Standing(*rest) for journal, sequence, *rest in rows}


def _compare(frames: Mapping[Place, Frame], standing: Mapping[Place, Standing]) -> None:
    for place, one in standing.items():
        if not one.is_of(frames[place]):
            _conflict(frames[place])


def _conflict(frame: Frame) -> None:
    logger().error(
        "record_conflict",
        record_id=frame.record.record_id,
        journal=frame.journal,
        sequence=frame.sequence,
        why="another record stands in its place",
    )


def _insert(connection: Link, day: date, frames: Mapping[Place, Frame]) -> None:
    rows: dict[Place, tuple[Any, ...]] = {}
    with connection.cursor().copy(_COPY) as copy:
        copy.set_types(_COPY_TYPES)
        for (journal, sequence), frame in frames.items():
            # Worked out here, so that the server takes in some rows while we make the next.
            row = rows[journal, sequence] = row_of_frame(frame)
            copy.write_row((day, journal, sequence, frame.previous, frame.sealed, *row, frame.request, frame.response))
    if connection.value(_INSERT) < len(frames):
        # Beyond all that is known of its journal, and taken: the table of stretches was edited.
        _compare(frames, _standing(connection, day, frames))
    _note_ranges(connection, day, rows)


def _note_ranges(connection: Link, day: date, rows: Mapping[Place, tuple[Any, ...]]) -> None:
    stretches: dict[str, list[int]] = defaultdict(list)
    times: dict[str, list[int]] = defaultdict(list)
    strays = any(row[_STRAY] is not None for row in rows.values())
    for (journal, sequence), row in rows.items():
        stretches[journal].append(sequence)
        times[journal.partition("/")[0]].append(row[_RECEIVED])
    with connection.cursor() as cursor:
        cursor.executemany(_STRETCH, [(one, day, min(all_), max(all_)) for one, all_ in sorted(stretches.items())])
        cursor.executemany(_SPAN, [(day, one, min(all_), max(all_), strays) for one, all_ in sorted(times.items())])


def _move(connection: Link, moved: Sequence[JournalPosition]) -> None:
    rows = [(column_text(at.journal), at.segment, at.offset, at.sequence, at.chain) for at in moved]
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(_MOVE, sorted(rows))


def _note(connection: Link, gaps: Sequence[Gap]) -> None:
    rows = [
        (column_text(gap.journal), gap.first, gap.count, gap.segment, gap.offset, escaped(gap.why), gap.at_ns)
        for gap in gaps
    ]
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(_NOTE, rows)
