"""A relay in front of a server, in the event loop of the test: it can speak TLS to clients, and lose replies."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Relay:
    """Forwards a port of loopback to a unix socket; `losing` is the share of replies that are lost.

    A reply is lost only after the server has executed the command; the connection ends with it.
    """

    def __init__(self, target: Path, tls: ssl.SSLContext | None = None, losing: float = 0.0, seed: int = 0) -> None:
        self._target = target
        self._tls = tls
        self._losing = losing
        self._random = random.Random(seed)
        self._connections: set[asyncio.Task[None]] = set()
        self.lost = 0
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        """Listen as long as the context lasts."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        there, back = await asyncio.open_unix_connection(str(self._target))
        forward = asyncio.create_task(self._pump(reader, back, losing=0.0), name="relay forward")
        try:
            await self._pump(there, writer, losing=self._losing)
        finally:
            forward.cancel()
            for one in (writer, back):
                one.transport.abort()
            self._connections.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: float) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if losing and self._random.random() < losing:
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()
