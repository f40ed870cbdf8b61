"""Spans of time as people write them: `90s`, `15m`, `12h`, `30d`.

Belongs here: text to a span and back. Never here: a clock, or points in time (those are `expiry`).
"""

import re
from datetime import timedelta

_SPAN = re.compile(r"(?P<count>[0-9]{1,6})(?P<unit>[smhd])", re.ASCII)
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def parse_span(text: str) -> timedelta | None:
    """Return the span that `text` means, or None when it means none."""
    found = _SPAN.fullmatch(text)
    return int(found["count"]) * _UNITS[found["unit"]] if found else None


def span_words(seconds: float) -> str:
    """Return a span for people, in at most two units: `45 s`, `3 min 20 s`, `2 h`, `1 d 4 h`."""
    left = round(seconds)
    if left < 0:
        return f"-{span_words(-left)}"
    parts: list[tuple[int, str]] = []
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, rest = divmod(left, size)
        if count or parts:
            parts.append((count, name))
            left = rest
    return " ".join(f"{count} {name}" for count, name in parts[:2] if count) or "0 s"
