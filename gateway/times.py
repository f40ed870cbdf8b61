"""Times as people and programs read them.

Belongs here: Unix time, and how long something took, to text. Never here: a clock, or text to time (who takes text
knows what it may be).
"""

from datetime import UTC, datetime
from typing import Final

THREE_DIGITS: Final = tuple([f"{number:03}" for number in range(1000)])
"""The numbers below 1000, each with three digits: a look here costs a tenth of having one formatted so."""


def moment(at_ns: int) -> str:
    """Return a time (Unix ns) for people and programs: RFC 3339 in UTC, to the microsecond."""
    second = datetime.fromtimestamp(at_ns // 1_000_000_000, UTC)
    return f"{second:%Y-%m-%dT%H:%M:%S}.{at_ns % 1_000_000_000 // 1000:06d}Z"


def day_of(at_ns: int) -> str:
    """Return the UTC day of a time (Unix ns), such as `2026-11-25`."""
    return f"{datetime.fromtimestamp(at_ns // 1_000_000_000, UTC):%Y-%m-%d}"


def in_ms(us: int) -> str:
    """Return µs in ms, with three decimals."""
    return f"{us // 1000}.{THREE_DIGITS[us % 1000]}"
