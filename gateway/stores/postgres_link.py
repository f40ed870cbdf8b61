"""How we talk to PostgreSQL: who gets which connection, what becomes of a broken one, and errors in our own words.

Belongs here: lending and giving up connections, translation of errors. Never here: a connection's settings, or a table.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import psycopg
from psycopg.pq import TransactionStatus

from gateway.errors import AuditUnavailable
from gateway.logs import logger
from gateway.stores.postgres_connection import LOCK_SECONDS, STATEMENT_SECONDS, Link, connect
from gateway.stores.postgres_url import PostgresAddress

UPKEEP_SECONDS: Final = 1_800
"""How long one statement of `upkeep` may take: it rewrites a whole day."""
READERS: Final = 4
"""How many connections for reading there are at most; who finds them all busy waits."""


class Turns:
    """So many may go on at once; the others wait, and who came first goes first.

    Those of the standard library are nobody's in particular: a thread that gives one back and takes the next can keep
    all others waiting for good.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Event] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def take(self, seconds: float) -> bool:
        """Take a turn, waiting at most so long for it; return whether there was one."""
        with self._lock:
            if self._free:
                self._free -= 1
                return True
            mine = threading.Event()
            self._waiting.append(mine)
        if mine.wait(seconds):
            return True
        with self._lock:
            if mine.is_set():
                return True
            self._waiting.remove(mine)
            return False

    def give_back(self) -> None:
        """End a turn; whoever has waited longest has it next."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


class PostgresLink:
    """Connections to one database. Nothing is opened before the first call; a lost one is replaced at the next call.

    `prepare` is called with each new connection for writing, and `check` with each other one, before it is lent.

    Raises (every call):
        AuditUnavailable: in our words, without secrets, and without the library's own traceback, which may hold them.
    """

    def __init__(
        self, address: PostgresAddress, prepare: Callable[[Link], None], check: Callable[[Link], None], read_only: bool
    ) -> None:
        self.where = address.where
        self._address = address
        self._prepare = prepare
        self._check = check
        self._read_only = read_only
        self._writing = threading.Lock()
        self._writer: Link | None = None
        self._idle: deque[Link] = deque()
        self._turns = Turns(READERS)
        self._closed = False
        self._warned = False

    @contextmanager
    def writer(self) -> Iterator[Link]:
        """Lend the connection for writing, outside of a transaction; one thread has it at a time."""
        self._may_write()
        with self._writing, self._translated():
            connection, self._writer = self._writer, None
            if connection is None or not connection.is_alive():
                connection = self._open(self._prepare, read_only=False)
                self._warn_unless_durable(connection)
            try:
                yield connection
            except psycopg.errors.ReadOnlySqlTransaction:
                connection.close()  # it was the primary; the next connection finds out which is now
                raise
            finally:
                self._writer = self._kept(connection)

    @contextmanager
    def upkeep(self) -> Iterator[Link]:
        """Lend a connection of its own for work that may take long; it is closed afterwards."""
        self._may_write()
        with self._translated(), self._open(self._check, read_only=False, seconds=UPKEEP_SECONDS) as connection:
            yield connection

    @contextmanager
    def reader(self) -> Iterator[Link]:
        """Lend a connection for reading, outside of a transaction; one thread has it at a time."""
        if not self._turns.take(LOCK_SECONDS):
            raise AuditUnavailable(
                f"the audit store at {self.where} is busy: all {READERS} readers are taken; try again"
            )
        try:
            with self._translated():
                connection = self._idle_one() or self._open(self._check, read_only=True)
                try:
                    yield connection
                finally:
                    if (kept := self._kept(connection)) is not None:
                        self._idle.append(kept)
        finally:
            self._turns.give_back()
            if self._closed:
                self._close_idle()

    def close(self) -> None:
        """Close every connection; a call that is under way ends first in its own thread. May be called again."""
        self._closed = True
        with self._writing:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        self._close_idle()

    def _may_write(self) -> None:
        if self._read_only:
            raise AuditUnavailable(f"the audit store at {self.where} was opened for reading only")

    def _close_idle(self) -> None:
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _idle_one(self) -> Link | None:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.is_alive():
                    return connection
        return None

    def _open(self, before: Callable[[Link], None], *, read_only: bool, seconds: int = STATEMENT_SECONDS) -> Link:
        if self._closed:
            raise AuditUnavailable(f"the audit store at {self.where} is closed")
        # A replica may be behind, so it is read only by those who do not write either, if that is what the URL names.
        of = "any" if self._read_only else "primary" if read_only else "read-write"
        connection = connect(self._address, read_only=read_only, seconds=seconds, of=of)
        try:
            before(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _kept(self, connection: Link) -> Link | None:
        """Return a connection that may be lent again; close and forget any other."""
        usable = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
        if usable and not self._closed:
            return connection
        connection.close()
        return None

    def _warn_unless_durable(self, connection: Link) -> None:
        if not connection.durable and not self._warned:
            self._warned = True
            logger().warning("audit_store_unsafe", where=self.where, why="its server runs with fsync = off")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise AuditUnavailable(f"the audit store at {self.where} {self._complaint(error)}") from None

    def _complaint(self, error: psycopg.Error) -> str:
        # Detail and context are left out: they repeat the values of the statement.
        text = self._address.masked(error.diag.message_primary or str(error))
        match error:
            case psycopg.errors.QueryCanceled():
                return f"did not finish within its time ({text})"
            case psycopg.errors.LockNotAvailable():
                return f"is busy: somebody else holds a lock for longer than {LOCK_SECONDS} s; try again"
            case psycopg.errors.ReadOnlySqlTransaction():
                return "takes no changes: it is a replica, or set to read only; audit.url has to name the primary"
            case psycopg.errors.InsufficientPrivilege():
                return f"refuses: {text}; the user of audit.url has to own the schema `pointsman`"
            case psycopg.OperationalError() if error.sqlstate is None:
                return f"does not answer ({text})"
            case _:
                return f"failed: {text}"
