"""The datatypes of the Open Inference Protocol v2: what one element is in JSON and in numpy, and the words for it.

Belongs here: one datatype, one element. Never here: shapes, tensors, bodies.
"""

import sys
from functools import cache
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import orjson
from msgspec import Meta, Struct
from numpy.typing import DTypeLike

Family = Literal["boolean", "integer", "number", "string"]
_SHOWN_CHARACTERS = 40
_SHOWN_BITS = 128


class Kind(Struct, frozen=True):
    """One datatype. Integers lie in [low, high]; numbers are finite and lie strictly between low and high."""

    dtype: np.dtype[Any]
    family: Family
    low: float = 0
    high: float = 0

    @property
    def words(self) -> str:
        """What an element has to be, for a message."""
        if self.family == "integer":
            return f"an integer from {self.low} to {self.high}"
        if self.family == "number":
            return f"a number from -{np.finfo(self.dtype).max} to {np.finfo(self.dtype).max}"
        return "true or false" if self.family == "boolean" else "a string"

    @property
    def element(self) -> Any:
        """The type that msgspec decodes an element as, bounds included as far as msgspec takes them."""
        if self.family == "integer":
            if self.high > np.iinfo(np.int64).max:  # msgspec's bounds end at int64; numpy refuses what is above
                return Annotated[int, Meta(ge=0)]
            return Annotated[int, Meta(ge=int(self.low), le=int(self.high))]
        if self.family == "number":
            return float if self.high > sys.float_info.max else Annotated[float, Meta(gt=self.low, lt=self.high)]
        return bool if self.family == "boolean" else str

    def accepts(self, value: Any) -> bool:
        """Tell whether a decoded JSON value is an element of this datatype."""
        kind = type(value)
        if self.family == "integer":
            return kind is int and self.low <= value <= self.high
        if self.family == "number":
            return kind in {int, float} and self.low < value < self.high
        return kind is (bool if self.family == "boolean" else str)


def _integer(dtype: type[np.signedinteger[Any]] | type[np.unsignedinteger[Any]]) -> Kind:
    limits = np.iinfo(dtype)
    return Kind(np.dtype(dtype), "integer", int(limits.min), int(limits.max))


def _number(dtype: DTypeLike, bound: float) -> Kind:
    return Kind(np.dtype(dtype), "number", -bound, bound)


KINDS: Final[dict[str, Kind]] = {
    "BOOL": Kind(np.dtype(np.bool_), "boolean"),
    "INT8": _integer(np.int8),
    "INT16": _integer(np.int16),
    "INT32": _integer(np.int32),
    "INT64": _integer(np.int64),
    "UINT8": _integer(np.uint8),
    "UINT16": _integer(np.uint16),
    "UINT32": _integer(np.uint32),
    "UINT64": _integer(np.uint64),
    # The bounds are half a unit in the last place above the largest value: below them a number rounds to a finite one.
    "FP16": _number(np.float16, 65_520.0),
    "FP32": _number(np.float32, (2 - 2**-24) * 2.0**127),
    "FP64": _number(np.float64, 2**1024 - 2**970),
    "BYTES": Kind(np.dtype(np.object_), "string"),
}
"""Every datatype of the protocol that can stand in JSON, by its name."""


def shown(value: Any) -> str:
    """Return a decoded JSON value for a message: short, and as it stood in the body."""
    if isinstance(value, list):
        return "an array"
    if isinstance(value, dict):
        return "an object"
    if type(value) is int:
        return str(value) if value.bit_length() <= _SHOWN_BITS else "a huge integer"
    text = orjson.dumps(value).decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


@cache  # at most one decoder for each datatype and each rank of a signature
def decoder(datatype: str, depth: int) -> msgspec.json.Decoder[list[Any]]:
    """Return what decodes the data of a tensor, in lists nested `depth` deep."""
    nested: Any = KINDS[datatype].element
    for _ in range(depth):
        nested = list[nested]
    return msgspec.json.Decoder(nested)
