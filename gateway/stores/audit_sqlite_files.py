"""The files of the audit store in a folder, one for each day, and the connections that read them.

Connections are opened when they are needed, and a bounded number is kept, those that were used last: the files of 400
days must not take 1 200 descriptors.

Belongs here: which files there are, and lending connections. Never here: writing, or a statement about records.
"""

import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import apsw

from gateway.errors import AuditUnavailable
from gateway.stores.audit_sqlite_day import SCHEMA
from gateway.stores.sqlite_file import NotThere, SqliteFile, failed, open_for_reading, sync_folder

T = TypeVar("T")
IDLE_CONNECTIONS = 64
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.db\Z", re.ASCII)
_SETTLED_NS = 2 * 10**9  # a folder's time is as coarse as the kernel's clock, and a list read within it may be old


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
        self._listed: tuple[int, Sequence[str]] = (0, ())

    def path(self, day: str) -> Path:
        """Return where the file of a day is, or would be."""
        return self._folder / f"{day}.db"

    def days(self) -> Sequence[str]:
        """Return the days that have a file, in order."""
        if self._closed:
            raise AuditUnavailable(f"the audit store {self._folder} is closed")
        try:
            changed_ns = self._folder.stat().st_mtime_ns
            if changed_ns != self._listed[0]:
                now_ns = time.time_ns()
                with os.scandir(self._folder) as entries:
                    found = sorted(named[1] for entry in entries if (named := _NAME.match(entry.name)))
                self._listed = (changed_ns if changed_ns < now_ns - _SETTLED_NS else 0, found)
            return self._listed[1]
        except OSError as error:
            raise AuditUnavailable(f"the audit store {self._folder} cannot be read: {error}") from None

    @contextmanager
    def reader(self, day: str) -> Iterator[apsw.Connection]:
        """Lend a connection for reading a day; one thread has it at a time.

        Raises:
            NotThere: the day has no file, or nothing was committed to it yet.
        """
        connection = self._taken(day)
        try:
            yield connection
        except (apsw.Error, UnicodeDecodeError) as error:
            connection.close()
            raise failed(self.path(day), SCHEMA, error) from error
        except BaseException:
            connection.close()
            raise
        self._give_back(day, connection)

    def ask(self, day: str, question: Callable[[apsw.Connection], T]) -> T | None:
        """Return what a day answers; None when it is not there, being dropped meanwhile, or just being made."""
        try:
            with self.reader(day) as connection:
                return question(connection)
        except NotThere:
            return None

    def ask_each(self, days: Iterable[str], question: Callable[[apsw.Connection], T]) -> Iterator[tuple[str, T]]:
        """Yield what each of these days answers, with its name, one after the other, but for those that are not there.

        None is no answer.
        """
        for day in days:
            answer = self.ask(day, question)
            if answer is not None:
                yield day, answer

    def with_logs(self) -> Sequence[str]:
        """Return the days that have something in their log: the one being written, or those of a process that died."""
        return [day for day in self.days() if _size(self.path(day).with_name(f"{day}.db-wal"))]

    def opened_for_writing(self, day: str) -> SqliteFile:
        """Return the file of a day, made if there is none; the caller closes it.

        It is made under another name, so that nobody opens it half made.
        """
        path = self.path(day)
        if not path.exists():
            making = path.with_suffix(".making")
            try:
                for left in (making, making.with_name(f"{making.name}-wal"), making.with_name(f"{making.name}-shm")):
                    left.unlink(missing_ok=True)  # by a process that died
                SqliteFile(making, SCHEMA).close()
                making.rename(path)
                sync_folder(self._folder)
            except OSError as error:
                raise AuditUnavailable(f"the audit store's day {path} cannot be made: {error}") from None
        return SqliteFile(path, SCHEMA)

    def forget(self, day: str) -> None:
        """Close the connections to a day that nobody is using."""
        with self._lock:
            closing = [self._idle.pop(key) for key in list(self._idle) if key[0] == day]
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
        return open_for_reading(self.path(day), SCHEMA)

    def _give_back(self, day: str, connection: apsw.Connection) -> None:
        closing: apsw.Connection | None = connection
        with self._lock:
            if not self._closed:
                self._idle[day, id(connection)] = connection
                closing = self._idle.popitem(last=False)[1] if len(self._idle) > IDLE_CONNECTIONS else None
        if closing is not None:
            closing.close()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
