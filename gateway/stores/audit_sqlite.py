"""The audit store in one SQLite file, for one gateway that needs no other server.

Belongs here: the schema and its statements. Never here: making ids or times, or deciding what a record means.

Only the control process opens the file. What is committed survives the death of the machine, so a journal segment may
be deleted as soon as its records are committed.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from gateway.logs import logger
from gateway.ports import FIND_LIMIT, JournalPosition, Sampled
from gateway.record import Frame, Record, decode_record, encode_record
from gateway.stores.sqlite_file import Schema, SqliteFile

_APPLICATION_ID = 0x506D4175
# What a decision looked at stands in columns only for primaries that a rule decided. Their index holds all that a
# sample needs: fetching 100 000 rows, each with its bodies, would take many times as long.
_BY_DECISION = """
CREATE INDEX records_by_decision ON records (
  model, received_ns, unit, keyed, headers, asked_version, intended, revision, cohort_revision, record_id
) WHERE unit IS NOT NULL;
"""
# A caller that names no request leaves request_id equal to record_id; that one needs no second index entry.
_STATEMENTS = f"""
CREATE TABLE records (
  record_id TEXT NOT NULL PRIMARY KEY,
  request_id TEXT NOT NULL,
  oip_id TEXT,
  primary_id TEXT,
  role TEXT NOT NULL,
  model TEXT NOT NULL,
  served TEXT,
  status INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  received_ns INTEGER NOT NULL,
  journal TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  unit BLOB,
  keyed INTEGER,
  headers BLOB,
  asked_version TEXT,
  intended TEXT,
  revision INTEGER,
  cohort_revision INTEGER,
  body BLOB NOT NULL,
  UNIQUE (journal, sequence)
) STRICT;
CREATE INDEX records_by_request ON records (request_id, received_ns) WHERE request_id <> record_id;
CREATE INDEX records_by_oip ON records (oip_id, received_ns) WHERE oip_id IS NOT NULL;
CREATE INDEX records_by_primary ON records (primary_id) WHERE primary_id IS NOT NULL;
CREATE INDEX records_by_time ON records (received_ns);
{_BY_DECISION}
CREATE TABLE positions (
  journal TEXT NOT NULL PRIMARY KEY,
  segment INTEGER NOT NULL,
  "offset" INTEGER NOT NULL,
  sequence INTEGER NOT NULL
) STRICT;
"""
# Records of schema 1 are not sampled: what their decisions looked at is in their bodies only.
_FROM_1 = f"""
ALTER TABLE records ADD COLUMN unit BLOB;
ALTER TABLE records ADD COLUMN keyed INTEGER;
ALTER TABLE records ADD COLUMN headers BLOB;
ALTER TABLE records ADD COLUMN asked_version TEXT;
ALTER TABLE records ADD COLUMN intended TEXT;
ALTER TABLE records ADD COLUMN revision INTEGER;
ALTER TABLE records ADD COLUMN cohort_revision INTEGER;
{_BY_DECISION}
"""
SCHEMA: Final = Schema("audit store", _APPLICATION_ID, 2, _STATEMENTS, {1: _FROM_1})
_COLUMNS: Final = (
    "record_id, request_id, oip_id, primary_id, role, model, served, status, outcome, received_ns, journal, sequence, "
    "unit, keyed, headers, asked_version, intended, revision, cohort_revision, body"
)
_INSERT = f"INSERT INTO records ({_COLUMNS}) VALUES ({', '.join('?' * 20)}) ON CONFLICT DO NOTHING"  # noqa: S608 - names of ours
_POSITIONS = 'SELECT journal, segment, "offset", sequence FROM positions'
_MOVE = """
INSERT INTO positions VALUES (?, ?, ?, ?)
ON CONFLICT (journal) DO UPDATE
SET segment = excluded.segment, "offset" = excluded."offset", sequence = excluded.sequence
"""
# CROSS JOIN keeps SQLite from turning the join around, into a scan of every record.
_FIND = f"""
WITH named AS (
  SELECT record_id, primary_id, received_ns FROM records WHERE record_id = :id
  UNION SELECT * FROM (SELECT record_id, primary_id, received_ns FROM records
    WHERE request_id = :id AND request_id <> record_id ORDER BY received_ns DESC LIMIT {FIND_LIMIT})
  UNION SELECT * FROM (SELECT record_id, primary_id, received_ns FROM records
    WHERE oip_id = :id AND oip_id IS NOT NULL ORDER BY received_ns DESC LIMIT {FIND_LIMIT})
), family AS (
  SELECT record_id FROM named
  UNION SELECT primary_id FROM named WHERE primary_id IS NOT NULL
  UNION SELECT shadow.record_id FROM named CROSS JOIN records AS shadow ON shadow.primary_id = named.record_id
)
SELECT body FROM records WHERE record_id IN family ORDER BY received_ns, role <> 'primary', record_id
"""  # noqa: S608 - what is put in is a number of ours
_SAMPLE = """
SELECT record_id, received_ns, unit, keyed, headers, asked_version, intended, revision, cohort_revision
FROM records WHERE unit IS NOT NULL AND model = ? AND received_ns >= ? ORDER BY received_ns DESC LIMIT ?
"""
_NO_HEADERS: Mapping[str, str] = {}
_headers = msgspec.msgpack.Decoder(dict[str, str])


class SqliteAudit:
    """An `AuditStore` in the file at `path`, made if there is none. Every call may come from any thread.

    Raises (construction and every call):
        AuditUnavailable: SQLite cannot do it; nothing is half done.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, SCHEMA)

    def positions(self) -> Mapping[str, JournalPosition]:
        """Return the committed position of every journal."""
        with self._file.writer() as connection:
            rows: list[Any] = connection.execute(_POSITIONS).fetchall()
        return {row[0]: JournalPosition(*row) for row in rows}

    def write(self, frames: Sequence[Frame], positions: Iterable[JournalPosition]) -> None:
        """Commit frames and positions in one transaction; a frame that is already there is left as it is."""
        moves = [(place.journal, place.segment, place.offset, place.sequence) for place in positions]
        with self._file.transaction() as connection:
            before = connection.total_changes()
            connection.executemany(_INSERT, map(_row, frames))
            if connection.total_changes() - before < len(frames):
                _check_repeats(connection, frames)
            connection.executemany(_MOVE, moves)

    def find(self, any_id: str) -> Sequence[Record]:
        """Return the records that a record id, request id or OIP id names, with their shadows, oldest first."""
        try:
            any_id.encode()
        except UnicodeEncodeError:
            return ()  # no record carries such an id, and SQLite cannot be asked for it
        with self._file.reader() as connection:
            rows: list[Any] = connection.execute(_FIND, {"id": any_id}).fetchall()
        return [decode_record(row[0]) for row in rows]

    def sample(self, model: str, since_ns: int, limit: int) -> Sequence[Sampled]:
        """Return the newest primary records of a model that a rule decided, newest first; each takes about 2 µs."""
        with self._file.reader() as connection:
            rows: list[Any] = connection.execute(_SAMPLE, (model, since_ns, limit)).fetchall()
        return [
            Sampled(
                record_id=record_id,
                received_ns=received_ns,
                unit=unit,
                keyed=bool(keyed),
                headers=_headers.decode(headers) if headers is not None else _NO_HEADERS,
                asked_version=asked_version,
                intended=intended,
                revision=revision,
                cohort_revision=cohort_revision,
            )
            for record_id, received_ns, unit, keyed, headers, asked_version, intended, revision, cohort_revision in rows
        ]

    def close(self) -> None:
        """Close the file; a look-up that is under way ends first in its own thread. May be called again."""
        self._file.close()


def _check_repeats(connection: apsw.Connection, frames: Iterable[Frame]) -> None:
    """Raise the alarm for frames that were not stored and are not the same as what stands in their place."""
    for frame in frames:
        place = (frame.journal, frame.sequence)
        stored = connection.execute(
            "SELECT journal, sequence FROM records WHERE record_id = ?", (frame.record.record_id,)
        ).fetchone()
        if stored != place:
            logger().error(
                "record_conflict",
                record_id=frame.record.record_id,
                journal=frame.journal,
                sequence=frame.sequence,
                why="another record has this place" if stored is None else f"it is stored at {stored}",
            )


def _row(frame: Frame) -> tuple[Any, ...]:
    record = frame.record
    return (
        record.record_id,
        record.request_id,
        record.oip_id,
        record.primary_id,
        record.role,
        record.model,
        record.served,
        record.status,
        record.outcome,
        record.received_ns,
        frame.journal,
        frame.sequence,
        *_decision(record),
        encode_record(record),
    )


def _decision(record: Record) -> tuple[Any, ...]:
    """Return what a sample needs of a primary that a rule decided; of any other record, nothing."""
    nothing = (None,) * 7
    if record.role != "primary" or record.unit is None or record.intended is None or record.reason is None:
        return nothing
    try:
        unit = bytes.fromhex(record.unit)
        headers = msgspec.msgpack.encode(record.headers) if record.headers else None
    except ValueError:
        return nothing  # damaged facts are no reason to lose the record
    asked, intended = record.asked_version, record.intended
    return unit, int(record.keyed), headers, asked, intended, record.revision, record.cohort_revision
