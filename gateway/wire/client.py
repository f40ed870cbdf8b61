"""The pooled HTTP/1.1 client that calls backends: from a request of the house to an exchange and back.

Belongs here: what a caller of the client is promised (`ports.UpstreamClient`). Never here: models, versions, which
headers may pass.

The way of a request, which costs one write when an idle connection is there:

    client    makes an `exchange` and submits it to
    pool      which gives it to a connection, idle, freed or new (`connecting`, `trust`);
    connection writes it when all `departures` of this turn of the loop are, and feeds what comes back to
    reply     which finds the end of the reply with httptools; then the exchange hands it to its caller, and the
    pool      has the connection back, if nothing whatever was wrong with it.

One `alarm` for all watches over deadlines and idle connections.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Final

from gateway.errors import DeadlineExceeded, Stopping
from gateway.messages import Headers
from gateway.ports import Flows, UpstreamReply, UpstreamStream
from gateway.tasks import Tasks
from gateway.wire.alarm import NEVER, Alarm
from gateway.wire.connecting import Connector, Resolve, resolve
from gateway.wire.departures import Departures
from gateway.wire.exchange import Exchange, WholeExchange
from gateway.wire.pool import Limits, Pool
from gateway.wire.streamed import StreamedExchange
from gateway.wire.target import Origin, encode_head, parse_target
from gateway.wire.trust import trust
from gateway.wire.uploading import Streaming

LANES: Final = ("primary", "shadow", "probe")


class PooledClient:
    """An `UpstreamClient` with a pool for each backend and lane, so that no shadow ever takes a primary's connection,
    and no question after a backend's health waits for either.

    It sends what it is given and adds only `host`, framing, `user-agent` and `accept-encoding: identity`; it follows no
    redirect, keeps no cookie, reads no proxy from the environment and hands the body on as it came.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        keepalive_seconds: float,
        connect_timeout_ms: int,
        queue_depth: int = 1_024,
        max_response_bytes: int = 256 * 2**20,
        max_age_seconds: float = 300.0,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve = resolve,
    ) -> None:
        """Open no connection yet.

        `max_connections` and `queue_depth` (requests that may wait for one) count per backend and lane.

        `max_age_seconds` bounds the life of a connection that is never idle, so that a backend whose name moves to
        another address is followed there.
        """
        self._limits = Limits(max_connections, queue_depth, int(keepalive_seconds * 1e9), int(max_age_seconds * 1e9))
        self._max_response_bytes = max_response_bytes
        self._tasks = Tasks()
        self._connector = Connector(connect_timeout_ms, tls or trust(), resolve, self._tasks)
        self._departures = Departures()
        self._alarm = Alarm(self._expire)
        self._lanes: dict[str, dict[str, Pool]] = {lane: {} for lane in LANES}
        self._closed = False
        self._all_left: asyncio.Future[None] | None = None

    async def request(
        self,
        *,
        method: str,
        url: str,
        headers: Headers,
        body: bytes,
        deadline_ns: int,
        lane: str,
        flows: Flows | None = None,
    ) -> UpstreamReply:
        """Send one request and return the whole answer before `deadline_ns` (monotonic clock); or where its head says
        that it `flows`, and more is to come, the head with its `flow`, which may grow to any size.

        A request over a connection that had been idle, and was closed before a byte of the answer had come, is sent
        once more over a new one.

        Raises:
            BackendUnreachable: no connection, or it was cut before the whole answer had come.
            BackendProtocolError: the answer is not HTTP, or larger than `max_response_bytes`.
            DeadlineExceeded: waiting for a connection, sending, or the answer took too long.
            Overloaded: too many wait for a connection already.
            Stopping: the client was closed first.
        """
        target = parse_target(method, url)
        head = encode_head(target, headers, len(body))
        exchange = WholeExchange(target, head, body, self._max_response_bytes, deadline_ns, flows)
        pool = self._submit(exchange, target.origin, lane)
        try:
            return await exchange.outcome
        except asyncio.CancelledError:
            pool.abandon(exchange)
            raise

    def stream(
        self,
        *,
        method: str,
        url: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes],
        deadline_ns: int,
        lane: str,
    ) -> AbstractAsyncContextManager[UpstreamStream]:
        """Send one request and give the answer as it comes, once its head is there; leaving the block ends it.

        A `body` that is an iterator is sent in chunks while the answer may come already, and is not sent twice. The
        answer may be of any size, and all of it has to come before `deadline_ns`.

        Raises:
            as `request`, on entering and while the answer is read; and whatever the iterator raises.
        """
        target = parse_target(method, url)
        whole = body if isinstance(body, bytes) else None
        head = encode_head(target, headers, None if whole is None else len(whole))
        exchange = StreamedExchange(target, head, whole, deadline_ns)
        submit = partial(self._submit, exchange, target.origin, lane)
        return Streaming(exchange, submit, None if isinstance(body, bytes) else body, self._tasks)

    async def close(self) -> None:
        """Stop what is still under way and close every connection."""
        self._closed = True
        for pools in self._lanes.values():
            for pool in tuple(pools.values()):
                pool.stop()
        await self._tasks.cancel()
        while any(self._lanes.values()):  # until asyncio has told each connection that it is gone
            self._all_left = asyncio.get_running_loop().create_future()
            await self._all_left
        self._departures.close()
        self._alarm.stop()

    def _submit(self, exchange: Exchange, origin: Origin, lane: str) -> Pool:
        if self._closed:
            raise Stopping(f"the gateway stopped before {origin.name} was asked", origin.name)
        if exchange.deadline_ns <= exchange.started_ns:
            raise DeadlineExceeded(f"no time was left to ask {origin.name}", origin.name)
        pools = self._lanes[lane]
        pool = pools.get(origin.name)
        if pool is None:
            pool = pools[origin.name] = Pool(
                origin,
                self._limits,
                opener=self._connector.open,
                departures=self._departures,
                alarm=self._alarm,
                tasks=self._tasks,
                left=self._leave,
            )
        if exchange.deadline_ns < self._alarm.due_ns:
            self._alarm.by(exchange.deadline_ns)
        pool.submit(exchange)
        return pool

    def _leave(self, pool: Pool) -> None:
        """Forget a pool that has nothing left, since backends come and go for as long as the gateway runs."""
        for pools in self._lanes.values():
            if pools.get(pool.origin.name) is pool:
                del pools[pool.origin.name]
        if self._all_left is not None and not any(self._lanes.values()) and not self._all_left.done():
            self._all_left.set_result(None)

    def _expire(self, now: int) -> int:
        due = NEVER
        for pools in self._lanes.values():
            for pool in tuple(pools.values()):
                due = min(due, pool.expire(now))
        return due
