"""The names of one request: our record id, the caller's request id, and the trace it belongs to.

Belongs here: making and reading ids. Never here: routing keys (they decide; see `routing`), or who a caller is.
"""

import os
import re
from collections.abc import Mapping

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?\Z")


def new_record_id(unix_ns: int) -> str:
    """Return a UUIDv7 (RFC 9562 §5.7) for a request received at `unix_ns`: 48 bits of milliseconds, 74 random bits.

    Text form, 36 characters. Ids sort by the millisecond they were made in.
    """
    random = int.from_bytes(os.urandom(10), "big")
    high = (unix_ns // 1_000_000) << 16 | 0x7000 | random >> 68
    low = 0x8000_0000_0000_0000 | random & 0x3FFF_FFFF_FFFF_FFFF
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def request_id_of(headers: Mapping[str, str], otherwise: str) -> str:
    """Return the caller's `X-Request-Id` if it is a legal one, else `otherwise`."""
    given = headers.get("x-request-id")
    return given if given is not None and _REQUEST_ID.match(given) else otherwise


def trace_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the trace id (32 hex digits) of a legal W3C `traceparent`, else None."""
    given = headers.get("traceparent")
    found = _TRACEPARENT.match(given) if given is not None else None
    return found[1] if found else None
