"""A reply that is sent piece by piece, as it comes from wherever it is made.

Belongs here: the framing of such a reply (RFC 9112, sections 6.3 and 7.1), and how it ends, whole or not. Never here:
when there is a piece, or which turn of the connection it is for.

To HTTP/1.1 each piece is a chunk, and what makes the reply whole is the chunk of no bytes, which one that is cut off
never gets. HTTP/1.0 knows no chunks: there the end of the connection is the end of the reply, so until that has come
the connection is one that ends with a reset.
"""

from typing import Final

from gateway.messages import Flow, WireReply
from gateway.wire.heads import Head
from gateway.wire.replies import connection_line, write_head
from gateway.wire.sending import Sender

_LAST_CHUNK: Final = b"0\r\n\r\n"
_UNBUFFERED: Final = "x-accel-buffering: no\r\n"
"""What keeps nginx, unless it is told to pay no heed, from gathering pieces before it passes them on; it keeps it to
itself: https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering."""


class Relaying:
    """One such reply. Its `flow` is to be paused while the caller takes nothing more."""

    __slots__ = ("_chunked", "_head", "_sender", "flow")

    def __init__(self, sender: Sender, flow: Flow, reply: WireReply, head: Head, date: str) -> None:
        """Answer the request of `head` with the head of `reply`, once it has to `begin`. `date` is the Date line.

        Raises:
            ValueError: a name or value that would break out of its line.
        """
        self._sender = sender
        self.flow = flow
        self._chunked = head.version == "1.1"
        head.keep_alive &= self._chunked
        framing = "transfer-encoding: chunked\r\n" if self._chunked else ""
        lines = f"{date}{reply.lines}{_UNBUFFERED}"
        self._head = write_head(reply.status, reply.headers, lines, f"{framing}{connection_line(head)}")

    def begin(self) -> None:
        """Send the head."""
        if not self._chunked:
            self._sender.reset_on_close(True)
        self._sender.write(self._head)

    def send(self, piece: bytes) -> None:
        """Send a piece of the body, which is not empty."""
        self._sender.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)

    def end(self) -> None:
        """Send what makes it whole."""
        if self._chunked:
            self._sender.write(_LAST_CHUNK)
        else:
            self._sender.reset_on_close(False)

    def break_off(self) -> float:
        """Close the connection without that, and return when to look whether it is closed."""
        return self._sender.break_off(at_once=not self._chunked)
