"""The paths of the Open Inference Protocol v2 over HTTP, as a table, and what a path and a method ask for.

Belongs here: methods and paths. Never here: whether the model that a path names exists.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

from msgspec import Struct

from gateway.errors import MethodNotAllowed, UnknownPath

Endpoint = Literal["infer", "live", "ready", "server", "model", "model_ready"]


class Target(Struct, frozen=True):
    """What a request is about. Names are as the caller gave them, checked by nobody yet."""

    endpoint: Endpoint
    model: str = ""
    version: str | None = None


class RouteRow(Struct, frozen=True):
    """One line of the table: a path whose `{model}` and `{version}` stand for one segment each."""

    method: Literal["GET", "POST"]
    path: str
    endpoint: Endpoint

    @property
    def allowed(self) -> tuple[str, ...]:
        """The methods of this path; HEAD is GET without the body, which the wire leaves out."""
        return _ALLOWED[self.method]


_ALLOWED: Final[Mapping[str, tuple[str, ...]]] = {"GET": ("GET", "HEAD"), "POST": ("POST",)}
ROUTES: Final = (
    RouteRow("POST", "/v2/models/{model}/infer", "infer"),
    RouteRow("POST", "/v2/models/{model}/versions/{version}/infer", "infer"),
    RouteRow("GET", "/v2", "server"),
    RouteRow("GET", "/v2/health/live", "live"),
    RouteRow("GET", "/v2/health/ready", "ready"),
    RouteRow("GET", "/v2/models/{model}", "model"),
    RouteRow("GET", "/v2/models/{model}/versions/{version}", "model"),
    RouteRow("GET", "/v2/models/{model}/ready", "model_ready"),
    RouteRow("GET", "/v2/models/{model}/versions/{version}/ready", "model_ready"),
)
"""Every path of the data port, read top to bottom; the first that fits is it."""


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path))


_PATTERNS: Final = tuple((_pattern(row.path).fullmatch, row) for row in ROUTES)


@lru_cache(maxsize=4096)
def find(path: str) -> tuple[RouteRow, Target]:
    """Return the line of the table that a percent-decoded path is on, and what it names.

    Raises:
        UnknownPath
    """
    for matches, row in _PATTERNS:
        if found := matches(path):
            return row, Target(row.endpoint, **found.groupdict())
    raise UnknownPath("no such path; inference is POST /v2/models/{model}/infer, and GET /v2 names this server")


def parse(method: str, path: str) -> Target:
    """Return what a request is about.

    Raises:
        UnknownPath, MethodNotAllowed
    """
    row, target = find(path)
    if method not in row.allowed:
        raise not_allowed(method, row)
    return target


def not_allowed(method: str, row: RouteRow) -> MethodNotAllowed:
    """Return the refusal of a method that a path does not have."""
    return MethodNotAllowed(f"{method[:16]} is not possible here; use {' or '.join(row.allowed)}", row.allowed)
