"""Documents as the control plane meets them: parsing what is stored or proposed, and naming it in a message.

Belongs here: words and parsing that every other part of the control plane needs. Never here: reading a store, or
whether a change is legal.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from gateway.errors import InvalidDocument
from gateway.ports import Kind
from routing import DocumentError, RouteRules, named_versions, parse_cohort, parse_route

NAMES: Mapping[Kind, str] = {"route": "route of model", "cohort": "cohort", "version": "version"}
"""What a document is called in a message, before its name."""
_LONGEST_SHOWN = 128

T = TypeVar("T")


def parsed(parse: Callable[[bytes], T], document: bytes) -> T:
    """Return a parsed route or cohort. Raises `InvalidDocument` with the path of the field."""
    try:
        return parse(document)
    except DocumentError as error:
        raise InvalidDocument(error.path, error.message) from None


def is_text(value: str) -> bool:
    """Tell whether a value from outside is Unicode that can be stored, with no lone surrogate in it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(name: str) -> str:
    """Return a caller's text fit for a message: of bounded length, and printable."""
    cut = name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "…"
    return cut if cut.isprintable() else ascii(cut)


def route_rules(route: bytes | None, cohorts: Mapping[str, bytes]) -> RouteRules:
    """Return a route and its cohorts as decisions need them; a cohort of 100 000 keys takes about 0.1 s.

    Raises:
        InvalidDocument: one of them does not parse.
    """
    if route is None:
        return RouteRules()
    return RouteRules(parsed(parse_route, route), {name: parsed(parse_cohort, json) for name, json in cohorts.items()})


def pinned_by(route: bytes | None) -> tuple[str, ...]:
    """Return the cohorts that a route pins, in order; none for a route that is missing or does not parse."""
    try:
        return tuple(sorted({pin.cohort for pin in parse_route(route).pins})) if route is not None else ()
    except DocumentError:
        return ()


def versions_named_by(route: bytes | None) -> frozenset[str]:
    """Return the versions that a route names; none for a route that is missing or does not parse."""
    try:
        return named_versions(parse_route(route)) if route is not None else frozenset()
    except DocumentError:
        return frozenset()
