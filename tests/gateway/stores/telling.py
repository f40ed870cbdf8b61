"""A listener that answers as a Sentinel in trouble does; real ones cannot be made to on demand."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

Says = int | Literal["silence"] | None


class Telling:
    """A listener that answers the one question that Sentinels are asked.

    `says`: a port, None (it does not know the service), or "silence" (it takes the question and never answers). One
    that comes `after` another answers when that one's answer has been read.
    """

    def __init__(
        self,
        says: Says,
        password: str = "",
        tls: ssl.SSLContext | None = None,
        after: "Telling | None" = None,
    ) -> None:
        self.says = says
        self.was_read = asyncio.Event()
        self._after = after
        self._tls = tls
        self._password = password
        self._asked: set[asyncio.Task[None]] = set()
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Telling"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._asked):
                task.cancel()
            await asyncio.gather(*self._asked, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._asked.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, OSError):
                trusted = not self._password
                while True:
                    words = await _command(reader)
                    if words[0] == b"AUTH":
                        trusted = words[-1].decode() == self._password
                    writer.write(await self._answer(words[0]) if trusted else b"-WRONGPASS invalid password\r\n")
        finally:
            self.was_read.set()
            writer.transport.abort()
            self._asked.discard(task)

    async def _answer(self, command: bytes) -> bytes:
        if command != b"SENTINEL":
            return b"+OK\r\n"
        if self._after is not None:
            await self._after.was_read.wait()
        match self.says:
            case None:
                return b"*-1\r\n"
            case "silence":
                return b""
            case port:
                return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(port)), port)


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    count = int((await reader.readuntil(b"\r\n"))[1:])
    words = []
    for _ in range(count):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words
