"""Which version serves a request: types, strict JSON codec, hashing and `resolve`.

Belongs here: the decision and the documents it reads, as pure functions of their arguments.
Never here: `async`, a clock, randomness, logging, Redis, or anything of `gateway`.
"""

from routing.codec import DocumentError, encode_document, parse_cohort, parse_route
from routing.explain import Explanation, Step, explain
from routing.facts import Facts
from routing.hashing import shadow_hit, unit_digest
from routing.moves import (
    Looked,
    Move,
    MovedCaller,
    Moves,
    PinMoves,
    RouteRules,
    Seen,
    compare,
    looked_at,
    unanswered,
)
from routing.resolve import (
    VersionDenied,
    consulted_headers,
    draw,
    named_versions,
    resolve,
    routing_key,
    shadows_for,
    standing,
)
from routing.types import BASIS_POINTS, Brake, Capture, Clause, Cohort, Decision, KeySource, Pin, Route, Shadow

__all__ = [
    "BASIS_POINTS",
    "Brake",
    "Capture",
    "Clause",
    "Cohort",
    "Decision",
    "DocumentError",
    "Explanation",
    "Facts",
    "KeySource",
    "Looked",
    "Move",
    "MovedCaller",
    "Moves",
    "Pin",
    "PinMoves",
    "Route",
    "RouteRules",
    "Seen",
    "Shadow",
    "Step",
    "VersionDenied",
    "compare",
    "consulted_headers",
    "draw",
    "encode_document",
    "explain",
    "looked_at",
    "named_versions",
    "parse_cohort",
    "parse_route",
    "resolve",
    "routing_key",
    "shadow_hit",
    "shadows_for",
    "standing",
    "unanswered",
    "unit_digest",
]
