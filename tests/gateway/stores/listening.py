"""What the listeners of these tests have in common: a free port of loopback, and connections that end with the test."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self


class Listener:
    """Listens on `port` while `running`; who derives from it says in `serve` what a connection gets."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Listen as long as the context lasts."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self.serve(reader, writer)
        finally:
            writer.transport.abort()
            self._connections.discard(task)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer on one connection, which is closed when this returns."""
        raise NotImplementedError
