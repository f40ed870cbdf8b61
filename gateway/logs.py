"""Structured logs: one JSON object a line on standard output, written whole so that lines of workers never mix.

Belongs here: how a line is rendered. Never here: what is logged, and nothing that reads a request.
"""

import atexit
import logging
import os
import select
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger


def _render(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS)


class _Bound:
    """Puts the same fields on every line of a process, from whatever thread or task it comes."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = dict(fields)

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        for name, value in self._fields.items():
            event.setdefault(name, value)
        return event


def configure(level: str, **bound: Any) -> None:
    """Set up logging of this process: `level` is debug, info, warning or error; `bound` fields stand on every line.

    The standard library's loggers (uvicorn's, asyncio's) pass through the same renderer from warning upwards.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    timestamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
    structlog.configure(
        processors=[
            _Bound(bound),
            structlog.processors.add_log_level,
            timestamp,
            structlog.processors.format_exc_info,
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Lines(outlet),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog(max(number, logging.WARNING))]
    root.setLevel(max(number, logging.WARNING))


class Outlet:
    """Writes lines to a descriptor without ever waiting for whoever reads it.

    A pipe or terminal that nobody empties would otherwise stop the event loop, and with it every request. Lines that
    cannot be written at once wait, up to `limit` bytes; beyond that they are dropped, counted, and the count is told
    as soon as there is room again. One `write` a line, so that lines of several processes never mix.
    """

    def __init__(self, descriptor: int, limit: int = 4 * 2**20) -> None:
        self._descriptor = descriptor
        self._limit = limit
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Write a line or a few, or keep them for later, or drop them. Never raises, never waits.

        May be called from any thread.
        """
        with self._lock:
            if not (self._catch_up() and self._try(line)):
                self._keep(line)

    def flush(self) -> None:
        """Write what waits as far as that goes without waiting."""
        with self._lock:
            self._catch_up()

    def _catch_up(self) -> bool:
        while self._waiting:
            if not self._try(self._waiting[0]):
                return False
            self._waiting_bytes -= len(self._waiting.popleft())
        if self._dropped and self._try(b'{"event":"log_lines_dropped","count":%d,"level":"warning"}\n' % self._dropped):
            self._dropped = 0
        return True

    def _try(self, line: bytes) -> bool:
        if not self._room.poll(0):
            return False
        try:
            os.write(self._descriptor, line)
        except BlockingIOError:
            return False
        except OSError:
            # Nobody will ever read it: a closed pipe or terminal is no reason to stop serving.
            self._dropped += line.count(b"\n")
        return True

    def _keep(self, line: bytes) -> None:
        if self._waiting_bytes + len(line) > self._limit:
            self._dropped += line.count(b"\n")
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)


outlet = Outlet(1)
"""Standard output."""
atexit.register(outlet.flush)


class _Lines:
    """What structlog writes to: every method is a level, and all of them write the line."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def msg(self, line: bytes) -> None:
        """Write one rendered line."""
        self._outlet.write(line + b"\n")

    log = debug = info = warning = error = critical = exception = msg


class _ToStructlog(logging.Handler):
    """Passes a standard library record on, so that a library's warning is a JSON line like any other."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
        )


def logger() -> FilteringBoundLogger:
    """Return the logger; cheap enough to call where it is used, and configured by the process that runs."""
    bound: FilteringBoundLogger = structlog.get_logger()
    return bound
