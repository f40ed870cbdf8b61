"""How we talk to PostgreSQL: connections set up with care, bounded times, and every error in our own words.

Belongs here: opening, lending and giving up connections, time limits, translation of errors. Never here: a table.

What the server guarantees is asked for by each session, whatever the server's defaults are: `synchronous_commit` is on
(a commit that is answered is on disk, and on the synchronous replicas if there are any), statements and waits for locks
end by themselves, and so does a transaction whose gateway has died in the middle of it. A server that does not answer at
all is given up by a clock of ours.
"""

import select
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from time import monotonic
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from gateway.errors import AuditUnavailable
from gateway.logs import logger
from gateway.stores.postgres_url import PostgresAddress

STATEMENT_SECONDS = 30
"""How long one statement may take, but for those of `upkeep`."""
UPKEEP_SECONDS = 1_800
"""How long one statement of `upkeep` may take: it rewrites a whole day."""
READERS = 4
"""How many connections for reading there are at most; who finds them all busy waits."""
_LOCK_SECONDS = 10
_GRACE_SECONDS = 5
_IDLE_IN_TRANSACTION_SECONDS = 60
_OLDEST_VERSION = 15
_SET_UP: Final = """
SELECT current_setting('server_version_num')::int / 10000,
  current_setting('server_encoding'),
  current_setting('fsync'),
  set_config('synchronous_commit', CASE current_setting('synchronous_commit')
    WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, false),
  set_config('default_transaction_read_only', %(read_only)s, false),
  set_config('default_transaction_isolation', 'read committed', false),
  set_config('statement_timeout', %(statement)s, false),
  set_config('lock_timeout', %(lock)s, false),
  set_config('idle_in_transaction_session_timeout', %(idle)s, false),
  set_config('search_path', 'pointsman', false),
  set_config('plan_cache_mode', 'force_custom_plan', false),
  set_config('synchronize_seqscans', 'off', false),
  set_config('jit', 'off', false)
"""
"""Plans are made anew for each set of values: a generic one would look at, and lock, every day of the store. What is read
from end to end is read from its beginning, so that staged records are inserted in their order."""


Values = Sequence[Any] | Mapping[str, Any]
"""What is put into a statement."""


class Unreachable(AuditUnavailable):
    """No connection can be made now."""


class Link(psycopg.Connection[tuple[Any, ...]]):
    """A connection that is given up when the server has said nothing for `patience_s` seconds."""

    patience_s: float = STATEMENT_SECONDS + _GRACE_SECONDS

    def wait(self, gen: Generator[Any, Any, Any], *words: Any, **named: Any) -> Any:
        """Wait for an answer, as psycopg does, but not for ever."""
        return super().wait(_within(gen, self.patience_s), *words, **named)

    def rows(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows."""
        return self.execute(statement.encode(), values, binary=True).fetchall()

    def value(self, statement: str, values: Values = ()) -> Any:
        """Execute a statement that gives one row, and return its first column."""
        row = self.execute(statement.encode(), values, binary=True).fetchone()
        assert row is not None
        return row[0]


Lend = Callable[[], AbstractContextManager[Link]]
"""Lends a connection for reading."""


def _within(gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
    """Pass on what psycopg waits for and what comes of it; it is resumed with nothing about ten times a second."""
    deadline = monotonic() + seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and monotonic() > deadline:
                raise psycopg.errors.ConnectionTimeout(f"it has not answered within {seconds:g} s")
            wanted = gen.send(ready)
    except StopIteration as end:
        return end.value


class PostgresLink:
    """Connections to one database. Nothing is opened before the first call; a lost one is replaced at the next call.

    `prepare` is called with each new connection for writing, and `check` with each for reading, before it is lent.

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
        self._free = threading.BoundedSemaphore(READERS)
        self._closed = False
        self._warned = False

    @contextmanager
    def writer(self) -> Iterator[Link]:
        """Lend the connection for writing, outside of a transaction; one thread has it at a time."""
        self._may_write()
        with self._writing, self._translated():
            connection, self._writer = self._writer, None
            if connection is None or not _is_alive(connection):
                connection = self._open(read_only=False)
                _or_close(connection, self._prepare)
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
        with self._translated(), self._open(read_only=False, seconds=UPKEEP_SECONDS) as connection:
            self._check(connection)
            yield connection

    @contextmanager
    def reader(self) -> Iterator[Link]:
        """Lend a connection for reading, outside of a transaction; one thread has it at a time."""
        if not self._free.acquire(timeout=_LOCK_SECONDS):
            raise AuditUnavailable(
                f"the audit store at {self.where} is busy: all {READERS} readers are taken; try again"
            )
        try:
            with self._translated():
                connection = self._idle_one()
                if connection is None:
                    connection = self._open(read_only=True)
                    _or_close(connection, self._check)
                try:
                    yield connection
                finally:
                    if (kept := self._kept(connection)) is not None:
                        self._idle.append(kept)
        finally:
            self._free.release()
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
                if _is_alive(connection):
                    return connection
        return None

    def _open(self, *, read_only: bool, seconds: int = STATEMENT_SECONDS) -> Link:
        if self._closed:
            raise AuditUnavailable(f"the audit store at {self.where} is closed")
        options: dict[str, Any] = dict(self._address.options)
        if not read_only:
            options.setdefault("target_session_attrs", "read-write")  # of several hosts, the primary
        options["client_encoding"] = "UTF8"
        try:
            connection = Link.connect(**options, autocommit=True)
        except psycopg.OperationalError as error:
            raise Unreachable(
                f"the audit store at {self.where} cannot be reached: {self._address.masked(str(error))}"
            ) from None
        connection.patience_s = seconds + _GRACE_SECONDS
        if read_only:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        _or_close(connection, lambda it: self._set_up(it, read_only, seconds))
        return connection

    def _set_up(self, connection: Link, read_only: bool, seconds: int) -> None:
        limits = {
            "read_only": "on" if read_only else "off",
            "statement": f"{seconds}s",
            "lock": f"{_LOCK_SECONDS}s",
            "idle": f"{_IDLE_IN_TRANSACTION_SECONDS}s",
        }
        found = connection.execute(_SET_UP, limits).fetchone()
        assert found is not None
        version, encoding, fsync = found[:3]
        if version < _OLDEST_VERSION:
            raise AuditUnavailable(
                f"the audit store at {self.where} is PostgreSQL {version}; it has to be {_OLDEST_VERSION} or newer"
            )
        if encoding != "UTF8":
            raise AuditUnavailable(
                f"the database at {self.where} has the encoding {encoding}; make one with ENCODING 'UTF8'"
            )
        if fsync != "on" and not self._warned:
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
                return f"is busy: somebody else holds a lock for longer than {_LOCK_SECONDS} s; try again"
            case psycopg.errors.ReadOnlySqlTransaction():
                return "takes no changes: it is a replica, or set to read only; audit.url has to name the primary"
            case psycopg.errors.InsufficientPrivilege():
                return f"refuses: {text}; the user of audit.url has to own the schema `pointsman`"
            case psycopg.OperationalError() if error.sqlstate is None:
                return f"does not answer ({text})"
            case _:
                return f"failed: {text}"

    def _kept(self, connection: Link) -> Link | None:
        """Return a connection that may be lent again; close and forget any other."""
        usable = not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE
        if usable and not self._closed:
            return connection
        connection.close()
        return None


def _or_close(connection: Link, step: Callable[[Link], None]) -> None:
    try:
        step(connection)
    except BaseException:
        connection.close()
        raise


def _is_alive(connection: Link) -> bool:
    """Tell whether an idle connection was not closed from the other side meanwhile; costs no round trip."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if not poll.poll(0):
        return True
    try:
        connection.pgconn.consume_input()  # a notice, or the end
    except psycopg.Error:
        connection.close()
        return False
    return not connection.closed
