"""What a disk may hold after a power cut at any moment of what was traced (`syscall_trace`).

images(trace, extra, chance)    what may be left, for every prefix of what was done
strictest(trace)                what is left at the end when all is lost that was not synced

A write, a truncation, a name that comes or goes is *durable* once an fdatasync(2) or fsync(2) of its file, or for a
name of its folder, has begun after it and has ended. What is not durable may have reached the disk or not, each by
itself, in any order, and of a write any of its sectors; where only the size did, there are zeros. Of the last write
behind the end of a file there may be any beginning, as when its process was killed or the disk was full. (Real file
systems allow less; what holds here holds there.)
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.gateway.syscall_trace import Change, Content, Image, Name, Trace

SECTOR = 512


def strictest(trace: Trace) -> Image:
    """Return what is left at the end when everything is lost that was not synced."""
    volatile = {id(one) for one in trace.changes if one.durable is None}
    return _image(trace.changes, volatile, {})


def images(trace: Trace, extra: int, chance: random.Random) -> Iterator[tuple[int, str, Image]]:
    """Yield (moment, what was lost, image) for every moment; `extra` more of them with random losses."""
    for moment in sorted({change.begin + 1 for change in trace.changes} | {at + 1 for at, _ in trace.said}):
        begun = [change for change in trace.changes if change.begin < moment]
        volatile = [one for one in begun if one.durable is None or one.durable >= moment]
        for what, choice in _choices(volatile, extra, chance):
            yield moment, what, _image(begun, {id(one) for one in volatile}, choice)


Choice = Mapping[int, "bool | _Torn"]
"""By the identity of a volatile change, whether it reached the disk; those that are not named did not."""


@dataclass
class _Torn:
    """Of a write only these sectors, or this beginning, reached the disk; with `sized`, the size of all of it did."""

    sectors: frozenset[int] | None = None
    length: int = 0
    sized: bool = True


def _choices(volatile: Sequence[Change], extra: int, chance: random.Random) -> Iterator[tuple[str, Choice]]:
    everything: dict[int, bool | _Torn] = {id(one): True for one in volatile}
    yield "nothing", everything
    if not volatile:
        return
    yield "everything", {}
    yield "names", {id(one): isinstance(one, Content) for one in volatile}
    yield "contents", {id(one): isinstance(one, Name) for one in volatile}
    zeros = _Torn(frozenset())
    yield "all bytes", {id(one): zeros if isinstance(one, Content) else True for one in volatile}
    for one in volatile:
        yield "one", everything | {id(one): False}
        yield "all but one", {id(one): True}
    last = volatile[-1]
    if isinstance(last, Content) and not last.within:
        for length in (*range(1, 18), *range(20, len(last.data), 97), len(last.data) - 1):
            yield "the end of the last write", everything | {id(last): _Torn(None, length, sized=False)}
        yield "the bytes of the last write", everything | {id(last): zeros}
    for _ in range(extra):
        yield "anything", {id(one): _torn_at_random(one, chance) for one in volatile}


def _torn_at_random(one: Change, chance: random.Random) -> bool | _Torn:
    drawn = chance.random()
    if drawn < 0.4 or not isinstance(one, Content):
        return drawn < 0.2 or (drawn >= 0.4 and chance.random() < 0.5)
    if drawn < 0.6:
        return True
    sectors = range(one.offset // SECTOR, (one.offset + len(one.data)) // SECTOR + 1)
    return _Torn(frozenset(sector for sector in sectors if chance.random() < 0.5))


def _image(begun: Sequence[Change], volatile: Collection[int], choice: Choice) -> Image:
    files: dict[int, bytearray] = {}
    names: dict[str, int | None] = {}
    for change in begun:
        chosen = choice.get(id(change), id(change) not in volatile)
        if isinstance(change, Name):
            if chosen and change.gone:
                names.pop(change.path, None)
            elif chosen:
                names[change.path] = change.made
        elif isinstance(change, Content) and chosen:
            _apply(files.setdefault(change.file, bytearray()), change, chosen)
    return {
        path: bytes(files.get(number, b"")) if number is not None else None
        for path, number in sorted(names.items())
        if all(str(above) in names for above in Path(path).parents if str(above) != ".")
    }


def _apply(held: bytearray, change: Content, chosen: "bool | _Torn") -> None:
    if change.size is not None:
        del held[change.size :]
        held.extend(bytes(change.size - len(held)))
        return
    torn = chosen if isinstance(chosen, _Torn) else _Torn(None, len(change.data))
    data = change.data if torn.sectors is not None else change.data[: torn.length]
    end = change.offset + len(change.data if torn.sized else data)
    held.extend(bytes(max(0, end - len(held))))
    if torn.sectors is None:
        held[change.offset : change.offset + len(data)] = data
        return
    for sector in torn.sectors:
        start, stop = max(change.offset, sector * SECTOR), min(end, (sector + 1) * SECTOR)
        if start < stop:
            held[start:stop] = data[start - change.offset : stop - change.offset]
