"""What is wrong with a document: the path of the first field that does not fit, and what was expected there.

Belongs here: walking a refused value along its type. Never here: whether a document is refused, which msgspec alone
decides; its own complaints name no key of a mapping and quote patterns, so this looks again.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from difflib import get_close_matches
from math import isfinite
from typing import Annotated, NamedTuple

import msgspec
from msgspec import inspect

from routing.words import bare, either, got, other_than_null, wanted

MAX_DEPTH = 64
"""Levels of objects and arrays that a free-form value may have."""
MAX_DIGITS = 1000
"""Digits that an integer in a document may have."""

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SHOWN = 80
_NO_TEXT = "holds a lone surrogate, which is no Unicode text"
Step = Callable[[str, object], str]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Fault(NamedTuple):
    """One field that does not fit: its path (empty for the document itself), and what was expected."""

    path: str
    message: str


class Mark:
    """Stands in a decoded document where its text has what JSON or this codec does not allow.

    `name` is the field of the object that stood here which is at fault; None when the value itself is. A plain class:
    a tuple or a struct could pass for a value of the document.
    """

    __slots__ = ("message", "name")

    def __init__(self, message: str, name: str | None = None) -> None:
        self.message = message
        self.name = name


def member(path: str, name: object) -> str:
    """Return the path of a field of an object: `path.name`, in brackets if the name is not a plain word."""
    if not isinstance(name, str) or not _WORD.fullmatch(name) or len(name) > _SHOWN:
        return keyed(path, name)
    return f"{path}.{name}" if path else name


def keyed(path: str, key: object) -> str:
    """Return the path of an entry of a mapping: `path["key"]`, of bounded length and free of control characters."""
    if not isinstance(key, str):
        return f"{path}[{got(key)}]"
    shown = key if len(key) <= _SHOWN else key[:_SHOWN] + "…"
    return f"{path}[{json.dumps(shown, ensure_ascii=not shown.isprintable())}]"


def find_fault(value: object, kind: inspect.Type, path: str = "") -> Fault | None:
    """Return the first fault of `value` as a `kind` (of `msgspec.inspect`), in the order of the type's fields."""
    if isinstance(value, Mark):
        step = member if isinstance(bare(kind), inspect.StructType) else keyed
        return Fault(path if value.name is None else step(path, value.name), value.message)
    match kind:
        case inspect.Metadata() | inspect.UnionType():
            if value is None and isinstance(kind, inspect.UnionType):
                return None
            inner = kind.type if isinstance(kind, inspect.Metadata) else other_than_null(kind)
            fault = find_fault(value, inner, path)
            # A fault further inside has words of its own; one right here gets those of the whole kind.
            return _misfit(value, kind, path) if fault and fault.path == path else fault
        case inspect.StructType():
            return _in_struct(value, kind, path)
        case inspect.DictType():
            return _in_mapping(value, kind, path)
        case inspect.VarTupleType():
            return _in_array(value, kind, path)
        case inspect.AnyType():
            return find_json_fault(value, path)
        case _:
            return None if _fits(value, kind) else _misfit(value, kind, path)


def find_json_fault(value: object, path: str, step: Step = keyed, depth: int = 0) -> Fault | None:
    """Return the first thing in `value` that JSON cannot say: NaN, an infinity, a key that is no text, and the like.

    `step` makes the path of an entry of an object: `keyed` in free-form values, `member` where fields are meant.
    """
    if isinstance(value, Mark):
        return Fault(path if value.name is None else step(path, value.name), value.message)
    if depth > MAX_DEPTH:
        return Fault(path, f"nested too deeply; at most {MAX_DEPTH} levels are allowed")
    match value:
        case None | bool():
            return None
        case int():
            return None if abs(value) < 10**MAX_DIGITS else Fault(path, f"an integer of more than {MAX_DIGITS} digits")
        case str():
            return None if _is_unicode(value) else Fault(path, _NO_TEXT)
        case float():
            return None if isfinite(value) else Fault(path, f"expected a finite number, got {got(value)}")
        case list() | tuple():
            return _first(find_json_fault(entry, f"{path}[{i}]", step, depth + 1) for i, entry in enumerate(value))
        case Mapping():
            return _first(
                _key_fault(key, inspect.StrType(), step(path, key))
                or find_json_fault(entry, step(path, key), step, depth + 1)
                for key, entry in value.items()
            )
        case _:
            return Fault(path, f"expected a JSON value, got {got(value)}")


def _first(faults: Iterable[Fault | None]) -> Fault | None:
    return next((fault for fault in faults if fault), None)


def _in_struct(value: object, kind: inspect.StructType, path: str) -> Fault | None:
    if not isinstance(value, Mapping):
        return _misfit(value, kind, path)
    fields = {field.encode_name: field for field in kind.fields}
    for name in value:
        if name not in fields:
            return Fault(member(path, name), _unknown(name, list(fields)))
    for name, field in fields.items():
        if name in value:
            if fault := find_fault(value[name], field.type, member(path, name)):
                return fault
        elif field.required:
            return Fault(member(path, name), f"required field is missing; expected {wanted(field.type)}")
    return None


def _unknown(name: object, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1) if isinstance(name, str) and len(name) <= _SHOWN else []
    return f"unknown field; did you mean {near[0]}?" if near else f"unknown field; expected {either(known)}"


def _in_mapping(value: object, kind: inspect.DictType, path: str) -> Fault | None:
    if not isinstance(value, Mapping):
        return _misfit(value, kind, path)
    return _first(
        _key_fault(key, kind.key_type, keyed(path, key)) or find_fault(entry, kind.value_type, keyed(path, key))
        for key, entry in value.items()
    )


def _key_fault(key: object, kind: inspect.Type, path: str) -> Fault | None:
    if isinstance(key, str) and not _is_unicode(key):
        return Fault(path, f"the key {_NO_TEXT}")
    return Fault(path, f"expected a key that is {wanted(kind)}") if find_fault(key, kind) else None


def _in_array(value: object, kind: inspect.VarTupleType, path: str) -> Fault | None:
    if not isinstance(value, (list, tuple)) or not _within(len(value), kind):
        return _misfit(value, kind, path)
    return _first(find_fault(entry, kind.item_type, f"{path}[{index}]") for index, entry in enumerate(value))


def _misfit(value: object, kind: inspect.Type, path: str) -> Fault:
    if isinstance(value, str) and not _is_unicode(value):
        return Fault(path, _NO_TEXT)
    return Fault(path, f"expected {wanted(kind)}, got {got(value)}")


def _fits(value: object, kind: inspect.Type) -> bool:
    match kind:
        case inspect.StrType():
            if not isinstance(value, str) or not _is_unicode(value) or not _within(len(value), kind):
                return False
            return kind.pattern is None or re.search(kind.pattern, value) is not None
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return isinstance(value, int) and not isinstance(value, bool) and _in_range(value, kind)
        case inspect.FloatType():
            return isinstance(value, (int, float)) and not isinstance(value, bool) and _in_range(value, kind)
        case inspect.LiteralType():
            return isinstance(value, str) and value in kind.values
        case inspect.DateTimeType():
            return _is_moment(value)
        case _:
            return True  # a kind that no document has yet: the caller falls back on msgspec's own words


def _is_unicode(text: str) -> bool:
    """Tell whether a text can be written as UTF-8, which a lone surrogate (JSON's `"\\ud800"`) cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_moment(value: object) -> bool:
    try:
        msgspec.convert(value, _Moment)
    except msgspec.ValidationError:
        return False
    return True


def _within(length: int, kind: inspect.StrType | inspect.VarTupleType) -> bool:
    return (kind.min_length or 0) <= length <= (length if kind.max_length is None else kind.max_length)


def _in_range(number: float, kind: inspect.IntType | inspect.FloatType) -> bool:
    return (kind.ge is None or number >= kind.ge) and (kind.le is None or number <= kind.le)
