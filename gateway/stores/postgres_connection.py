"""One connection to PostgreSQL, set up with care and bounded in time.

What the server has to guarantee is asked for by each session, whatever the server's defaults are:
`synchronous_commit` is on (a commit that is answered is on disk, and on the synchronous replicas if there are any),
statements and waits for locks end by themselves, and so does a transaction whose gateway has died in the middle of it.
A server that does not answer at all is given up by a clock of ours.

Belongs here: opening a connection, its settings, its time limits. Never here: lending it, or a table.
"""

import select
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from time import monotonic
from typing import Any, Final

import psycopg

from gateway.errors import AuditUnavailable
from gateway.stores.postgres_url import PostgresAddress

STATEMENT_SECONDS: Final = 30
"""How long one statement may take, but for those of upkeep."""
COUNT_SECONDS: Final = 600
"""How long it may take to count what one day has."""
LOCK_SECONDS: Final = 10
"""How long one statement may wait for a lock."""
_GRACE_SECONDS: Final = 5
_NEVER: Final = 2**31
_IDLE_IN_TRANSACTION_SECONDS: Final = 60
_OLDEST_VERSION: Final = 15
# Who writes has plans made anew for each set of values, and who reads prepares nothing unless it is said: the plan of a
# statement that is given its day as a value would look at, and lock, every day of the store. Tables are read from their
# beginning, so that staged records are inserted in their order. Every question has its index: to go through a whole day
# and sort it looks cheap to a planner that has no statistics of a day yet, and takes a thousand times as long.
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
  set_config('plan_cache_mode', %(plans)s, false),
  set_config('synchronize_seqscans', 'off', false),
  set_config('enable_seqscan', 'off', false),
  set_config('enable_bitmapscan', 'off', false),
  set_config('enable_sort', 'off', false),
  set_config('jit', 'off', false)
"""
Values = Sequence[Any] | Mapping[str, Any]
"""What is put into a statement."""


class Unreachable(AuditUnavailable):
    """No connection can be made now."""


class Link(psycopg.Connection[tuple[Any, ...]]):
    """A connection that is given up when the server has said nothing for `patience_s` seconds.

    `durable` tells whether the server syncs what it commits to disk at all.
    """

    patience_s: float = STATEMENT_SECONDS + _GRACE_SECONDS
    durable: bool = True

    def wait(self, gen: Generator[Any, Any, Any], *words: Any, **named: Any) -> Any:
        """Wait for an answer, as psycopg does, but not for ever."""
        try:
            return super().wait(_within(gen, self.patience_s), *words, **named)
        except psycopg.errors.ConnectionTimeout:
            self.close()  # whoever tidies up after this would wait as long again
            raise

    def rows(self, statement: str, values: Values = (), *, prepare: bool | None = None) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows. Prepare one that is executed often, and names its days itself."""
        return self.execute(statement.encode(), values, prepare=prepare, binary=True).fetchall()

    def value(self, statement: str, values: Values = ()) -> Any:
        """Execute a statement that gives one row, and return its first column."""
        row = self.execute(statement.encode(), values, binary=True).fetchone()
        assert row is not None
        return row[0]

    @contextmanager
    def taking(self, seconds: int) -> Iterator[None]:
        """Let statements take longer for once, in a transaction."""
        patience_s, self.patience_s = self.patience_s, seconds + _GRACE_SECONDS
        try:
            with self.transaction():
                self.execute("SELECT set_config('statement_timeout', %s, true)", (f"{seconds}s",))
                yield
        finally:
            self.patience_s = patience_s

    @contextmanager
    def holding(self, lock: int) -> Iterator[None]:
        """Hold an advisory lock that only one connection can have; it goes with the connection if that is lost."""
        self.execute("SELECT pg_advisory_lock(%s)", (lock,))
        try:
            yield
        finally:
            if not self.closed:
                self.execute("SELECT pg_advisory_unlock(%s)", (lock,))

    def is_alive(self) -> bool:
        """Tell whether an idle connection was not closed from the other side meanwhile; costs no round trip."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while poll.poll(0):
            try:
                self.pgconn.consume_input()  # a notice, a farewell, or the end
            except psycopg.Error:
                self.close()
            if self.closed:
                return False
        return True


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


def connect(address: PostgresAddress, *, read_only: bool, seconds: int, of: str = "any") -> Link:
    """Return a new connection on which a statement may take so many seconds.

    `of` says which of several servers is meant where the URL does not (libpq's `target_session_attrs`).

    Raises:
        Unreachable: there is no server that answers, or it lets us not in.
        AuditUnavailable: the server or the database cannot be an audit store.
        psycopg.Error: anything else went wrong on the way.
    """
    options: dict[str, Any] = {"target_session_attrs": of, **address.options, "client_encoding": "UTF8"}
    try:
        connection = Link.connect(**options, autocommit=True)
    except psycopg.OperationalError as error:
        why = address.masked(str(error))
        raise Unreachable(f"the audit store at {address.where} cannot be reached: {why}") from None
    try:
        connection.patience_s = seconds + _GRACE_SECONDS
        if read_only:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.prepare_threshold = _NEVER
        _set_up(connection, address, read_only, seconds)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: Link, address: PostgresAddress, read_only: bool, seconds: int) -> None:
    limits = {
        "read_only": "on" if read_only else "off",
        "plans": "auto" if read_only else "force_custom_plan",
        "statement": f"{seconds}s",
        "lock": f"{LOCK_SECONDS}s",
        "idle": f"{_IDLE_IN_TRANSACTION_SECONDS}s",
    }
    ((version, encoding, fsync, *_),) = connection.rows(_SET_UP, limits)
    if version < _OLDEST_VERSION:
        raise AuditUnavailable(
            f"the audit store at {address.where} is PostgreSQL {version}; it has to be {_OLDEST_VERSION} or newer"
        )
    if encoding != "UTF8":
        raise AuditUnavailable(
            f"the database at {address.where} has the encoding {encoding}; make one with ENCODING 'UTF8'"
        )
    connection.durable = fsync == "on"
