"""The audit store in one SQLite file, for one gateway that needs no other server.

Belongs here: the schema and its statements. Never here: making ids or times, or deciding what a record means.

Only the control process opens the file. It is in WAL mode with `synchronous = FULL`: what is committed survives the
death of the machine, so a journal segment may be deleted as soon as its records are committed. (`NORMAL` would leave
them to the next checkpoint; measured, `FULL` costs one sync a batch, which does not show at 1 000 records a batch.)
"""

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from gateway.errors import AuditUnavailable
from gateway.logs import logger
from gateway.ports import FIND_LIMIT, JournalPosition
from gateway.record import Frame, Record, decode_record, encode_record

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x506D4175
_BUSY_MS = 5_000
# A record is larger than half of SQLite's default page, so pages of 8 KiB waste less; they come before the first write.
_SETTINGS = """
PRAGMA page_size = 8192;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 2000;
PRAGMA cache_size = -32768;
"""
# A caller that names no request leaves request_id equal to record_id; that one needs no second index entry.
_SCHEMA = f"""
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
  body BLOB NOT NULL,
  UNIQUE (journal, sequence)
) STRICT;
CREATE INDEX records_by_request ON records (request_id, received_ns) WHERE request_id <> record_id;
CREATE INDEX records_by_oip ON records (oip_id, received_ns) WHERE oip_id IS NOT NULL;
CREATE INDEX records_by_primary ON records (primary_id) WHERE primary_id IS NOT NULL;
CREATE INDEX records_by_time ON records (received_ns);
CREATE TABLE positions (
  journal TEXT NOT NULL PRIMARY KEY,
  segment INTEGER NOT NULL,
  "offset" INTEGER NOT NULL,
  sequence INTEGER NOT NULL
) STRICT;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
_INSERT = "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
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


class SqliteAudit:
    """An `AuditStore` in the file at `path`, made if there is none. Every call may come from any thread.

    Raises (construction and every call):
        AuditUnavailable: SQLite cannot do it; nothing is half done.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()
        self._idle: deque[apsw.Connection] = deque()
        self._closed = threading.Event()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with self._translated():
                self._writer = _open_writer(path)
        except OSError as error:
            raise AuditUnavailable(f"the audit store {path} cannot be opened: {error}") from None

    def positions(self) -> Mapping[str, JournalPosition]:
        """Return the committed position of every journal."""
        with self._writing, self._translated():
            rows: list[Any] = self._writer.execute(
                'SELECT journal, segment, "offset", sequence FROM positions'
            ).fetchall()
        return {row[0]: JournalPosition(*row) for row in rows}

    def write(self, frames: Sequence[Frame], positions: Iterable[JournalPosition]) -> None:
        """Commit frames and positions in one transaction; a frame that is already there is left as it is."""
        moves = [(place.journal, place.segment, place.offset, place.sequence) for place in positions]
        with self._writing, self._translated():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                before = self._writer.total_changes()
                self._writer.executemany(_INSERT, map(_row, frames))
                if self._writer.total_changes() - before < len(frames):
                    self._check_repeats(frames)
                self._writer.executemany(_MOVE, moves)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def find(self, any_id: str) -> Sequence[Record]:
        """Return the records that a record id, request id or OIP id names, with their shadows, oldest first."""
        try:
            any_id.encode()
        except UnicodeEncodeError:
            return ()  # no record carries such an id, and SQLite cannot be asked for it
        with self._reader() as connection, self._translated():
            rows: list[Any] = connection.execute(_FIND, {"id": any_id}).fetchall()
        return [decode_record(row[0]) for row in rows]

    def close(self) -> None:
        """Close the file; a look-up that is under way ends first in its own thread. May be called again."""
        with self._writing:
            self._closed.set()
            self._writer.close()
        while self._idle:
            self._idle.pop().close()

    def _check_repeats(self, frames: Iterable[Frame]) -> None:
        """Raise the alarm for frames that were not stored and are not the same as what stands in their place."""
        for frame in frames:
            place = (frame.journal, frame.sequence)
            stored = self._writer.execute(
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

    @contextmanager
    def _reader(self) -> Iterator[apsw.Connection]:
        """Lend a connection for reading; one thread has it at a time."""
        if self._closed.is_set():
            raise AuditUnavailable(f"the audit store {self._path} is closed")
        try:
            connection = self._idle.pop()
        except IndexError:
            with self._translated():
                connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
                connection.set_busy_timeout(_BUSY_MS)
        try:
            yield connection
        finally:
            self._idle.append(connection)
            if self._closed.is_set():
                self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except apsw.Error as error:
            raise AuditUnavailable(f"the audit store {self._path} failed: {error}") from error


def _open_writer(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute(_SETTINGS)
        with connection:
            _bring_schema(path, connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _bring_schema(path: Path, connection: apsw.Connection) -> None:
    found = connection.pragma("user_version")
    if found == 0 and connection.execute("SELECT count(*) FROM sqlite_schema").get == 0:
        connection.execute(_SCHEMA)
    elif connection.pragma("application_id") != _APPLICATION_ID:
        raise AuditUnavailable(f"{path} is an SQLite file of something else; name another file for the audit store")
    elif found != SCHEMA_VERSION:
        raise AuditUnavailable(
            f"the audit store {path} has schema {found} and this Pointsman knows schema {SCHEMA_VERSION}; "
            "run the version that made it, or a newer one"
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
        encode_record(record),
    )
