"""What differs between two documents, field by field, for people to read.

Belongs here: comparing canonical documents. Never here: what a difference does to anybody, or finding the documents.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

_KEYS: Final[Mapping[str, str]] = {"pins": "cohort", "shadows": "version"}
"""Lists of entries that are told apart by one of their fields."""
_SETS: Final = frozenset({"keys", "in"})
"""Lists of which the order means nothing."""
_BY_NAME: Final = frozenset({"split", "cohorts"})
"""Objects whose fields are names that somebody gave."""


class FieldDifference(Struct, frozen=True):
    """One field that differs, by its path (`split["2"]`, `pins[0].expires`); unset where it does not exist.

    The index is that of the newer document, or for an entry that is gone, of the older one.
    """

    path: str
    before: Any | UnsetType = UNSET
    after: Any | UnsetType = UNSET


def differences(older: Mapping[str, Any], newer: Mapping[str, Any]) -> tuple[FieldDifference, ...]:
    """Return every field that differs between two decoded documents, in the order of the newer one's fields.

    Pins are compared by their cohort and shadows by their version, so an entry that only moved up or down is one
    difference of the list's order. Listed keys and values have no order.
    """
    return tuple(_objects("", older, newer))


def _objects(
    path: str, older: Mapping[str, Any], newer: Mapping[str, Any], named: bool = False
) -> Iterator[FieldDifference]:
    for name in [*newer, *(name for name in older if name not in newer)]:
        inner = _inner(path, name, named)
        before, after = older.get(name, UNSET), newer.get(name, UNSET)
        if before == after:
            continue
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _objects(inner, before, after, name in _BY_NAME)
        elif isinstance(before, list) and isinstance(after, list):
            yield from _lists(inner, name, before, after)
        else:
            yield FieldDifference(inner, before, after)


def _inner(path: str, name: str, named: bool) -> str:
    if named:
        return f"{path}[{msgspec.json.encode(name).decode()}]"
    return f"{path}.{name}" if path else name


def _lists(path: str, name: str, older: Sequence[Any], newer: Sequence[Any]) -> Iterator[FieldDifference]:
    if name in _KEYS:
        yield from _entries(path, _KEYS[name], older, newer)
    elif name in _SETS:
        yield from _members(path, older, newer)
    elif name == "match" and len(older) == len(newer):
        for index, (before, after) in enumerate(zip(older, newer, strict=True)):
            yield from _objects(f"{path}[{index}]", before, after)
    else:
        yield FieldDifference(path, older, newer)


def _entries(path: str, key: str, older: Sequence[Any], newer: Sequence[Any]) -> Iterator[FieldDifference]:
    olds, news = _keyed(key, older), _keyed(key, newer)
    for identity, (index, entry) in news.items():
        if identity in olds:
            yield from _objects(f"{path}[{index}]", olds[identity][1], entry)
        else:
            yield FieldDifference(f"{path}[{index}]", UNSET, entry)
    for identity, (index, entry) in olds.items():
        if identity not in news:
            yield FieldDifference(f"{path}[{index}]", entry, UNSET)
    if [one for one in olds if one in news] != [one for one in news if one in olds]:
        yield FieldDifference(path, [entry[key] for entry in older], [entry[key] for entry in newer])


def _keyed(key: str, entries: Sequence[Any]) -> dict[tuple[str, int], tuple[int, Any]]:
    """Return entries with their index by what tells them apart; of two pins of one cohort, also by which it is."""
    found: dict[tuple[str, int], tuple[int, Any]] = {}
    seen: dict[str, int] = {}
    for index, entry in enumerate(entries):
        name = entry[key]
        found[name, seen.get(name, 0)] = (index, entry)
        seen[name] = seen.get(name, 0) + 1
    return found


def _members(path: str, older: Sequence[Any], newer: Sequence[Any]) -> Iterator[FieldDifference]:
    olds, news = set(older), set(newer)
    for member in newer:
        if member not in olds:
            yield FieldDifference(_inner(path, member, True), UNSET, member)
    for member in older:
        if member not in news:
            yield FieldDifference(_inner(path, member, True), member, UNSET)
