"""Plain words for types and values: what a field wants, and what was found there.

Belongs here: wording only. Never here: a judgement of a value, or its text, which may be a secret.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import inspect

_SHOWN_NUMBER = 10**24


def wanted(kind: inspect.Type) -> str:
    """Return what a type takes, such as `an integer from 1 to 3600000`; a description beside the limit wins."""
    match kind:
        case inspect.Metadata():
            described: Any = (kind.extra_json_schema or {}).get("description")
            return described or wanted(kind.type)
        case inspect.UnionType():
            return wanted(other_than_null(kind)) + " or null"
        case inspect.StrType():
            return "a string" + _span(kind, "character", "characters")
        case inspect.VarTupleType():
            return "an array" + _span(kind, "entry", "entries")
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"an integer from {kind.ge} to {kind.le}"
        case inspect.LiteralType():
            return either([json.dumps(choice) for choice in kind.values])
        case inspect.DateTimeType():
            return "a date and time with its zone, such as 2026-12-31T00:00:00Z"
        case _:
            return "an object"


def got(value: object) -> str:
    """Return what a value is: small numbers as they are, a text only by its length."""
    match value:
        case int() if abs(value) >= _SHOWN_NUMBER:
            return "a number of more than 24 digits"
        case None | bool() | int() | float():
            return json.dumps(value)
        case "":
            return "an empty string"
        case str():
            return f"a string of {len(value)} character{'' if len(value) == 1 else 's'}"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "an array" if value else "an empty array"
        case _:
            return f"a {type(value).__name__}"


def either(choices: Sequence[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join(filter(None, (", ".join(choices[:-1]), choices[-1])))


def other_than_null(kind: inspect.UnionType) -> inspect.Type:
    """Return the one kind beside null; documents have no other unions, because their faults could not be placed."""
    (inner,) = (kind for kind in kind.types if not isinstance(kind, inspect.NoneType))
    return inner


def bare(kind: inspect.Type) -> inspect.Type:
    """Return a kind without its description and without null."""
    match kind:
        case inspect.Metadata():
            return bare(kind.type)
        case inspect.UnionType():
            return bare(other_than_null(kind))
        case _:
            return kind


def _span(kind: inspect.StrType | inspect.VarTupleType, one: str, many: str) -> str:
    least, most = kind.min_length, kind.max_length
    if most is not None:
        return f" of at most {most} {many}" if least is None else f" of {least} to {most} {many}"
    return "" if least is None else f" of at least {least} {one if least == 1 else many}"
