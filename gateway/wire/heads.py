"""The head of a request: what it asks for, how its body is framed, and whether it can be read in one way only.

Belongs here: rules for one head, without a connection. Never here: bytes on their way (the parser of httptools finds
lines, names and numbers, and refuses what breaks its grammar), deadlines, models, versions, or paths of a protocol.

A head that two servers may read in two ways is refused, never interpreted: a proxy in front has read it already, and
whatever it read differently would pass it as part of another request. Rules: RFC 9110 and RFC 9112.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from httptools import HttpRequestParser
from msgspec import Struct

from gateway.errors import HeadTooLarge, MalformedRequest, RequestError, UnmetExpectation

Fields = Sequence[tuple[bytes, bytes]]

_ONCE: Final = frozenset({"host", "content-length", "transfer-encoding", "expect"})
"""Fields that stand at most once. Of every other field the first counts."""
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?").fullmatch
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL).fullmatch
_VERSIONS: Final = frozenset({"1.1", "1.0"})
_PLAINLY: Final = (b" HTTP/1.1", b" HTTP/1.0")
_PROTOCOLS: Final = (b"HTTP/", b"RTSP/", b"ICE/")
_MOST_DIGITS: Final = 20
_MOST_KEPT: Final = 512
_names: Final[dict[bytes, str]] = {}
_hosts: Final[set[str]] = set()
"""Names of fields as they were sent, and in lower case; hosts that are valid. Most callers send the same for years."""


class Head(Struct):
    """One head. `path` is percent-decoded, `headers` has lower-case names and the first value of each.

    `target` is the request target, and `fields` are all fields, as they came. `length` is the Content-Length, 0
    without one. `wrong` is the first reason to refuse it, if there is any; everything else may then be incomplete.
    `keep_alive` is what the caller asks for and may be taken back until the reply is sent.
    """

    method: str
    version: str
    target: bytes
    fields: Fields
    headers: dict[str, str]
    path: str
    length: int = 0
    chunked: bool = False
    expects: bool = False
    keep_alive: bool = False
    wrong: RequestError | None = None


def read_head(parser: HttpRequestParser, target: bytes, fields: Fields, whole: bool = True) -> Head:
    """Return the head that a parser has just come to the end of, or where it is not `whole`, what there is of it.

    Never raises: see `Head.wrong`.
    """
    headers: dict[str, str] = {}
    repeated = ""
    for raw, value in fields:
        name = _names.get(raw) or _lower(raw)
        if name not in headers:
            try:
                headers[name] = value.decode().rstrip(" \t")
            except UnicodeDecodeError:
                headers[name] = value.decode("latin-1").rstrip(" \t")
        elif name in _ONCE:
            repeated = name
    keep_alive = whole and parser.should_keep_alive()
    # The parser writes the version down anew each time. Without a Connection, only HTTP/1.1 stays open.
    version = "1.1" if not whole or (keep_alive and "connection" not in headers) else parser.get_http_version()
    text = target.decode("latin-1")
    head = Head(parser.get_method().decode("latin-1"), version, target, fields, headers, text, keep_alive=keep_alive)
    try:
        if repeated:
            raise MalformedRequest(f"{repeated}: stands more than once; send it once")
        _check(head)
        if not text.startswith("/") or "%" in text or "?" in text or "#" in text or head.method == "CONNECT":
            head.path = _path(head, text)
    except RequestError as error:
        head.wrong = error
    return head


def plain_line(piece: bytes | memoryview) -> int:
    """Return where the first line of what came ends, if it is that of an HTTP request; else 0."""
    start = piece if type(piece) is bytes else bytes(piece)
    end = start.find(b"\r\n")
    return end if start[:end].endswith(_PLAINLY) else 0


def check_protocol(head: Head, raw: bytes, start: int) -> int:
    """Return where the request line of a head ends that stands in `raw`, not before `start`.

    The parser takes request lines of RTSP and Icecast for HTTP's and does not tell, so the target is looked for with a
    protocol behind it.

    Raises:
        MalformedRequest: the line is not of HTTP.
    """
    found = [raw.find(b"".join((head.target, b" ", name)), start) for name in _PROTOCOLS]
    end = min((at for at in found if at >= 0), default=-1)
    if end != found[0]:
        raise MalformedRequest("only HTTP/1.1 is spoken here")
    return max(end, start) + 1


def check_size(head: Head, most_bytes: int) -> None:
    """Raise `HeadTooLarge` when target, names and values, with four bytes for each field, exceed `most_bytes`."""
    if len(head.target) + sum(len(name) + len(value) + 4 for name, value in head.fields) > most_bytes:
        raise head_too_large(most_bytes)


def head_too_large(most_bytes: int) -> HeadTooLarge:
    """Return the refusal of a head that is too long."""
    return HeadTooLarge(f"the head of the request is larger than {most_bytes} bytes (limits.max_head_bytes)")


def _lower(raw: bytes) -> str:
    name = raw.decode("latin-1").lower()
    if len(_names) < _MOST_KEPT:
        _names[raw] = name
    return name


def _path(head: Head, text: str) -> str:
    """Return the percent-decoded path of a target in origin-form, or in absolute-form (RFC 9112, section 3.2)."""
    if head.method == "CONNECT":
        raise MalformedRequest("CONNECT is not spoken here: this is no proxy")
    if not text.startswith("/"):
        if text == "*" and head.method == "OPTIONS":
            return text
        absolute = _ABSOLUTE(text)
        if absolute is None:
            raise MalformedRequest("the target of the request is no path; begin it with /")
        authority, text = absolute[1], absolute[2]
        if authority.lower() != head.headers.get("host", authority).lower():
            raise MalformedRequest("the target of the request and its Host name two hosts; send a path")
        if not _HOST(authority):
            raise MalformedRequest("the target of the request names no valid host; send a path")
        text = text if text.startswith("/") else f"/{text}"
    path, _, _ = text.partition("?")
    if "#" in text:
        raise MalformedRequest("the target of the request has a fragment; leave out # and what follows")
    return unquote(path) if "%" in path else path


def _check(head: Head) -> None:
    headers, version = head.headers, head.version
    if version not in _VERSIONS:
        raise MalformedRequest(f"HTTP/{version} is not spoken here; use HTTP/1.1")
    if (host := headers.get("host")) not in _hosts:
        _check_host(host, version)
    if (length := headers.get("content-length")) is not None:
        if len(length) > _MOST_DIGITS:
            raise MalformedRequest("content-length: has too many digits")
        head.length = int(length)  # digits only, as the parser has seen to
    if (coding := headers.get("transfer-encoding")) is not None:
        head.chunked = True
        if length is not None:
            raise MalformedRequest("content-length: stands beside transfer-encoding; send one of them")
        if coding.lower() != "chunked" or version == "1.0":
            raise MalformedRequest("transfer-encoding: only chunked is spoken here, in HTTP/1.1")
    if (expected := headers.get("expect")) is not None and version == "1.1":
        if expected.lower() != "100-continue":
            raise UnmetExpectation("expect: only 100-continue is understood here; leave it out")
        head.expects = True


def _check_host(host: str | None, version: str) -> None:
    if host is None:
        if version == "1.1":
            raise MalformedRequest("host: missing; HTTP/1.1 needs it")
        return
    if not _HOST(host):
        raise MalformedRequest("host: is no name or address with an optional port")
    if len(_hosts) < _MOST_KEPT:
        _hosts.add(host)
