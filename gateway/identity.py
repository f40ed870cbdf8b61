"""The names of one request: our record id, the caller's request id, and the trace it belongs to; and what is random.

Belongs here: making and reading ids, drawing salts. Never here: routing keys (they decide; see `routing`), or who a
caller is.
"""

import os
import re
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?\Z")


_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_SALTS_BYTES: Final = 32
_DRAWN: Final = 256
# Asking the kernel costs as much as everything else here, so it is asked for many at once. Taking one off a deque is
# one step, so no two threads get the same; a forked process draws its own.
_digits: Final[deque[str]] = deque()
_salts: Final[deque[bytes]] = deque()
os.register_at_fork(after_in_child=_digits.clear)
os.register_at_fork(after_in_child=_salts.clear)


def new_salts() -> bytes:
    """Return 32 random bytes of the kernel's that nobody has had before: two salts of 16."""
    try:
        return _salts.pop()
    except IndexError:
        drawn = os.urandom(_SALTS_BYTES * _DRAWN)
        _salts.extend([drawn[at : at + _SALTS_BYTES] for at in range(_SALTS_BYTES, len(drawn), _SALTS_BYTES)])
        return drawn[:_SALTS_BYTES]


def _random_digits() -> str:
    """Return 20 hexadecimal digits, 80 random bits."""
    try:
        return _digits.pop()
    except IndexError:
        drawn = os.urandom(10 * _DRAWN).hex()
        _digits.extend([drawn[at : at + 20] for at in range(20, len(drawn), 20)])
        return drawn[:20]


@lru_cache(maxsize=2)  # of several requests in one millisecond, one has it written
def _time_digits(ms: int) -> str:
    """Return how the ids made in a millisecond of Unix time begin."""
    time = f"{ms:012x}"
    return f"{time[:8]}-{time[8:]}"


def new_record_id(unix_ns: int) -> str:
    """Return a UUIDv7 (RFC 9562 §5.7) for a request received at `unix_ns`: 48 bits of milliseconds, 74 random bits.

    Text form, 36 characters. Ids sort by the millisecond they were made in.
    """
    random = _random_digits()
    return f"{_time_digits(unix_ns // 1_000_000)}-7{random[:3]}-{_VARIANT[random[3]]}{random[4:7]}-{random[7:19]}"


def request_id_of(headers: Mapping[str, str], otherwise: str) -> str:
    """Return the caller's `X-Request-Id` if it is a legal one, else `otherwise`."""
    given = headers.get("x-request-id")
    return given if given is not None and _REQUEST_ID.match(given) else otherwise


def trace_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the trace id (32 hex digits) of a legal W3C `traceparent`, else None."""
    given = headers.get("traceparent")
    found = _TRACEPARENT.match(given) if given is not None else None
    return found[1] if found else None
