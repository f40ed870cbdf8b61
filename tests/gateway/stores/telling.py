"""A listener that answers as a Sentinel in trouble does; real ones cannot be made to on demand."""

import asyncio
import ssl
from contextlib import suppress
from typing import Literal

from tests.gateway.stores.listening import Listener

Says = int | Literal["silence"] | None


class Telling(Listener):
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
        super().__init__(tls)
        self.says = says
        self.was_read = asyncio.Event()
        self._after = after
        self._password = password

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
