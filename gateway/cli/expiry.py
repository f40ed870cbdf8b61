"""When a pin ends, as people write it: a time of day with its zone, or how long from now.

Belongs here: text to an RFC 3339 time. Never here: a clock; the caller passes the present.
"""

import re
from datetime import UTC, datetime, timedelta

from gateway.cli.failures import Misuse

_ADVICE = "Write a time such as 2026-12-31T00:00:00Z, or a span from now such as 30d, 12h or 90m."
_SPAN = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[mhd])")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


def parse_expiry(text: str, now: datetime) -> str:
    """Return the RFC 3339 time in UTC that `text` means at the moment `now` (with a zone).

    Raises:
        Misuse: neither a time with its zone nor a span, or not in the future.
    """
    moment = _moment(text, now)
    if moment <= now:
        raise Misuse(f"--expires {text}: that has passed, so the pin would never hold", _ADVICE)
    return moment.isoformat().replace("+00:00", "Z")


def _moment(text: str, now: datetime) -> datetime:
    try:
        if span := _SPAN.fullmatch(text):
            return (now + int(span["count"]) * _UNITS[span["unit"]]).astimezone(UTC).replace(microsecond=0)
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # the 31st of February, or a year beyond 9999
    raise Misuse(f"--expires {text!r}: neither a time with its zone nor a span from now", _ADVICE)
