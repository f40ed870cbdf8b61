"""What stands behind the question mark of a request: each parameter once, of its form, and none that nobody knows.

Belongs here: the query of a URL, parsed at the door. Never here: bodies and headers (those are `bodies` and
`requests`).
"""

import re
from collections.abc import Collection

from starlette.requests import Request

from gateway.controlplane import Terms, shown
from gateway.errors import InvalidInput

TERMS = ("dry_run", "preview", "max_moves", "confirm_within_s")
"""The parameters (and fields of a body) that say on which terms a change is made."""
LONGEST_CONFIRM_S = 7 * 24 * 3600
_LONGEST_NAME = 1024
_WHOLE = re.compile(r"[0-9]{1,15}", re.ASCII)


def check_parameters(request: Request, known: Collection[str]) -> None:
    """Refuse a query that names what the call does not know, or names something twice. Raises `InvalidInput`."""
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in known:
            expected = f"known here: {', '.join(known)}" if known else "this call takes none"
            raise InvalidInput(f"{shown(name)}: unknown parameter; {expected}")
        if name in seen:
            raise InvalidInput(f"{name}: the parameter stands twice; say it once")
        seen.add(name)


def truth(request: Request, name: str) -> bool:
    """Return a parameter that is true or false; false without it. Raises `InvalidInput`."""
    value = request.query_params.get(name, "false")
    if value not in ("true", "false"):
        raise InvalidInput(f"{name}: expected true or false")
    return value == "true"


def whole(request: Request, name: str, least: int, most: int | None = None) -> int | None:
    """Return a parameter that is a whole number from `least` to `most`, or None without it. Raises `InvalidInput`."""
    text = request.query_params.get(name)
    if text is None:
        return None
    number = int(text) if _WHOLE.fullmatch(text) else -1
    if number < least or (most is not None and number > most):
        raise InvalidInput(f"{name}: expected a whole number of {least} {'or more' if most is None else f'to {most}'}")
    return number


def named(request: Request, name: str) -> str | None:
    """Return a parameter that names something, or None without it. Raises `InvalidInput`."""
    value = request.query_params.get(name)
    if value is not None and (not value or len(value) > _LONGEST_NAME or not value.isprintable()):
        raise InvalidInput(f"{name}: expected 1 to {_LONGEST_NAME} printable characters")
    return value


def terms_of_query(request: Request) -> Terms:
    """Return the terms that the query of a change names. Raises `InvalidInput`."""
    seconds = whole(request, "confirm_within_s", 1, LONGEST_CONFIRM_S)
    return Terms(
        dry_run=truth(request, "dry_run"),
        preview=truth(request, "preview"),
        max_moves=whole(request, "max_moves", 0),
        confirm_within_ms=seconds * 1000 if seconds is not None else None,
    )


def revision_of(text: str) -> int:
    """Return the number of a revision that stands in a path. Raises `InvalidInput`."""
    if not _WHOLE.fullmatch(text):
        raise InvalidInput(f"revision: expected the number of a revision, got {shown(text)}")
    return int(text)
