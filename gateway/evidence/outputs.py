"""Two answers of a model held against each other, output by output: the largest difference, and whether one flips.

Belongs here: arithmetic on arrays. Never here: reading a body (that is a protocol's), or running a version.

An output *flips* when whoever acts on it would act otherwise: an integer, truth or text differs; of floats, the arg-max
of the last axis differs, or, where that axis has one element, a number differs by more than `CLOSE` of its size.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

CLOSE: Final = 1e-6
"""Two single floats that differ by no more than this share of the larger one come to the same."""

Output = tuple[str, str, NDArray[Any]]
"""Name, datatype of the protocol, values: integers of their type, numbers as float64 (null: NaN), texts as objects."""
ReadAnswer = Callable[[bytes], Sequence[Output]]
"""Returns the outputs of an answer's body. Raises `ValueError` when it is none of the protocol."""


class OutputDifference(Struct, frozen=True):
    """How two answers differ in one output. `one` and `other` are the values at `position`, where they differ most.

    `largest` is that difference as a number, None for truths and texts (then `position` is the first of them) and where
    no two numbers differ. `differing` counts the elements that are not equal; two NaN are. `flips` says why the output
    flips, empty when it does not; an output that is missing or of another shape flips and has no numbers.
    """

    name: str
    datatype: str
    elements: int = 0
    differing: int = 0
    largest: float | int | None = None
    position: tuple[int, ...] | None = None
    one: Any = None
    other: Any = None
    flips: str = ""


def compare_outputs(one: Sequence[Output], other: Sequence[Output]) -> tuple[OutputDifference, ...]:
    """Return how `other` differs from `one` in each output of `one`, in order; what only `other` gives is left out."""
    found = {name: (datatype, values) for name, datatype, values in other}
    return tuple(_compared(output, found.get(output[0])) for output in one)


def flipped(differences: Sequence[OutputDifference]) -> str:
    """Return which outputs flip and why, in words; empty when none does."""
    return "; ".join(f"output {one.name}: {one.flips}" for one in differences if one.flips)


def _compared(output: Output, other: tuple[str, NDArray[Any]] | None) -> OutputDifference:
    name, datatype, values = output
    if other is None:
        return OutputDifference(name, datatype, flips="the other answer does not give it")
    theirs, found = other
    if theirs != datatype:
        return OutputDifference(name, datatype, flips=f"its datatype {datatype} becomes {theirs}")
    if found.shape != values.shape:
        return OutputDifference(name, datatype, flips=f"its shape {_dims(values)} becomes {_dims(found)}")
    if values.dtype.kind == "f":
        return _floats(name, datatype, values, found)
    return _exact(name, datatype, values, found)


def _floats(name: str, datatype: str, one: NDArray[Any], other: NDArray[Any]) -> OutputDifference:
    equal = (one == other) | (np.isnan(one) & np.isnan(other))
    differing = int(one.size - np.count_nonzero(equal))
    if differing == 0:
        return OutputDifference(name, datatype, one.size)
    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.abs(one - other)
    # Where only one of the two is a number nothing can be farther apart.
    distances = np.where(equal, 0.0, np.where(np.isnan(distances), np.inf, distances))
    worst = int(np.argmax(distances))
    largest = float(distances.ravel()[worst])
    return OutputDifference(
        name=name,
        datatype=datatype,
        elements=one.size,
        differing=differing,
        largest=largest if np.isfinite(largest) else None,
        position=_place(one, worst),
        one=_plain(one, worst),
        other=_plain(other, worst),
        flips=_flip_of_floats(one, other, equal, distances),
    )


def _flip_of_floats(one: NDArray[Any], other: NDArray[Any], equal: NDArray[Any], distances: NDArray[Any]) -> str:
    if one.ndim and one.shape[-1] > 1:
        ours, theirs = np.argmax(one, axis=-1).ravel(), np.argmax(other, axis=-1).ravel()
        turned = np.flatnonzero(ours != theirs)
        if not turned.size:
            return ""
        row = int(turned[0])
        more = f", and of {turned.size - 1} more rows" if turned.size > 1 else ""
        return f"the largest of its last axis moves from {ours[row]} to {theirs[row]} (row {row}{more})"
    size = np.maximum(np.abs(one), np.abs(other))
    apart = ~equal & ~(distances <= CLOSE * np.where(np.isnan(size), 0.0, size))
    if not apart.any():
        return ""
    first = int(np.argmax(apart))
    return f"{_shown(_plain(one, first))} becomes {_shown(_plain(other, first))}"


def _exact(name: str, datatype: str, one: NDArray[Any], other: NDArray[Any]) -> OutputDifference:
    places = np.flatnonzero((one != other).ravel())
    if not places.size:
        return OutputDifference(name, datatype, one.size)
    worst, largest = int(places[0]), None
    if one.dtype.kind in "iu":
        # As Python's integers, which do not overflow.
        left, right = one.ravel()[places].tolist(), other.ravel()[places].tolist()
        apart = [abs(ours - theirs) for ours, theirs in zip(left, right, strict=True)]
        largest = max(apart)
        worst = int(places[apart.index(largest)])
    mine, yours = _plain(one, worst), _plain(other, worst)
    return OutputDifference(
        name=name,
        datatype=datatype,
        elements=one.size,
        differing=int(places.size),
        largest=largest,
        position=_place(one, worst),
        one=mine,
        other=yours,
        flips=f"{_shown(mine)} becomes {_shown(yours)}",
    )


def _place(array: NDArray[Any], flat: int) -> tuple[int, ...]:
    return tuple(int(axis) for axis in np.unravel_index(flat, array.shape))


def _plain(array: NDArray[Any], flat: int) -> Any:
    """Return one element as JSON has it; what is no number is None."""
    value = array.ravel()[flat]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else _cut(value)


def _cut(value: Any) -> Any:
    return value if not isinstance(value, str) or len(value) <= 200 else value[:200] + "…"


def _shown(value: Any) -> str:
    return "no number" if value is None else json.dumps(value, ensure_ascii=False)


def _dims(array: NDArray[Any]) -> str:
    return f"[{','.join(map(str, array.shape))}]"
