"""One SQLite file that the control process writes: opened with care, one writer, any number of readers.

Belongs here: opening, lending connections, and errors in our words. Never here: a schema or a statement of anything
that is kept.

Files are in WAL mode with `synchronous = FULL`: what is committed survives the death of the machine. (`NORMAL` would
leave it to the next checkpoint; measured, `FULL` costs one sync a commit.)
"""

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import apsw
from msgspec import Struct

from gateway.errors import AuditUnavailable

_BUSY_MS = 5_000
_SETTINGS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 2000;
PRAGMA cache_size = -32768;
"""


# A statement of ours fails (`SQLError`) where the schema is no longer ours.
_DAMAGED = (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.TooBigError, UnicodeDecodeError)


class Schema(Struct, frozen=True):
    """What a file is for: its `name` in messages, its mark, and the statements that make it.

    `changes` maps an older version to the statements that bring a file of it to the next one; `settings` are pragmas
    that the writing connection needs beside those of every file. `page_bytes` is for files that are made: 8 KiB suit
    rows that are larger than half of SQLite's default page.
    """

    name: str
    application_id: int
    version: int
    statements: str
    changes: Mapping[int, str] = {}
    settings: str = ""
    page_bytes: int = 8192


class NotThere(AuditUnavailable):
    """There is no such file, or nothing was committed to it yet."""


class Damaged(AuditUnavailable):
    """What stands in the file is not what SQLite, or we, would have written."""


def failed(path: Path, schema: Schema, error: Exception) -> AuditUnavailable:
    """Return what to raise for an error of SQLite."""
    damaged = isinstance(error, _DAMAGED)
    return (Damaged if damaged else AuditUnavailable)(f"the {schema.name} {path} failed: {error}")


def open_for_reading(path: Path, schema: Schema) -> apsw.Connection:
    """Return a connection that only reads; the caller closes it.

    It is opened for writing nevertheless: only then does the last connection to a file take the file's log away.

    Raises:
        NotThere: there is nothing to read, yet or any more.
        Damaged: it is a file of something else, of another version, or none of SQLite's.
        AuditUnavailable: it cannot be opened.
    """
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error as error:
        if not path.exists():
            raise NotThere(f"the {schema.name} {path} is not there") from None
        raise failed(path, schema, error) from error
    try:
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute("PRAGMA query_only = 1")
        connection.execute("BEGIN")  # its schema may be committed just now: all three answers are of one moment
        mark, found = connection.pragma("application_id"), connection.pragma("user_version")
        empty = mark == 0 and _is_empty(connection)
        connection.execute("COMMIT")
        if mark != schema.application_id:
            raise NotThere(f"the {schema.name} {path} is still empty") if empty else _something_else(path, schema)
        if found != schema.version:
            raise _other_version(path, schema, found)
    except apsw.Error as error:
        connection.close()
        raise failed(path, schema, error) from error
    except BaseException:
        connection.close()
        raise
    return connection


class SqliteFile:
    """The file at `path`, made if there is none unless `read_only`. Every call may come from any thread.

    Raises (construction and every call):
        AuditUnavailable: SQLite cannot do it; nothing is half done.
    """

    def __init__(self, path: Path, schema: Schema, *, read_only: bool = False) -> None:
        self._path = path
        self._schema = schema
        self._writing = threading.Lock()
        self._idle: deque[apsw.Connection] = deque()
        self._closed = threading.Event()
        self._writer: apsw.Connection | None = None
        if read_only:
            self._idle.append(open_for_reading(path, schema))
            return
        try:
            _make_folder(path.parent)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with self._translated():
                self._writer = self._open()
        except OSError as error:
            raise AuditUnavailable(f"the {schema.name} {path} cannot be opened: {error}") from None

    @contextmanager
    def writer(self) -> Iterator[apsw.Connection]:
        """Lend the connection for writing; one thread has it at a time."""
        if self._writer is None:
            raise AuditUnavailable(f"the {self._schema.name} {self._path} was opened for reading only")
        with self._writing, self._translated():
            yield self._writer

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """Lend the connection for writing, in a transaction that is committed at the end unless something is raised."""
        with self.writer() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reader(self) -> Iterator[apsw.Connection]:
        """Lend a connection for reading; one thread has it at a time."""
        if self._closed.is_set():
            raise AuditUnavailable(f"the {self._schema.name} {self._path} is closed")
        with self._translated():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = open_for_reading(self._path, self._schema)
            try:
                yield connection
            finally:
                self._idle.append(connection)
                if self._closed.is_set():
                    self.close()

    def close(self) -> None:
        """Close the file; a look-up that is under way ends first in its own thread. May be called again."""
        with self._writing:
            self._closed.set()
            while self._idle:
                self._idle.pop().close()
            if self._writer is not None:
                self._writer.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (apsw.Error, UnicodeDecodeError) as error:
            raise failed(self._path, self._schema, error) from error

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path))
        try:
            connection.set_busy_timeout(_BUSY_MS)
            if not _is_empty(connection) and connection.pragma("application_id") != self._schema.application_id:
                raise _something_else(self._path, self._schema)  # before a setting changes a byte of it
            # Stepped to the end, each: a row stops `execute` on the way. The size of pages comes before any is written.
            settings = f"PRAGMA page_size = {self._schema.page_bytes};" + _SETTINGS + self._schema.settings
            connection.execute(settings).fetchall()
            with connection:
                self._bring_schema(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _bring_schema(self, connection: apsw.Connection) -> None:
        schema = self._schema
        found = connection.pragma("user_version")
        if found == 0 and _is_empty(connection):
            connection.execute(schema.statements)
            self._mark(connection)
            return
        if found == schema.version:
            return
        while found in schema.changes:
            connection.execute(schema.changes[found])
            found += 1
        if found != schema.version:
            raise _other_version(self._path, schema, found)
        self._mark(connection)

    def _mark(self, connection: apsw.Connection) -> None:
        connection.execute(
            f"PRAGMA application_id = {self._schema.application_id}; PRAGMA user_version = {self._schema.version}"
        )


def _is_empty(connection: apsw.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) = 0 FROM sqlite_schema").get)


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, so that none is lost with the machine. (SQLite does so for files only.)"""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or taken away in a folder survive the machine. Raises OSError."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _something_else(path: Path, schema: Schema) -> AuditUnavailable:
    return Damaged(f"{path} is an SQLite file of something else; name another file for the {schema.name}")


def _other_version(path: Path, schema: Schema, found: int) -> AuditUnavailable:
    return Damaged(
        f"the {schema.name} {path} has schema {found} and this Pointsman knows schema {schema.version}; "
        "run the version that made it, or a newer one"
    )
