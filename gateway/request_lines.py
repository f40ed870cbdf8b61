"""The log lines of requests, one for each.

Belongs here: making them, and writing those of one turn of the event loop together. Never here: other lines (`logs`),
or what stands in one.
"""

import logging
from time import gmtime, strftime, time_ns
from typing import Any, Final

import orjson

from gateway.logs import Outlet, outlet
from gateway.times import THREE_DIGITS
from gateway.together import Together

_WHOLE_BYTES: Final = 4096
"""Up to so much is written to a pipe as one piece, whoever else writes to it (PIPE_BUF on Linux, pipe(7))."""


class RequestLines:
    """The lines of requests, one for each: rendered without the general way through structlog, which would cost as much
    as routing and recording the request together, and written in groups, once in a turn of the event loop.

    Belongs to the thread of a running event loop. Lines are of the same form as all others.
    """

    def __init__(self, level: str, outlet: Outlet = outlet, **bound: Any) -> None:
        """`level` is the least that is written; `bound` fields stand on every line."""
        self._least = logging.getLevelNamesMapping()[level.upper()]
        self._end = b"," + orjson.dumps(bound)[1:] + b"\n" if bound else b"}\n"
        self._outlet = outlet
        self._lines: Together[bytes] = Together(self._write_all)
        self._second = -1
        self._stamp = ""

    def write(self, failed: bool, event: str, fields: dict[str, Any]) -> None:
        """Write a line, as a warning if the request has `failed`. `fields` becomes the line's own."""
        if self._least > (logging.WARNING if failed else logging.INFO):
            return
        now = time_ns()
        second, rest = divmod(now, 1_000_000_000)
        if second != self._second:
            self._second, self._stamp = second, strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        fields["event"] = event
        fields["level"] = "warning" if failed else "info"
        us = rest // 1000
        fields["time"] = f"{self._stamp}.{THREE_DIGITS[us // 1000]}{THREE_DIGITS[us % 1000]}Z"
        try:
            line = orjson.dumps(fields)
        except TypeError:  # a caller's text that is no Unicode
            line = orjson.dumps({name: _shown(value) for name, value in fields.items()})
        self._lines.add(line[:-1] + self._end)

    def flush(self) -> None:
        """Write what there is."""
        self._lines.end()

    def _write_all(self, lines: list[bytes]) -> None:
        """Write as many lines at once as stay whole beside the lines of other processes."""
        group: list[bytes] = []
        size = 0
        for line in lines:
            size += len(line)
            if size > _WHOLE_BYTES and group:
                self._outlet.write(b"".join(group))
                group, size = [], len(line)
            group.append(line)
        if group:
            self._outlet.write(b"".join(group))


def _shown(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
