"""A relay in front of a server, in the event loop of the test: it can speak TLS to clients, and lose replies."""

import asyncio
import random
import ssl
from contextlib import suppress
from pathlib import Path

from tests.gateway.stores.listening import Listener


class Relay(Listener):
    """Forwards a port of loopback to a unix socket; `losing` is the share of replies that are lost.

    A reply is lost only after the server has executed the command; the connection ends with it.
    """

    def __init__(self, target: Path, tls: ssl.SSLContext | None = None, losing: float = 0.0, seed: int = 0) -> None:
        super().__init__(tls)
        self._target = target
        self._losing = losing
        self._random = random.Random(seed)
        self.lost = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(str(self._target))
        forward = asyncio.create_task(self._pump(reader, back, losing=0.0), name="relay forward")
        try:
            await self._pump(there, writer, losing=self._losing)
        finally:
            forward.cancel()
            back.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: float) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if losing and self._random.random() < losing:
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()
