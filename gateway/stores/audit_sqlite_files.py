"""The files of the audit store in a folder, one for each day, and the connections to them.

Connections for reading are opened when they are needed and a bounded number is kept, those that were used last.

Belongs here: which files there are, lending connections, errors in our words. Never here: a statement about records.
"""

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from gateway.errors import AuditUnavailable
from gateway.stores.audit_sqlite_day import SCHEMA
from gateway.stores.sqlite_file import SqliteFile

IDLE_CONNECTIONS = 64
_BUSY_MS = 5_000
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.db\Z", re.ASCII)


class DayFiles:
    """The days' files in `folder`. Every call may come from any thread.

    Raises (every call):
        AuditUnavailable: SQLite or the file system cannot do it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._idle: OrderedDict[tuple[str, int], apsw.Connection] = OrderedDict()
        self._closed = False

    def path(self, day: str) -> Path:
        """Return where the file of a day is, or would be."""
        return self._folder / f"{day}.db"

    def days(self) -> Sequence[str]:
        """Return the days that have a file, in order."""
        try:
            with os.scandir(self._folder) as entries:
                return sorted(found[1] for entry in entries if (found := _NAME.match(entry.name)))
        except OSError as error:
            raise AuditUnavailable(f"the audit store {self._folder} cannot be read: {error}") from None

    @contextmanager
    def reader(self, day: str) -> Iterator[apsw.Connection]:
        """Lend a connection for reading a day; one thread has it at a time."""
        connection = self._taken(day)
        try:
            yield connection
        except apsw.Error as error:
            connection.close()
            raise AuditUnavailable(f"the audit store's file {self.path(day)} failed: {error}") from error
        except BaseException:
            connection.close()
            raise
        self._give_back(day, connection)

    def opened_for_writing(self, day: str) -> SqliteFile:
        """Return the file of a day, made if there is none; the caller closes it."""
        return SqliteFile(self.path(day), SCHEMA)

    def forget(self, day: str) -> None:
        """Close the connections to a day that nobody is using."""
        with self._lock:
            found = [key for key in self._idle if key[0] == day]
            closing = [self._idle.pop(key) for key in found]
        for connection in closing:
            connection.close()

    def close(self) -> None:
        """Close every connection; one that is in use is closed when it is given back. May be called again."""
        with self._lock:
            self._closed = True
            closing = list(self._idle.values())
            self._idle.clear()
        for connection in closing:
            connection.close()

    def _taken(self, day: str) -> apsw.Connection:
        with self._lock:
            if self._closed:
                raise AuditUnavailable(f"the audit store {self._folder} is closed")
            for key in reversed(self._idle):
                if key[0] == day:
                    return self._idle.pop(key)
        try:
            return self._opened(day)
        except apsw.Error as error:
            raise AuditUnavailable(f"the audit store's file {self.path(day)} cannot be opened: {error}") from error

    def _opened(self, day: str) -> apsw.Connection:
        # Opened for writing, though it never does: the last connection of a file then takes its log away.
        connection = apsw.Connection(str(self.path(day)), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(_BUSY_MS)
            connection.execute("PRAGMA query_only = 1")
            found = connection.pragma("application_id"), connection.pragma("user_version")
        except BaseException:
            connection.close()
            raise
        if found != (SCHEMA.application_id, SCHEMA.version):
            connection.close()
            raise AuditUnavailable(f"{self.path(day)} is no day of an audit store of schema {SCHEMA.version}")
        return connection

    def _give_back(self, day: str, connection: apsw.Connection) -> None:
        closing = [connection]
        with self._lock:
            if not self._closed:
                self._idle[day, id(connection)] = connection
                closing = [self._idle.popitem(last=False)[1]] if len(self._idle) > IDLE_CONNECTIONS else []
        for one in closing:
            one.close()
