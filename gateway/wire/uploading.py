"""The block in which a caller has a streamed exchange, and the sending of its body meanwhile.

Belongs here: how both begin and end. Never here: what comes back (`streamed`).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from types import TracebackType
from typing import Protocol

from gateway.tasks import Tasks
from gateway.wire.exchange import Exchange
from gateway.wire.streamed import StreamedExchange


async def upload(exchange: StreamedExchange, body: AsyncIterator[bytes]) -> None:
    """Send a request's body in chunks, no faster than the backend takes them, until the reply ends before it.

    What `body` raises is what the exchange fails with.
    """
    try:
        carrier = await exchange.place()
        async for part in body:
            if exchange.carrier is not carrier:
                return  # a reply that did not wait for the body, or the connection is lost
            if part:  # an empty chunk would end the body
                carrier.send_part(b"%x\r\n%b\r\n" % (len(part), part))
                await carrier.writable()
        if exchange.carrier is carrier:
            exchange.complete()
            carrier.send_part(b"0\r\n\r\n")
    except Exception as error:  # noqa: BLE001 - the caller's own code failed, and the caller is told
        exchange.break_off(error)
    finally:
        if isinstance(body, AsyncGenerator):
            await body.aclose()


class Submitted(Protocol):
    """The pool that has an exchange."""

    def abandon(self, exchange: Exchange) -> None:
        """Forget a request whose caller is gone, wherever it is."""


class Streaming:
    """The block in which a caller has an exchange: it begins once the head of the reply is there, and ends the rest."""

    def __init__(
        self,
        exchange: StreamedExchange,
        submit: Callable[[], Submitted],
        body: AsyncIterator[bytes] | None,
        tasks: Tasks,
    ) -> None:
        """`submit` gives the exchange to a pool; `body` is sent piece by piece, if the exchange has not got it."""
        self._exchange = exchange
        self._submit = submit
        self._body = body
        self._tasks = tasks
        self._pool: Submitted | None = None
        self._sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StreamedExchange:
        self._pool = self._submit()
        try:
            if self._body is not None:
                self._sending = self._tasks.start(
                    f"send to {self._exchange.backend}", upload(self._exchange, self._body)
                )
            await self._exchange.answered()
        except BaseException:
            await self._end()
            raise
        return self._exchange

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        if self._pool is not None:
            self._pool.abandon(self._exchange)
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait({self._sending})
