"""Times in a query or a body: a point in time, or how long ago.

Belongs here: text to Unix time. Never here: what is asked of the time.
"""

import re
import time
from datetime import datetime

from starlette.requests import Request

from gateway.errors import InvalidInput

_SPAN = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def moment_of(request: Request, name: str) -> int | None:
    """Return a parameter that is a time (see `unix_ns`), or None without it. Raises `InvalidInput`."""
    text = request.query_params.get(name)
    return unix_ns(text, name) if text is not None else None


def times_of(request: Request) -> tuple[int | None, int | None]:
    """Return the parameters `from` and `to`. Raises `InvalidInput`, also when there is nothing between them."""
    since_ns, until_ns = moment_of(request, "from"), moment_of(request, "to")
    if since_ns is not None and until_ns is not None and since_ns >= until_ns:
        raise InvalidInput("from: is not before `to`, so there is nothing between them")
    return since_ns, until_ns


def unix_ns(text: str, name: str) -> int:
    """Return the Unix time (ns) of an RFC 3339 time with a zone, or of a span such as `24h` before now.

    Raises:
        InvalidInput: it is neither; the message begins with `name`.
    """
    if found := _SPAN.fullmatch(text):
        return time.time_ns() - int(found["count"]) * _SECONDS[found["unit"]] * 1_000_000_000
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no zone")
        return int(moment.timestamp() * 1_000_000) * 1_000
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{name}: expected a time with its zone, such as 2026-12-31T00:00:00Z, or how long ago, such as 24h or 30d"
        ) from None
