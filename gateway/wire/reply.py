"""The replies of one connection, one after the other, read with httptools: where each ends, and what is wrong with it.

Belongs here: framing (RFC 9112, section 6) and limits, as decisions about bytes. Never here: sockets, time, pools.

It is stricter than the parser, which was made to read what is out there: only HTTP/1.0 and 1.1, only `chunked`, and not
one byte beyond the end. What a lenient reader lets pass is how the answer to one caller comes to another.
"""

from typing import Final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from msgspec import Struct

from gateway.messages import Headers

MAX_HEADERS: Final = 100
MAX_HEAD_BYTES: Final = 65_536
"""How large the head of a reply may be; and how many bytes may come in a row without one of the body among them, which
bounds trailers, chunk extensions and what comes before the body alike."""
MAX_INTERIM: Final = 16
"""How many 1xx replies may come before the one that counts."""
_MANY_PARTS: Final = 64
_LINE_ENDS: Final = b"\r\n"
_OPENING: Final = b"HTTP/1."
_USUAL_OPENING: Final = b"HTTP/1.1 "
_BODILESS: Final = frozenset({204, 304})
_HEAD_END: Final = b"\r\n\r\n"
_MOST_REMEMBERED: Final = 512
_MOST_REMEMBERED_BYTES: Final = 1024


class NotHttp(Exception):
    """What came is no reply in HTTP/1.1 to the request; the message says why."""


class TooLarge(Exception):
    """The body is larger than the caller wants to have."""


class _KnownHead(Struct, frozen=True):
    """What the parser found in a head: one of a reply with Content-Length and a body."""

    status: int
    headers: Headers
    length: int
    reusable: bool


_heads: Final[dict[bytes, _KnownHead]] = {}
"""Heads as they came; a backend sends the same one for as long as its clock shows the same second, some for ever."""


class ReplyReader:
    """Reads replies. `begin`, then `feed` what comes until it says that the reply is complete, then `begin` again.

    `status` is 0 until the head of the reply that counts has come; `headers` are then its own, names in lower case.
    `parts` are the pieces of the body so far, free of framing. `reusable` says, of a complete reply, whether another
    request may go over the connection.
    """

    __deletable__ = ("_parser",)  # compiled by mypyc, a class says what may be deleted of it

    __slots__ = (
        "_bare",
        "_counted",
        "_fields",
        "_head_only",
        "_interim",
        "_length",
        "_limit",
        "_opening",
        "_parser",
        "_size",
        "_until_end",
        "complete",
        "headers",
        "on_body",
        "parts",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.on_body = self.parts.append
        self._parser = HttpResponseParser(self)
        self.complete = self._head_only = False
        self.begin(False, None)

    def begin(self, head_only: bool, limit: int | None) -> None:
        """Expect the reply to a new request: to a HEAD request, and of at most so many bytes of body (None: any)."""
        if self.complete and self._head_only:
            self._parser = HttpResponseParser(self)  # the one there was waits for a body that never comes
        self._head_only = head_only
        self._limit = limit
        self._fields: list[tuple[bytes, bytes]] = []
        self._length: int | None = None
        self._until_end = False
        self._interim = self._bare = self._size = self._counted = 0
        self._opening: bytes | None = b""
        self.parts.clear()
        self.headers: Headers = ()
        self.status = 0
        self.complete = self.reusable = False

    def feed(self, data: bytes) -> bool:
        """Take what has come and return whether the reply is complete.

        Raises:
            NotHttp: it is none.
            TooLarge: its body is, or will be, larger than the limit.
        """
        if self._opening == b"" and not self._head_only and self._is_known(data):
            return True
        whole = data if self._opening == b"" else b""
        if self._opening is not None:
            if data.startswith(_USUAL_OPENING) and not self._opening:
                self._opening = None
            else:
                self._check_opening(data)
        had_head = self.status
        try:
            # The parser passes over empty lines before a reply, and so after one, and after the head of a reply to
            # HEAD it waits for a body. Whether the last byte was one too many shows when it comes alone.
            if self._head_only or data[-1] in _LINE_ENDS:
                self._feed_last_byte_alone(data)
            else:
                self._parser.feed_data(data)
        except HttpParserError as error:
            if not self.complete:
                raise _fault(error) from None
            self.reusable = False  # the reply is whole; what follows it is not wanted
        if self._head_only:
            self.parts.clear()  # nor is a body that follows the head that was asked for
        if self._length is None or not self.complete or self._bare + len(data) > MAX_HEAD_BYTES:
            self._check_sizes(len(data), new_head=not had_head)
        if self.complete and whole and not self._head_only:
            self._remember(whole)
        return self.complete

    def _is_known(self, data: bytes) -> bool:
        """Take a reply that has come in one piece and whose head has come before, to the last byte: what the parser
        found in it then is in it now, and all that is left to see is that its body is as long as it says.
        """
        end = data.find(_HEAD_END) + len(_HEAD_END)
        head = _heads.get(data[:end])
        if head is None or len(data) - end != head.length or (self._limit is not None and head.length > self._limit):
            return False
        self._opening = None
        self.status, self.headers, self.reusable = head.status, head.headers, head.reusable
        self.parts.append(data[end:])
        self.complete = True
        return True

    def _remember(self, data: bytes) -> None:
        """Keep what was found in the head of a reply that has come in one piece."""
        end = data.find(_HEAD_END) + len(_HEAD_END)
        if self._length and self._length == len(data) - end and not self._interim and end <= _MOST_REMEMBERED_BYTES:
            if len(_heads) >= _MOST_REMEMBERED:
                _heads.clear()  # what is in use is soon there again
            _heads[data[:end]] = _KnownHead(self.status, self.headers, self._length, self.reusable)

    def end(self) -> bool:
        """Take that nothing more will come and return whether that completes the reply."""
        if self._until_end and not self.complete:
            self.complete = True
        return self.complete

    def let_go(self) -> None:
        """Let go of the parser, which holds on to this; nothing is read afterwards."""
        del self._parser

    def take_parts(self) -> list[bytes]:
        """Return the pieces of the body that have come since the last call, and keep them no longer."""
        taken = self.parts[:]
        self.parts.clear()
        self._counted = 0
        return taken

    def lift_limit(self) -> None:
        """Take a body of any size from now on: it is not kept here."""
        self._limit = None

    def _check_opening(self, data: bytes) -> None:
        """Know another protocol by its first bytes, however few come at a time."""
        opening = (self._opening or b"") + data[: len(_OPENING)]
        if not opening.startswith(_OPENING) and not _OPENING.startswith(opening):
            raise NotHttp(f"it begins with {opening[:16]!r}")
        self._opening = opening if len(opening) < len(_OPENING) else None

    def _feed_last_byte_alone(self, data: bytes) -> None:
        view = memoryview(data)
        if len(data) > 1:
            self._parser.feed_data(view[:-1])
        if self.complete:
            self.reusable = False
        else:
            self._parser.feed_data(view[-1:])

    def _check_sizes(self, arrived: int, *, new_head: bool) -> None:
        if new_head and self._bare + arrived > MAX_HEAD_BYTES:
            head = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if not self.status or head > MAX_HEAD_BYTES:
                raise NotHttp(f"its head is larger than {MAX_HEAD_BYTES} bytes")
        if len(self.parts) > self._counted:
            new = self.parts[self._counted :]
            self._size += sum(map(len, new))
            self._bare = 0
            if self._limit is not None:
                if self._size > self._limit:
                    raise TooLarge
                if len(new) > _MANY_PARTS:  # each takes many times the byte or two that it may hold
                    self.parts[self._counted :] = [b"".join(new)]
            self._counted = len(self.parts)
        else:
            self._bare += arrived
            if self._bare > MAX_HEAD_BYTES and not self.complete:
                raise NotHttp(f"{MAX_HEAD_BYTES} bytes came without one of the body")

    # ── what the parser calls ────────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        """Stop at the first byte of a second reply: nobody has asked for one."""
        if self.complete:
            raise NotHttp("another reply follows it")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head; trailers are passed over, since they come too late to be passed on."""
        if not self.status:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide how the body ends, as far as the parser does not."""
        status = self._parser.get_status_code()
        if status < 200:
            self._pass_over(status)
            return
        if self._interim and not self._parser.get_http_version().startswith("1."):
            raise NotHttp("an interim reply is followed by one of another protocol")
        if len(self._fields) > MAX_HEADERS:
            raise NotHttp(f"it has more than {MAX_HEADERS} headers")
        headers = self.headers = tuple(
            [(_NAMES.get(name) or _name(name), value.rstrip().decode("latin-1")) for name, value in self._fields]
        )
        found = dict(headers)
        length, coding = found.get("content-length"), found.get("transfer-encoding")
        if length is not None:
            self._length = int(length)
        elif coding is not None:
            self._check_coding()
        self.status = status
        if self._head_only:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()
        elif status in _BODILESS:
            self._length = 0
        elif self._length is None:
            self._until_end = coding is None
        elif self._limit is not None and self._length > self._limit:
            raise TooLarge

    def on_message_complete(self) -> None:
        """Note the end of the reply, but for an interim one and for the body that HEAD is not answered with."""
        if self.status and not self.complete:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()

    def _pass_over(self, status: int) -> None:
        self._interim += 1
        if status < 100:
            raise NotHttp(f"its status is {status:03}")
        if status == 101:
            raise NotHttp("it is a 101 that nobody asked for")
        if self._interim > MAX_INTERIM:
            raise NotHttp(f"more than {MAX_INTERIM} interim replies came before it")
        self._fields.clear()

    def _check_coding(self) -> None:
        codings = [value.lower() for name, value in self.headers if name == "transfer-encoding"]
        # Of a sender of HTTP/1.0 nobody knows whether it meant it (RFC 9112, section 6.1), and no other coding was
        # offered to this one.
        if self._parser.get_http_version() != "1.1" or codings != ["chunked"]:
            raise NotHttp("its transfer-encoding is not chunked, or not one of HTTP/1.1")


_NAMES: Final[dict[bytes, str]] = {}
"""Names of fields as backends send them, and in lower case; most send the same for years."""
_MOST_NAMES: Final = 512


def _name(raw: bytes) -> str:
    name = raw.decode("latin-1").lower()
    if len(_NAMES) < _MOST_NAMES:
        _NAMES[raw] = name
    return name


def _fault(error: HttpParserError) -> Exception:
    """Return what is wrong: what the parser found, or what one of the methods that it calls did."""
    if isinstance(error.__context__, NotHttp | TooLarge):
        return error.__context__
    if isinstance(error, HttpParserUpgrade):
        return NotHttp("it changes the protocol")
    return NotHttp(str(error))
