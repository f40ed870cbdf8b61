"""Deadlines that shrink as they travel: what a caller asks for, and what a backend is told.

Belongs here: the header `X-Request-Timeout-Ms` and its arithmetic. Never here: waiting, or ending what is too late.

It holds whole milliseconds that remain, at least 1, and no point in time: the clocks of two machines differ. Whoever
passes a request on subtracts what it has taken itself; Envoy does the same with
`x-envoy-expected-rq-timeout-ms`, and gRPC with `grpc-timeout`.
"""

import re
from collections.abc import Mapping
from typing import Final

from gateway.errors import InvalidHeader

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
_MS: Final = 1_000_000
_WHOLE: Final = re.compile(r"0{0,15}[1-9][0-9]{0,14}").fullmatch


def deadline_of(headers: Mapping[str, str], started_ns: int, timeout_ms: int) -> int:
    """Return when a request that arrived at `started_ns` (monotonic) must be answered, in ns.

    That is the smaller of what its route allows, `timeout_ms`, and what its caller asks for.

    Raises:
        InvalidHeader: the caller's is no whole number of ms.
    """
    asked = headers.get(TIMEOUT_HEADER)
    if asked is not None:
        if _WHOLE(asked) is None:
            raise InvalidHeader("X-Request-Timeout-Ms: expected a whole number of milliseconds from 1; or leave it out")
        timeout_ms = min(timeout_ms, int(asked))
    return started_ns + timeout_ms * _MS


def remaining(deadline_ns: int, now_ns: int) -> str:
    """Return the header's value at `now_ns`."""
    left_ms = (deadline_ns - now_ns) // _MS
    return str(left_ms) if left_ms > 0 else "1"
