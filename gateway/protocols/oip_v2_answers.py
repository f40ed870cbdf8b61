"""Answers of the Open Inference Protocol v2 read back: the body of a reply to arrays, for whoever compares two of them.

Belongs here: the outputs of an answer that is in JSON. Never here: requests, or what a difference means.
"""

import math
from functools import cache
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType
from numpy.typing import NDArray

from gateway.protocols.oip_v2_kinds import KINDS, Kind

_ELEMENTS: Final[dict[str, Any]] = {"boolean": bool, "integer": int, "number": float | None, "string": str}


class _Tensor(Struct):
    name: str
    datatype: str
    shape: list[int]
    data: Raw | UnsetType = UNSET


class _Answer(Struct):
    outputs: list[_Tensor]


_decode = msgspec.json.Decoder(_Answer).decode


def read_answer(body: bytes) -> list[tuple[str, str, NDArray[Any]]]:
    """Return (name, datatype, values) of every output, flat or nested in the body, in its order.

    Integers are of their datatype, numbers float64 with NaN for null, texts and truths as they are.

    Raises:
        ValueError: the body is no answer in JSON; the message says what of it is not.
    """
    try:
        answer = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the answer is not the protocol's JSON: {error}") from None
    return [(tensor.name, tensor.datatype, _values(tensor)) for tensor in answer.outputs]


def _values(tensor: _Tensor) -> NDArray[Any]:
    kind = KINDS.get(tensor.datatype)
    if kind is None:
        raise ValueError(f"output {tensor.name} has the unknown datatype {tensor.datatype}")
    if tensor.data is UNSET:
        raise ValueError(f"output {tensor.name} has no data in the JSON")
    flat = _flat(tensor.name, tensor.data, kind, len(tensor.shape))
    if any(side < 0 for side in tensor.shape) or flat.size != math.prod(tensor.shape):
        raise ValueError(f"output {tensor.name} has {flat.size} elements, which are not those of its shape")
    return flat.reshape(tensor.shape)


def _flat(name: str, data: Raw, kind: Kind, rank: int) -> NDArray[Any]:
    dtype = np.dtype(np.float64) if kind.family == "number" else kind.dtype
    complaint = ""
    for depth in {1, rank} - {0}:
        try:
            return np.array(_decoder(kind.family, depth).decode(data), dtype).ravel()
        except (ValueError, OverflowError) as error:
            complaint = str(error)
    raise ValueError(f"output {name} has data that does not fit its datatype: {complaint}")


@cache
def _decoder(family: str, depth: int) -> msgspec.json.Decoder[Any]:
    nested: Any = _ELEMENTS[family]
    for _ in range(depth):
        nested = list[nested]
    return msgspec.json.Decoder(nested)
