"""What comes over one connection, as requests: the parser of httptools, and the limits that it does not know.

Belongs here: bytes to turns, and when to stop reading them. Never here: sockets, deadlines, replies, or who serves a
turn. What a head may say is in `heads`.
"""

from collections import deque
from collections.abc import Callable
from time import monotonic_ns, time_ns
from typing import Final

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct

from gateway.config import LimitSettings
from gateway.errors import BodyTooLarge, HeadTooLarge, MalformedRequest, RequestError
from gateway.messages import WireRequest
from gateway.wire.heads import Head, check_protocol, check_size, head_too_large, plain_line, read_head

_PIECE: Final = 16 * 1024
"""Bytes given to the parser at once. It cannot be stopped at the end of a message, so this bounds how many requests it
makes before anybody can ask whether there is room for them."""
_BEARABLE_OVERHEAD: Final = 8
"""Bytes around each byte of a chunked body that are borne; a chunk of a single byte has five around it."""


class Turn(Struct):
    """A request, or a refusal, or the refusal of a request, in the order of its connection."""

    head: Head
    request: WireRequest | None
    error: RequestError | None = None


class Receiver:
    """Makes `turns` of bytes.

    `waiting` are bytes that have been offered and not been read yet, bar those before `_at`.
    `head` is that of a message whose body is still to come, of which `arrived` bytes have. `within` tells whether a
    message has begun at all. `ended` is true once nothing that comes can be a request of this connection any more.
    """

    __deletable__ = ("_parser",)  # compiled by mypyc, a class says what may be deleted of it

    def __init__(self, limits: LimitSettings, client: str) -> None:
        """`client` is the caller's address, for the requests."""
        self._most_headers = limits.max_headers
        self._most_head = limits.max_head_bytes
        self._most_body = limits.max_body_bytes
        self._client = client
        self._parser = HttpRequestParser(self)
        self.turns: deque[Turn] = deque()
        self.waiting = b""
        self._at = 0
        self.ended = False
        self._doubtful = False  # whether the head, where it ends in this piece, may be larger than is allowed
        self._piece: bytes | memoryview = b""  # what is being read
        self._plain = 0  # where the line of an HTTP request ends with which it begins, until a head has ended
        self._looked = 0  # up to where, in `_begun` and it, the lines of requests have been looked at
        self._upgrade = False  # whether the parser takes what follows the head for another protocol
        self._repeating = False  # whether the parser is being told a head that it knows already
        self._received_ns = self._started_ns = 0
        self._begin()

    def _begin(self) -> None:
        """Forget the message that has ended."""
        self.within = False
        self.head: Head | None = None
        self.arrived = 0
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: bytes | bytearray = b""
        self._begun = b""  # pieces before this one that its head, or what is before it in the first of them, stands in
        self._grown = 0  # bytes of whole pieces that neither began nor ended the head, or the chunked body

    def offer(self, data: bytes) -> None:
        """Take bytes, without reading them."""
        self.waiting = self.waiting[self._at :] + data if self.waiting else data
        self._at = 0

    def read_on(self) -> None:
        """Read some of the waiting bytes.

        Raises:
            RequestError: what has come is refused, and with it all that could still come. `refuse` answers it.
        """
        piece: bytes | memoryview = self.waiting
        if self._at or len(piece) > _PIECE:
            piece = memoryview(piece)[self._at : self._at + _PIECE]
        self._at += len(piece)
        if self._at >= len(self.waiting):
            self.waiting, self._at = b"", 0
        self._feed(piece)
        if self.ended:
            self.waiting, self._at = b"", 0

    def _feed(self, piece: bytes | memoryview) -> None:
        known, was_within = len(self.turns), self.within
        self._piece, self._plain = piece, 0 if was_within else plain_line(piece)
        if not self._begun:
            self._looked = 0
        self.within = True
        self._doubtful = was_within or len(piece) > self._most_head
        upgrade_at: int | None = None
        try:
            self._parser.feed_data(piece)
        except HttpParserUpgrade as upgrade:
            upgrade_at = upgrade.args[0]
        except HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except HttpParserError as error:
            if not self.ended:
                raise MalformedRequest(f"the request is not well-formed HTTP/1.1: {error}") from None
        if upgrade_at is not None:  # gone on from out here: what is raised in an `except` loses its own context
            self._stay_with_http()
            if rest := memoryview(piece)[upgrade_at:]:
                self._feed(rest)
            return
        if self.within:
            if self.head is None:
                self._begun += piece
            if was_within and len(self.turns) == known:
                self._grown += len(piece)
                self._check_growth()

    def refuse(self, error: RequestError, is_inference: Callable[[str], bool]) -> None:
        """End the reading with a turn that refuses what had come of the last message.

        It has a request, to be recorded as refused, if as much had come as to tell that it is an inference.
        """
        head = self.head
        if head is None and self._fields:  # so the target is complete
            self._received_ns, self._started_ns = time_ns(), monotonic_ns()
            head = read_head(self._parser, self._target, self._fields, whole=False)
        request = None
        if head is None:
            head = Head("", "1.1", b"", (), {}, "")
        elif is_inference(head.path):
            request = self._request(head, b"", max(head.length, self.arrived))
            request.refused = error
        head.keep_alive = False
        self.turns.append(Turn(head, request, error))
        self.end()

    def end(self) -> None:
        """Read nothing more, and forget what has not been read."""
        self.ended = True
        self.waiting, self._at = b"", 0
        self._begin()

    def let_go(self) -> None:
        """Let go of the parser, which holds on to this; nothing is read or refused afterwards."""
        del self._parser

    # ── called by the parser ─────────────────────────────────────────────────────────────────────────────────────

    def on_url(self, part: bytes) -> None:
        """Take a part of the request target."""
        self._target += part
        self.within = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of a head, or a trailer: nobody reads those, but they count."""
        fields = self._fields
        fields.append((name, value))
        if len(fields) > self._most_headers:
            raise HeadTooLarge(f"the request has more than {self._most_headers} headers (limits.max_headers)")

    def on_headers_complete(self) -> None:
        """Judge the head, and refuse a body that is too large before any of it is read."""
        if self._repeating:
            return
        self._received_ns, self._started_ns = time_ns(), monotonic_ns()
        self.head = head = read_head(self._parser, self._target, self._fields)
        self._fields = []
        self._grown = 0
        if self._plain:
            self._looked, self._plain = self._plain, 0
        else:
            self._look_at_line(head)
        if self._doubtful:
            check_size(head, self._most_head)
        if head.wrong is not None:
            raise head.wrong
        if head.length > self._most_body:
            raise self._too_large(head.length)
        self._upgrade = self._parser.should_upgrade()

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        if not self.arrived:
            self._body = part
        else:  # not a list of parts: a body can come in chunks of a byte, and a part is far larger than that
            if type(self._body) is bytes:
                self._body = bytearray(self._body)
            self._body += part
        self.arrived += len(part)
        if self.arrived > self._most_body:
            raise self._too_large(self.arrived)

    def on_message_complete(self) -> None:
        """Make a turn of the request."""
        if self._upgrade:
            return  # the parser passes over the body; see `_stay_with_http`
        head = self.head
        assert head is not None  # no message ends before its head does
        self.turns.append(Turn(head, self._request(head, bytes(self._body), self.arrived)))
        self.ended = not head.keep_alive
        self._begin()

    # ── details ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _request(self, head: Head, body: bytes, size: int) -> WireRequest:
        return WireRequest(
            head.method,
            head.path,
            head.headers,
            body,
            self._client,
            self._received_ns,
            self._started_ns,
            None,
            size,
        )

    def _look_at_line(self, head: Head) -> None:
        """Look at the line of a head that is not the first of its piece, or did not come in one."""
        upto = check_protocol(head, b"".join((self._begun, self._piece)), self._looked)
        self._looked, self._begun = max(0, upto - len(self._begun)), b""

    def _too_large(self, size: int) -> BodyTooLarge:
        return BodyTooLarge(f"body: {size} bytes or more; the limit is {self._most_body} bytes (limits.max_body_bytes)")

    def _check_growth(self) -> None:
        """Refuse a head, or the lines between the chunks of a body, that grow without end and without a callback."""
        if self.head is None:
            if self._grown > 2 * self._most_head:  # which counts white space, too, as `check_size` does not
                raise head_too_large(self._most_head)
        elif self.head.chunked and self._grown > self._most_head + (1 + _BEARABLE_OVERHEAD) * self.arrived:
            raise MalformedRequest("the body has far more bytes between its chunks than in them; send larger chunks")

    def _stay_with_http(self) -> None:
        """Go on as if no upgrade to another protocol had been asked for, which a server may (RFC 9110, section 7.8).

        Java's client asks for HTTP/2 with its first request, body and all. The parser would pass over that body, so a
        new one takes over, and is told as much of the head as it has to know.
        """
        head = self.head
        assert head is not None  # the parser stops for an upgrade only after a head
        self._upgrade = False
        self._parser = HttpRequestParser(self)
        framing = b"transfer-encoding: chunked\r\n" if head.chunked else b"content-length: %d\r\n" % head.length
        self._repeating = True
        self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n")
        self._repeating = False
        self._fields = []
