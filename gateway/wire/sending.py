"""The way out of one connection: what is written, whether the caller takes it, and how it ends.

Belongs here: waiting for callers that read slowly, or still send when all is said. Never here: what is written, or what
comes in.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from contextlib import suppress
from typing import Final

from gateway.together import Row
from gateway.wire.deadlines import NEVER

_LINGER_SECONDS: Final = 2.0
_LONGEST_LINGER_SECONDS: Final = 30.0
"""How long what a caller still sends is read and thrown away after the last reply: since it last sent, and at all.
A connection that is closed before that is reset by the kernel, and the reset can overtake the reply."""


class Sender:
    """Writes to a caller; an `asgi_calls.Outlet`. Each time that is returned is when to ask for `more_time`.

    While it is `stuck`, the caller does not take what is written, and nothing more should be. It is `ending` once the
    last byte has been written.
    """

    def __init__(self, transport: asyncio.Transport, send_seconds: float, row: Row) -> None:
        """`row` is where a reply may have to wait for those of others (why: `together`)."""
        self._transport = transport
        self._row = row
        self._put_off = b""
        self._loop = asyncio.get_running_loop()
        self._send_seconds = send_seconds
        self._taken: asyncio.Future[None] | None = None
        self._untaken = 0
        self._end_by = 0.0
        self.stuck = False
        self.ending = False

    def write(self, data: bytes) -> None:
        """Send bytes, unless nobody is there any more."""
        if self._put_off:
            self.leave()
        if not self._transport.is_closing():
            self._transport.write(data)

    def send(self, reply: bytes) -> None:
        """Send a whole reply, in a row with those of others if they are on their way."""
        if self._put_off:
            self.leave()
        if self._row.put_off(self):
            self._put_off = reply
        else:
            self.write(reply)

    def leave(self) -> None:
        """Send what is put off."""
        reply, self._put_off = self._put_off, b""
        if reply:
            self.write(reply)

    async def writable(self) -> None:
        """Wait until the caller has taken enough of what was written."""
        if self._taken is not None:
            await self._taken

    def pause(self) -> float:
        """Note that the caller takes nothing more for now, for which it has a while."""
        self.stuck = True
        self._taken = self._loop.create_future()
        return self._give_time()

    def resume(self) -> float:
        """Note that it does again."""
        self.stuck = False
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)
        self._taken = None
        return self._loop.time() + _LINGER_SECONDS if self.ending else NEVER

    def end(self, cut_off: bool) -> float:
        """Close in two steps, so that the reply arrives where the caller still sends: RFC 9112, section 9.6.

        `cut_off` tells whether it may still send.
        """
        self.leave()
        self.ending = True
        self._end_by = self._loop.time() + _LONGEST_LINGER_SECONDS
        self._untaken = sys.maxsize  # so that a caller that has not taken all of it by then gets more time
        if self._transport.can_write_eof():
            self._transport.write_eof()
        elif not cut_off:  # TLS knows no half of a connection
            self._transport.close()
        return self._loop.time() + _LINGER_SECONDS

    def close(self) -> float:
        """Close a connection on which nothing is under way, or nothing more is to be sent, once all has left."""
        self.leave()
        self.ending = True
        self._transport.close()
        return self._loop.time() + _LINGER_SECONDS

    def break_off(self, at_once: bool) -> float:
        """Close in the middle of a reply; what is written leaves before, if the caller takes it and not `at_once`."""
        if at_once or self.stuck:
            self._transport.abort()  # in TLS, this is no proper end, either
        return self.close()

    def reset_on_close(self, wanted: bool) -> None:
        """Have the caller see an error, and no end, where the connection is closed, were it by our sudden death."""
        with suppress(OSError):  # it is gone, and nobody has told us yet
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", wanted, 0))  # socket(7)

    def linger(self) -> float:
        """Note that the caller still sends after the end."""
        return min(self._loop.time() + _LINGER_SECONDS, self._end_by)

    def more_time(self) -> float:
        """Return when to ask again, if the caller has taken some of what is written since it was last asked; else 0."""
        return self._give_time() if 0 < _untaken(self._transport) < self._untaken else 0.0

    def lose(self) -> None:
        """Note that the connection is gone."""
        if self._taken is not None:
            self._taken.cancel()

    def _give_time(self) -> float:
        self._untaken = _untaken(self._transport)
        return self._loop.time() + self._send_seconds


def _untaken(transport: asyncio.Transport) -> int:
    """Return how many bytes the other end of a TCP connection has not taken yet: tcp(7), SIOCOUTQ."""
    try:
        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, b"    ")
    except (OSError, ValueError):
        return 0  # it is closed, and nobody has told us yet
    return transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)
