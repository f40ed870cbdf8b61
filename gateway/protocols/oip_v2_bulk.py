"""Large tensors of numbers in JSON, read in pieces, so that memory follows the array and not its text.

Belongs here: one large `data` field to one flat array. Never here: strings, names, shapes beyond their nesting.

A list of Python floats takes sixteen times the memory of the text `1,1,1,…`; a body of 64 MiB would take gigabytes.
The text has been checked to be JSON before it comes here, so it may be cut at commas, and its nesting is compared
with that of the shape as a whole: both without a Python object for each element. Between two pieces other threads
get their turn.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from gateway.errors import InvalidInput
from gateway.protocols.oip_v2_kinds import Kind, shown

_PIECE_BYTES = 64 * 1024
_SPACE_AND_NESTING = b"[] \t\n\r"
_NO_SKELETON = bytes(byte for byte in range(256) if byte not in b"[],")


def read_bulk(
    text: bytes, kind: Kind, decode: Callable[[bytes], list[Any]], shape: Sequence[int], path: str
) -> NDArray[Any]:
    """Return the elements of a JSON value, flat; their number is the text's own.

    `text` is JSON; nested arrays in it must be those of `shape`. `decode` reads one flat array of the kind.

    Raises:
        InvalidInput: no array, nested in another way, or an element does not fit; the message begins with `path`.
    """
    if not text.startswith(b"["):
        raise InvalidInput(f"{path}: expected an array")
    if b'"' in text or b"{" in text:
        raise InvalidInput(f"{path}: expected only elements that are {kind.words}, got strings or objects among them")
    flat = text.translate(None, _SPACE_AND_NESTING)
    flat = flat if flat.strip(b",") else b""  # of empty arrays beside each other, only the commas between them
    count = flat.count(b",") + 1 if flat else 0
    _check_nesting(text.translate(None, _NO_SKELETON), count, shape, path)
    array = np.empty(count, kind.dtype)
    start = filled = 0
    while start < len(flat):
        end = flat.find(b",", start + _PIECE_BYTES)
        end = len(flat) if end < 0 else end
        piece = b"[" + flat[start:end] + b"]"
        try:
            part = np.array(decode(piece), kind.dtype)
        except (ValueError, OverflowError):
            raise _misfit(piece, kind, filled, path) from None
        array[filled : filled + part.size] = part
        filled += part.size
        start = end + 1
    return array


def _check_nesting(skeleton: bytes, count: int, shape: Sequence[int], path: str) -> None:
    """Check what is left of the text without its elements: `[,,]` for three of them, `[[,],[,]]` for two by two."""
    if skeleton == _row(b"", max(count, 1)):
        return
    wanted = b""
    outer = shape[:-1]
    # What is made from the shape is never much longer than the text. An empty array is nested down to its last side.
    if math.prod(shape) == count and all(outer) and math.prod(outer) <= len(skeleton):
        for size in reversed(shape):
            wanted = _row(wanted, size)
    if skeleton != wanted:
        sides = "×".join(shown(size) for size in shape[:16])
        raise InvalidInput(f"{path}: expected a flat array, or nested arrays of {sides} elements")


def _row(element: bytes, size: int) -> bytes:
    return b"[" + (element + b",") * (size - 1) + element + b"]"


def _misfit(piece: bytes, kind: Kind, before: int, path: str) -> InvalidInput:
    """Return the error for the first element of a piece that does not fit; `before` elements came earlier."""
    try:
        values = msgspec.json.decode(piece)
    except msgspec.DecodeError:  # a number that Python does not have
        values = []
    for index, value in enumerate(values, before):
        if not kind.accepts(value):
            return InvalidInput(f"{path}[{index}]: expected {kind.words}, got {shown(value)}")
    return InvalidInput(f"{path}: expected elements that are {kind.words}, got one that is not, after {before}")
