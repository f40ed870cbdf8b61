"""Messages that must be refused, as data: what is wrong, the bytes, and the status that answers them.

Each of them ends the connection, whatever follows. Where something legal can follow, what follows is `SMUGGLED`, a
request that nobody may ever see: a server, or a proxy before it, that reads a message in another way than its sender
takes it for a request of its own.
"""

from msgspec import Struct

from tests.gateway.wire.open_port import INFER, get, post


class Case(Struct, frozen=True):
    """One message. `status` None: no answer is possible. `whole`: nothing can follow it that would be a message."""

    name: str
    message: bytes
    status: int | None = 400
    whole: bool = False


SMUGGLED = b"GET /smuggled/infer HTTP/1.1\r\nHost: test\r\n\r\n"
_START = f"POST {INFER} HTTP/1.1\r\nHost: test\r\n".encode()
_TE = _START + b"Transfer-Encoding: chunked\r\n\r\n"


def _line(line: bytes) -> bytes:
    """A request with this line and a legal head."""
    return line + b"\r\nHost: test\r\nA: b\r\n\r\n"


def _field(field: bytes, body: bytes = b"") -> bytes:
    """A legal request but for this field."""
    return _START + field + b"\r\n\r\n" + body


def _host(fields: bytes) -> bytes:
    return f"GET {INFER} HTTP/1.1\r\n".encode() + fields + b"\r\n"


CASES = [
    # ── the request line ─────────────────────────────────────────────────────────────────────────────────────────
    Case("bare LF ends the request line", b"GET /v2 HTTP/1.1\nHost: test\r\n\r\n"),
    Case("bare LF everywhere", b"GET /v2 HTTP/1.1\nHost: test\n\n"),
    Case("bare CR ends the request line", b"GET /v2 HTTP/1.1\rHost: test\r\n\r\n"),
    Case("HTTP/0.9, without a version", b"GET /v2\r\n\r\n"),
    Case("HTTP/0.9", _line(b"GET /v2 HTTP/0.9")),
    Case("HTTP/1.2", _line(b"GET /v2 HTTP/1.2")),
    Case("HTTP/2.0", _line(b"GET /v2 HTTP/2.0")),
    Case("HTTP/3.0", _line(b"GET /v2 HTTP/3.0")),
    Case("HTTP/1", _line(b"GET /v2 HTTP/1")),
    Case("HTTP/1.1.1", _line(b"GET /v2 HTTP/1.1.1")),
    Case("HTTP/11.1", _line(b"GET /v2 HTTP/11.1")),
    Case("HTTP/+1.1", _line(b"GET /v2 HTTP/+1.1")),
    Case("http/1.1 in lower case", _line(b"GET /v2 http/1.1")),
    Case("another protocol's version", _line(b"GET /v2 ICE/1.0")),
    Case("Icecast's version and method", _line(b"SOURCE /v2 ICE/1.0")),
    Case("RTSP's version", _line(b"GET /v2 RTSP/1.0")),
    Case("RTSP's version as if it were HTTP's", _line(f"POST {INFER} RTSP/1.1".encode())),
    Case("RTSP's version and method", _line(b"SETUP /v2 RTSP/1.0")),
    Case("RTSP behind an empty line", b"\r\n" + _line(b"OPTIONS * RTSP/1.0")),
    Case("no Host behind an upgrade", get("/v2", "Connection: upgrade", "Upgrade: h2c") + b"GET /v2 HTTP/1.1\r\n\r\n"),
    Case("RTSP behind a request", get("/v2") + _line(b"GET /v2 RTSP/1.0")),
    Case("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Case("white space behind the version", _line(b"GET /v2 HTTP/1.1 ")),
    Case("white space before the method", _line(b" GET /v2 HTTP/1.1")),
    Case("a tab behind the method", _line(b"GET\t/v2 HTTP/1.1")),
    Case("a tab behind the target", _line(b"GET /v2\tHTTP/1.1")),
    Case("a space in the target", _line(b"GET /v2 /x HTTP/1.1")),
    Case("no target", _line(b"GET HTTP/1.1")),
    Case("no space at all", _line(b"GET/v2HTTP/1.1")),
    Case("an unknown method", _line(b"GRAB /v2 HTTP/1.1")),
    Case("a method in lower case", _line(b"get /v2 HTTP/1.1")),
    Case("NUL in the method", _line(b"G\0ET /v2 HTTP/1.1")),
    Case("a method without end", b"A" * 40_000),
    Case("NUL in the target", _line(b"GET /v2\0 HTTP/1.1")),
    Case("a control character in the target", _line(b"GET /v2\x01 HTTP/1.1")),
    Case("DEL in the target", _line(b"GET /v2\x7f HTTP/1.1")),
    Case("a target that is not ASCII", _line("GET /é HTTP/1.1".encode())),
    Case("a fragment in the target", _line(b"GET /v2#x HTTP/1.1")),
    Case("a fragment in the query", _line(b"GET /v2?x#y HTTP/1.1")),
    Case("a target that is a relative path", _line(b"GET v2 HTTP/1.1")),
    Case("authority-form without CONNECT", _line(b"GET test:80 HTTP/1.1")),
    Case("CONNECT", _line(b"CONNECT test:80 HTTP/1.1")),
    Case("CONNECT to a path", _line(b"CONNECT /v2 HTTP/1.1")),
    Case("* without OPTIONS", _line(b"GET * HTTP/1.1")),
    Case("absolute-form of another host", _line(b"GET http://other/v2 HTTP/1.1")),
    Case("absolute-form with a user", _line(b"GET http://u:p@test/v2 HTTP/1.1")),
    Case("absolute-form without a host", _line(b"GET http:///v2 HTTP/1.1")),
    Case("absolute-form of another scheme", _line(b"GET ftp://test/v2 HTTP/1.1")),
    Case("a target of 40 000 bytes", _line(b"GET /" + b"a" * 40_000 + b" HTTP/1.1"), 431),
    Case("a TLS handshake", bytes.fromhex("16030100c8010000c40303") + b"\0" * 32),
    Case("another protocol altogether", b"SSH-2.0-OpenSSH_9.2p1\r\n"),
    Case("nothing but NUL", b"\0" * 64),
    # ── header fields ────────────────────────────────────────────────────────────────────────────────────────────
    Case("bare LF ends a field", _START + b"A: b\n\r\n"),
    Case("bare LF ends the head", _START + b"A: b\r\n\n"),
    Case("bare CR ends a field", _START + b"A: b\rC: d\r\n\r\n"),
    Case("bare CR in a value", _field(b"A: b\rc")),
    Case("CR CR LF", _START + b"A: b\r\r\n\r\n"),
    Case("obs-fold with a space", _field(b"A: b\r\n c")),
    Case("obs-fold with a tab", _field(b"A: b\r\n\tc")),
    Case("obs-fold of the framing", _field(b"Transfer-Encoding:\r\n chunked", b"0\r\n\r\n")),
    Case("obs-fold before the first field", f"GET {INFER} HTTP/1.1\r\n Host: test\r\n\r\n".encode()),
    Case("a space before the colon", _field(b"A : b")),
    Case("a tab before the colon", _field(b"A\t: b")),
    Case("a space in a name", _field(b"A B: c")),
    Case("an empty name", _field(b": b")),
    Case("no colon", _field(b"A")),
    Case("NUL in a name", _field(b"A\0: b")),
    Case("a name that is not ASCII", _field("é: b".encode())),
    Case("a separator in a name", _field(b"A(b): c")),
    Case("NUL in a value", _field(b"A: b\0c")),
    Case("a control character in a value", _field(b"A: b\x01c")),
    Case("DEL in a value", _field(b"A: b\x7fc")),
    Case("a vertical tab before the framing", _field(b"Transfer-Encoding: \x0bchunked", b"0\r\n\r\n")),
    Case("101 headers", _START + b"A: b\r\n" * 100 + b"\r\n", 431),
    Case("20 000 headers", _START + b"A: b\r\n" * 20_000 + b"\r\n", 431),
    Case("99 headers of 400 bytes", _START + (b"A: " + b"b" * 400 + b"\r\n") * 98 + b"\r\n", 431),
    Case("a header of 33 KiB", _field(b"A: " + b"b" * 33 * 1024), 431),
    Case("a header of 1 MiB", _field(b"A: " + b"b" * 2**20), 431),
    Case("a header without end", _START + b"A: " + b"b" * 2**20, 431, whole=True),
    Case("a name of 1 MiB", _field(b"A" * 2**20 + b": b"), 431),
    # ── Host ─────────────────────────────────────────────────────────────────────────────────────────────────────
    Case("no Host", _host(b"A: b\r\n")),
    Case("Host twice", _host(b"Host: test\r\nHost: test\r\n")),
    Case("two Hosts", _host(b"Host: test\r\nhost: other\r\n")),
    Case("an empty Host", _host(b"Host:\r\n")),
    Case("a list of Hosts", _host(b"Host: test, other\r\n")),
    Case("a space in Host", _host(b"Host: te st\r\n")),
    Case("a path in Host", _host(b"Host: test/v2\r\n")),
    Case("a user in Host", _host(b"Host: user@test\r\n")),
    Case("a port that is no number", _host(b"Host: test:http\r\n")),
    Case("a port that is too long", _host(b"Host: test:808080\r\n")),
    Case("a bracket that does not close", _host(b"Host: [::1\r\n")),
    Case("a Host that is not ASCII", _host("Host: tést\r\n".encode())),
    Case("two Hosts in HTTP/1.0", f"GET {INFER} HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n".encode()),
    # ── Content-Length ───────────────────────────────────────────────────────────────────────────────────────────
    Case("two lengths", _field(b"Content-Length: 3\r\nContent-Length: 44", b"abc" + SMUGGLED)),
    Case("a length twice", _field(b"Content-Length: 3\r\nContent-Length: 3", b"abc")),
    Case("a length twice in one field", _field(b"Content-Length: 3, 3", b"abc")),
    Case("a length with a sign", _field(b"Content-Length: +3", b"abc")),
    Case("a length below zero", _field(b"Content-Length: -3", b"abc")),
    Case("a length in hexadecimal", _field(b"Content-Length: 0x3", b"abc")),
    Case("a length with a fraction", _field(b"Content-Length: 3.0", b"abc")),
    Case("a length with an exponent", _field(b"Content-Length: 1e1", b"0123456789")),
    Case("a length with an underscore", _field(b"Content-Length: 1_0", b"0123456789")),
    Case("a length in two words", _field(b"Content-Length: 3 4", b"abc")),
    Case("a length in quotes", _field(b'Content-Length: "3"', b"abc")),
    Case("an empty length", _field(b"Content-Length:", b"abc")),
    Case("a length of 23 digits", _field(b"Content-Length: 99999999999999999999999", b"abc")),
    Case("a length of 5 000 zeros", _field(b"Content-Length: " + b"0" * 5_000)),
    Case("a length in digits that are not ASCII", _field("Content-Length: ٣".encode(), b"abc")),
    Case("a length that is too large", _field(b"Content-Length: 65537", b""), 413),
    Case("a length of an exbibyte", _field(b"Content-Length: 1152921504606846976", b""), 413),
    # ── Transfer-Encoding ────────────────────────────────────────────────────────────────────────────────────────
    Case("length, then chunked", _field(b"Content-Length: 3\r\nTransfer-Encoding: chunked", b"0\r\n\r\n" + SMUGGLED)),
    Case("chunked, then length", _field(b"Transfer-Encoding: chunked\r\nContent-Length: 5", b"0\r\n\r\n" + SMUGGLED)),
    Case("length beside an empty coding", _field(b"Content-Length: 3\r\nTransfer-Encoding:", b"abc")),
    Case("an empty coding", _field(b"Transfer-Encoding:", b"0\r\n\r\n")),
    Case("a coding that is nearly chunked", _field(b"Transfer-Encoding: xchunked", b"0\r\n\r\n")),
    Case("chunked twice", _field(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"0\r\n\r\n")),
    Case("chunked twice in one field", _field(b"Transfer-Encoding: chunked, chunked", b"0\r\n\r\n")),
    Case("chunked, then identity", _field(b"Transfer-Encoding: chunked, identity", b"0\r\n\r\n")),
    Case("identity", _field(b"Transfer-Encoding: identity", b"0\r\n\r\n")),
    Case("gzip and chunked", _field(b"Transfer-Encoding: gzip, chunked", b"0\r\n\r\n")),
    Case("gzip, then chunked", _field(b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", b"0\r\n\r\n")),
    Case("chunked with a parameter", _field(b"Transfer-Encoding: chunked;a=b", b"0\r\n\r\n")),
    Case("chunked in quotes", _field(b'Transfer-Encoding: "chunked"', b"0\r\n\r\n")),
    Case("a space before the coding's colon", _field(b"Transfer-Encoding : chunked", b"0\r\n\r\n")),
    Case("NUL in the coding", _field(b"Transfer-Encoding: chunked\0", b"0\r\n\r\n")),
    Case(
        "chunked in HTTP/1.0",
        f"POST {INFER} HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode(),
    ),
    Case(
        "length and chunked behind an upgrade",
        _field(b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", b"0\r\n\r\n"),
    ),
    # ── chunks ───────────────────────────────────────────────────────────────────────────────────────────────────
    Case("a chunk size that is no number", _TE + b"xyz\r\nabc\r\n0\r\n\r\n"),
    Case("a chunk size with a sign", _TE + b"+3\r\nabc\r\n0\r\n\r\n"),
    Case("a chunk size below zero", _TE + b"-3\r\nabc\r\n0\r\n\r\n"),
    Case("a chunk size with 0x", _TE + b"0x3\r\nabc\r\n0\r\n\r\n"),
    Case("a chunk size with an underscore", _TE + b"0_3\r\nabc\r\n0\r\n\r\n"),
    Case("a space before a chunk size", _TE + b" 3\r\nabc\r\n0\r\n\r\n"),
    Case("a space behind a chunk size", _TE + b"3 \r\nabc\r\n0\r\n\r\n"),
    Case("no chunk size", _TE + b"\r\nabc\r\n0\r\n\r\n"),
    Case("a chunk size of 17 digits", _TE + b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    Case("a chunk size of 1 000 digits", _TE + b"f" * 1_000 + b"\r\nabc\r\n0\r\n\r\n"),
    Case("a chunk of 16 exbibytes", _TE + b"ffffffffffffffff\r\n" + b"a" * 70_000, 413),
    Case("chunks that are too large together", _TE + (b"4000\r\n" + b"a" * 16_384 + b"\r\n") * 5 + b"0\r\n\r\n", 413),
    Case("a chunk longer than its size", _TE + b"3\r\nabcd\r\n0\r\n\r\n"),
    Case("a chunk shorter than its size", _TE + b"5\r\nabc\r\n0\r\n\r\n"),
    Case("no line end behind a chunk", _TE + b"3\r\nabc0\r\n\r\n"),
    Case("bare LF behind a chunk size", _TE + b"3\nabc\r\n0\r\n\r\n"),
    Case("bare LF behind a chunk", _TE + b"3\r\nabc\n0\r\n\r\n"),
    Case("bare CR behind a chunk size", _TE + b"3\rabc\r\n0\r\n\r\n"),
    Case("bare LF in a chunk extension", _TE + b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    Case("NUL in a chunk extension", _TE + b'3;a="\0"\r\nabc\r\n0\r\n\r\n'),
    Case("a chunk extension without end", _TE + b"3;" + b"a" * 2**20, whole=True),
    Case("bare LF ends the last chunk", _TE + b"3\r\nabc\r\n0\n\n"),
    Case("a length in the trailers", _TE + b"3\r\nabc\r\n0\r\nContent-Length: 44\r\n\r\n"),
    Case("a coding in the trailers", _TE + b"3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    Case("a trailer without a colon", _TE + b"3\r\nabc\r\n0\r\nA\r\n\r\n"),
    Case("20 000 trailers", _TE + b"3\r\nabc\r\n0\r\n" + b"A: b\r\n" * 20_000 + b"\r\n", 431),
    Case("a trailer without end", _TE + b"3\r\nabc\r\n0\r\nA: " + b"b" * 2**20, whole=True),
    # ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────
    Case("an expectation that is unknown", post(INFER, b"abc", "Expect: 200-ok"), 417),
    Case("two expectations", post(INFER, b"abc", "Expect: 100-continue", "Expect: 100-continue")),
    Case("a legal request, then a bad one", get("/v2/health/live") + b"GET /v2 HTTP/9.9\r\n\r\n"),
    Case("a head that is cut off", get(INFER)[:-2], 499, whole=True),
    Case("a body that is cut off", post(INFER, b"abc")[:-1], 499, whole=True),
    Case("chunks that are cut off", _TE + b"3\r\nab", 499, whole=True),
    Case("nothing at all", b"", None, whole=True),
]
