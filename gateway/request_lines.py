"""The log lines of requests, one for each.

Belongs here: what stands in one, making them, and writing those of one turn of the event loop together. Never here:
other lines (`logs`).
"""

import logging
from functools import lru_cache
from time import gmtime, strftime, time_ns
from typing import Any, Final

import orjson

from gateway.logs import Outlet, outlet
from gateway.times import THREE_DIGITS, in_ms
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
        self._end = f'Z",{orjson.dumps(bound).decode()[1:]}\n' if bound else 'Z"}\n'
        self._outlet = outlet
        self._lines: Together[bytes] = Together(self._write_all)
        self._second = -1
        self._stamp = ""

    def write(
        self,
        outcome: str,
        *,
        request_id: str,
        record_id: str,
        model: str,
        version: str | None,
        reason: str | None,
        revision: int | None,
        status: int,
        total_us: int,
        error_code: str | None,
    ) -> None:
        """Write a line, as a warning if the outcome is `failed`. The ids are legal ones (`identity`), so there is
        nothing in them to escape.
        """
        failed = outcome == "failed"
        if self._least > (logging.WARNING if failed else logging.INFO):
            return
        second, rest = divmod(time_ns(), 1_000_000_000)
        if second != self._second:
            self._second, self._stamp = second, strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
        us = rest // 1000
        self._lines.add(
            (
                f'{{"request_id":"{request_id}","record_id":"{record_id}",{_alike(model, version, reason, revision)},'
                f'"status":{status},"latency_ms":{in_ms(total_us)}'
                f"{_ending(outcome, failed, error_code)}"
                f"{self._stamp}.{THREE_DIGITS[us // 1000]}{THREE_DIGITS[us % 1000]}{self._end}"
            ).encode()
        )

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


@lru_cache(maxsize=4096)
def _alike(model: str, version: str | None, reason: str | None, revision: int | None) -> str:
    """Return the fields that are the same for every request decided alike, without braces."""
    fields = {"model": model, "version": version, "reason": reason, "revision": revision}
    try:
        said = orjson.dumps(fields)
    except TypeError:  # a caller's text that is no Unicode
        said = orjson.dumps({name: _shown(value) for name, value in fields.items()})
    return said.decode()[1:-1]


@lru_cache(maxsize=256)
def _ending(outcome: str, failed: bool, error_code: str | None) -> str:
    """Return the fields from the error's code to the beginning of the time."""
    fields = {"error_code": error_code} if error_code is not None else {}
    said = orjson.dumps(fields | {"event": outcome, "level": "warning" if failed else "info", "time": ""})
    return f",{said.decode()[1:-2]}"


def _shown(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
