"""From a URL and headers to the head of a request as bytes, and to the backend that it goes to.

Belongs here: what a request line, `host` and framing headers look like. Never here: connections.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

from msgspec import Struct

from gateway import __version__
from gateway.errors import BackendUnreachable
from gateway.messages import Headers
from gateway.timeouts import TIMEOUT_HEADER, remaining

_OWN_HEADERS: Final = f"user-agent: pointsman/{__version__}\r\naccept-encoding: identity\r\n"
_WITH_LENGTH: Final = frozenset({"POST", "PUT", "PATCH"})
"""Methods whose requests say that they have no body, when they have none (RFC 9110, section 8.6)."""
_SAFE: Final = "!$%&'()*+,/:;=@[]|~?"
_TIMEOUT: Final = TIMEOUT_HEADER.encode()
_TOLD: Final = re.compile(rb"\r\n%b: [0-9]+\r\n" % _TIMEOUT)
_PORTS: Final = {"http": 80, "https": 443}


class Origin(Struct, frozen=True):
    """One backend, as connections know it. `name` is the beginning of its URL, to the letter.

    Errors repeat the name, and what callers are told of them is found by it (`ServingError.public`).
    """

    name: str
    host: str
    port: int
    tls: bool


class Target(Struct, frozen=True):
    """Where requests of one method to one URL go, and how each begins."""

    origin: Origin
    start: str
    with_length: bool
    head_only: bool


@lru_cache(maxsize=4096)
def parse_target(method: str, url: str) -> Target:
    """Return where a request goes. What is not allowed in a request line is percent-encoded.

    Raises:
        BackendUnreachable: the URL is none that can be called.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("ascii")
    except ValueError as error:
        raise BackendUnreachable(f"{url} is no URL that can be called: {error}", url) from None
    if "@" in parts.netloc:
        raise BackendUnreachable("a URL that holds a user name or password is not called")  # nor repeated
    if parts.scheme not in _PORTS or not host:
        raise BackendUnreachable(f"{url} is no URL that can be called: expected http:// or https:// and a host", url)
    if port == 0:
        raise BackendUnreachable(f"{url} is no URL that can be called: there is no port 0", url)
    usual = _PORTS[parts.scheme]
    named = f"[{host}]" if ":" in host else host
    authority = named if port in {None, usual} else f"{named}:{port}"
    path = quote(parts.path or "/", safe=_SAFE) + (f"?{quote(parts.query, safe=_SAFE)}" if parts.query else "")
    return Target(
        origin=Origin(f"{parts.scheme}://{parts.netloc}", host, port or usual, parts.scheme == "https"),
        start=f"{method} {path} HTTP/1.1\r\nhost: {authority}\r\n{_OWN_HEADERS}",
        with_length=method in _WITH_LENGTH,
        head_only=method == "HEAD",
    )


def retimed(head: bytes, deadline_ns: int, now_ns: int) -> bytes:
    """Return the head of a request that has waited until `now_ns`: the time that it tells, if any, is told anew."""
    told = b"\r\n%b: %b\r\n" % (_TIMEOUT, remaining(deadline_ns, now_ns).encode())
    return _TOLD.sub(lambda _: told, head, count=1)


def encode_head(target: Target, headers: Headers, length: int | None) -> bytes:
    """Return the head of a request with `length` bytes of body; None for a body in chunks.

    Raises:
        ValueError: a header would end its line early, or cannot be written in latin-1.
    """
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    count = len(headers)
    if lines.count("\n") != count or lines.count("\r") != count or "\0" in lines:
        raise ValueError("a header to be sent holds a line end or NUL")
    if length is None:
        return f"{target.start}{lines}transfer-encoding: chunked\r\n\r\n".encode("latin-1")
    if length or target.with_length:
        return f"{target.start}{lines}content-length: {length}\r\n\r\n".encode("latin-1")
    return f"{target.start}{lines}\r\n".encode("latin-1")
