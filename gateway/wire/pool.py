"""The connections of one lane to one backend, and the requests that wait for one.

Belongs here: which connection takes which request, how many there are, and how long they are kept. Never here: what
goes over them.

A request takes the idle connection that was used last, so that those too many grow old; if there is none, it waits for
the first that becomes free or new. As many new ones are opened as requests wait, within the limit. A connection is
nobody's while it opens: a caller who gives up costs no one else the time that opening it takes.
"""

from asyncio import Task
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from time import monotonic_ns

from msgspec import Struct

from gateway.errors import BackendUnreachable, DeadlineExceeded, InternalError, Overloaded, ServingError, Stopping
from gateway.logs import logger
from gateway.tasks import Tasks
from gateway.wire.alarm import NEVER, Alarm
from gateway.wire.connection import Connection
from gateway.wire.departures import Departures
from gateway.wire.exchange import Exchange
from gateway.wire.target import Origin, retimed

Opener = Callable[[Origin, Callable[[], Connection]], Awaitable[Connection]]
"""Opens a connection to a backend. Raises `BackendUnreachable`."""


class Limits(Struct, frozen=True):
    """What a pool may take: `count` connections, kept `keep_ns` idle and `age_ns` in all, and a `queue` of requests."""

    count: int
    queue: int
    keep_ns: int
    age_ns: int


class Pool:
    """A pool. `left` is called when it has neither connections nor requests any more."""

    def __init__(
        self,
        origin: Origin,
        limits: Limits,
        *,
        opener: Opener,
        departures: Departures,
        alarm: Alarm,
        tasks: Tasks,
        left: Callable[["Pool"], None],
    ) -> None:
        self.origin = origin
        self._limits = limits
        self._opener = opener
        self._departures = departures
        self._alarm = alarm
        self._tasks = tasks
        self._left = left
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._opening = 0
        self._waiting: OrderedDict[Exchange, None] = OrderedDict()
        self._repeated: OrderedDict[Exchange, None] = OrderedDict()
        self._stopped = False

    # ── what the client does ─────────────────────────────────────────────────────────────────────────────────────

    def submit(self, exchange: Exchange) -> None:
        """Send a request as soon as there is a connection for it.

        Raises:
            Overloaded: as many wait already as may, beside those for whom a connection may yet be opened.
        """
        while self._idle:
            connection = self._idle.pop()
            if not connection.closing:
                self._send(connection, exchange)
                return
        if len(self._waiting) >= self._limits.queue + self._limits.count - len(self._open):
            raise self._too_many()
        self._waiting[exchange] = None
        self._open_more()

    def abandon(self, exchange: Exchange) -> None:
        """Forget a request whose caller is gone, wherever it is."""
        if exchange.carrier is not None:
            exchange.carrier.abandon(exchange)
            return
        self._waiting.pop(exchange, None)
        self._repeated.pop(exchange, None)
        self._leave_if_empty()

    def expire(self, now: int) -> int:
        """End what is overdue and return when the next is due (monotonic, in ns)."""
        due = NEVER
        for connection in tuple(self._open):
            if connection.due_ns <= now:
                connection.overdue()
            due = min(due, connection.due_ns)
        for queue in (self._waiting, self._repeated):
            for exchange in tuple(queue):
                if exchange not in queue:
                    continue  # what one of those before it did, when told that it was late
                if exchange.deadline_ns <= now:
                    del queue[exchange]
                    exchange.fail(self._too_late(exchange))
                else:
                    due = min(due, exchange.deadline_ns)
        return due

    def stop(self) -> None:
        """End every request and close every connection, also those that are still to come."""
        self._stopped = True
        for queue in (self._waiting, self._repeated):
            while queue:
                queue.popitem()[0].fail(self._stopping())
        for connection in tuple(self._open):
            connection.fail(self._stopping())
        self._leave_if_empty()

    # ── what its connections do ──────────────────────────────────────────────────────────────────────────────────

    def free(self, connection: Connection) -> None:
        """Give a connection to the next request, or keep it for a while."""
        now = monotonic_ns()
        if now >= connection.retire_ns or self._stopped:
            connection.close()
        elif (exchange := self._next(self._waiting)) is not None:
            self._send(connection, exchange)
        else:
            self._keep(connection, now)

    def lost(self, connection: Connection) -> None:
        """Make room for another."""
        self._open.discard(connection)
        self._departures.forget(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._open_more()
        self._leave_if_empty()

    def repeat(self, exchange: Exchange) -> None:
        """Send an exchange over a new connection, since any other one may be as dead as the one about to be lost."""
        self._repeated[exchange] = None

    # ── new connections ──────────────────────────────────────────────────────────────────────────────────────────

    def _open_more(self) -> None:
        while (
            self._opening < len(self._repeated) + len(self._waiting)
            and len(self._open) + self._opening < self._limits.count
            and not self._stopped
        ):
            self._opening += 1
            opening = self._tasks.start(f"connect {self.origin.name}", self._open_one())
            opening.add_done_callback(self._opened)  # not at its end: one cancelled at once never comes to that

    async def _open_one(self) -> None:
        try:
            connection = await self._opener(self.origin, self._new_connection)
        except BackendUnreachable as error:
            self._refuse_one(error)
        except Exception as error:  # noqa: BLE001 - a defect here must not leave requests waiting for nothing
            logger().error("connect_defect", backend=self.origin.name, exc_info=error)
            self._refuse_one(InternalError("opening a connection failed; the log has the details", self.origin.name))
        else:
            self._begin(connection)

    def _opened(self, _: Task[None]) -> None:
        self._opening -= 1
        self._open_more()
        self._leave_if_empty()

    def _new_connection(self) -> Connection:
        return Connection(self, self.origin.name, monotonic_ns() + self._limits.age_ns)

    def _begin(self, connection: Connection) -> None:
        if not connection.lost:
            self._open.add(connection)
        if connection.closing:
            self._refuse_one(connection.unusable())
            return
        if self._stopped:
            connection.abort()
            return
        self._departures.watch(connection)
        if (exchange := self._next(self._repeated) or self._next(self._waiting)) is not None:
            self._send(connection, exchange)
        else:
            self._keep(connection, monotonic_ns())

    def _refuse_one(self, error: ServingError) -> None:
        """Fail the request that has waited longest: one connection that could not be had is one request's loss."""
        sent_before = self._next(self._repeated)
        exchange = sent_before or self._next(self._waiting)
        if exchange is not None:
            if isinstance(error, BackendUnreachable):
                error.progress = "nothing" if sent_before is None else "request"
            exchange.fail(error)

    def _next(self, queue: OrderedDict[Exchange, None]) -> Exchange | None:
        """Take the first of those that are still wanted and not too late, and have it say what time is left by now.

        Who cancels is out of the queue a moment later, and who is too late when the alarm rings.
        """
        now = monotonic_ns()
        while queue:
            exchange, _ = queue.popitem(last=False)
            if exchange.deadline_ns <= now:
                exchange.fail(self._too_late(exchange))
            elif exchange.wanted:
                exchange.head = retimed(exchange.head, exchange.deadline_ns, now)
                return exchange
        return None

    def _send(self, connection: Connection, exchange: Exchange) -> None:
        connection.send(exchange)
        self._departures.add(connection)

    def _keep(self, connection: Connection, now: int) -> None:
        if not self._limits.keep_ns:
            connection.close()
            return
        due_ns = connection.due_ns = now + self._limits.keep_ns
        if due_ns < self._alarm.due_ns:
            self._alarm.by(due_ns)
        self._idle.append(connection)

    def _leave_if_empty(self) -> None:
        if not (self._open or self._opening or self._waiting or self._repeated):
            self._left(self)

    def _stopping(self) -> Stopping:
        return Stopping(f"the gateway stopped before {self.origin.name} had answered", self.origin.name)

    def _too_many(self) -> Overloaded:
        why = f"{len(self._waiting)} requests wait for a connection to {self.origin.name} already; try again shortly"
        return Overloaded(why, self.origin.name)

    def _too_late(self, exchange: Exchange) -> DeadlineExceeded:
        late = f"{self.origin.name} did not answer within {exchange.allowed_ms:.0f} ms"
        why = f"no connection was to be had, {len(self._open)} of {self._limits.count} were in use"
        return DeadlineExceeded(f"{late}: {why}", self.origin.name)
