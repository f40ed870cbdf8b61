"""Replies as bytes: status line, fields, framing, body.

Belongs here: how a reply is written down (RFC 9112). Never here: what it says, or when it is sent.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

from gateway.messages import WireReply
from gateway.wire.heads import Head


def _status_line(status: int) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n"


_STATUS_LINES: Final = {status: _status_line(status) for status in range(100, 600)}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = "connection: close\r\n"
_KEEP_ALIVE: Final = "connection: keep-alive\r\n"
BODILESS: Final = frozenset({204, 304})


def write_reply(reply: WireReply, head: Head, date: str) -> bytes:
    """Return the reply to the request of `head`, whole. `date` is the Date line.

    Raises:
        ValueError: a name or value that would break out of its line.
    """
    body = reply.body
    length = "" if reply.status in BODILESS else f"content-length: {len(body)}\r\n"
    written = write_head(reply.status, reply.headers, f"{date}{reply.lines}", f"{length}{connection_line(head)}")
    return written if head.method == "HEAD" or not length else written + body


def connection_line(head: Head) -> str:
    """Return what the reply says of its connection; HTTP/1.1 keeps it unless it says otherwise."""
    if not head.keep_alive:
        return _CLOSE
    return _KEEP_ALIVE if head.version == "1.0" else ""


def write_head(status: int, headers: Iterable[tuple[str, str]], date: str, framing: str) -> bytes:
    """Return the head of a reply; `date` and `framing` are whole lines. Raises as `write_reply` does."""
    fields = ""
    if headers:
        lines = [f"{name}: {value}\r\n" for name, value in headers]
        fields = "".join(lines)
        if fields.count("\n") != len(lines) or fields.count("\r") != len(lines):
            raise ValueError("a header of the reply has a line break in it")
    return f"{_STATUS_LINES[status]}{date}{fields}{framing}\r\n".encode("latin-1", "replace")
