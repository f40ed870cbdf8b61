"""Structured logs: one JSON object a line on standard output, written whole so that lines of workers never mix.

Belongs here: how a line is rendered. Never here: what is logged, and nothing that reads a request.
"""

import logging
import sys
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
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers = [_ToStructlog(max(number, logging.WARNING))]
    root.setLevel(max(number, logging.WARNING))


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
