"""The tensors of the Open Inference Protocol v2 in JSON: strict JSON to numpy arrays of a signature, and back.

Belongs here: shapes, data, and the words for what does not fit. Never here: ids, paths, statuses.

Decoding goes from the text to typed Python values in one pass (msgspec checks every element in C) and from there to
numpy. Nothing is allocated from a shape that a caller claims: a shape is only ever compared. Messages are made in a
second, slow pass that runs for refused requests only.
"""

import math
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET, Raw
from numpy.typing import NDArray

from gateway.catalog import Signature, TensorSpec
from gateway.errors import InvalidInput, UnsupportedEncoding
from gateway.protocols.oip_v2_bodies import InputParameters, InputTensor
from gateway.protocols.oip_v2_bulk import read_bulk
from gateway.protocols.oip_v2_kinds import KINDS, Kind, decoder, shown

_SHOWN_DIMENSIONS: Final = 16
_BULK_BYTES = 2**20
_LARGEST_EMPTY: Final = 2**20
"""An empty tensor needs no data, so its other dimensions are bounded here: a model may allocate from them."""
_PLACE: Final = re.compile(r" - at `\$(?P<place>[^`]*)`$")
_SEND_JSON: Final = "send the tensor as JSON in `data` (in tritonclient and KServe: binary_data=False)"


def read_inputs(tensors: Sequence[InputTensor], signature: Signature) -> dict[str, NDArray[Any]]:
    """Return the arrays of a request by name, each of the dtype and shape of the signature.

    Raises:
        InvalidInput: an input is unknown, missing, given twice or does not fit; the message begins with its path.
        UnsupportedEncoding: the data is not in the JSON.
    """
    wanted = {spec.name: spec for spec in signature.inputs}
    arrays: dict[str, NDArray[Any]] = {}
    sizes: dict[str, tuple[int, str]] = {}
    for index, tensor in enumerate(tensors):
        spec = wanted.get(tensor.name)
        if spec is None:
            known = names_of(signature.inputs)
            raise InvalidInput(f"inputs[{index}].name: unknown input {shown(tensor.name)}; this version takes {known}")
        if tensor.name in arrays:
            raise InvalidInput(f"inputs[{index}].name: input {shown(tensor.name)} stands twice")
        if tensor.parameters is not None:
            _check_parameters(tensor.parameters, index)
        _check_shape(tensor, spec, index, sizes)
        arrays[tensor.name] = _read_data(tensor, spec, index)
    for name in wanted:
        if name not in arrays:
            raise InvalidInput(f"inputs: missing input {shown(name)}")
    return arrays


def write_data(array: NDArray[Any]) -> Any:
    """Return an array as orjson takes it: flat and row-major; NaN and infinities become null, strings stay strings."""
    flat = array.ravel()
    return flat.tolist() if flat.dtype == np.object_ else flat


def names_of(specs: Sequence[TensorSpec]) -> str:
    """Return the names of tensors for a message."""
    return ", ".join(shown(spec.name) for spec in specs) or "none"


def _check_parameters(parameters: InputParameters, index: int) -> None:
    for name in ("binary_data_size", "shared_memory_region"):
        if getattr(parameters, name) is not UNSET:
            raise UnsupportedEncoding(f"inputs[{index}].parameters.{name}: not spoken here; {_SEND_JSON}")


def _check_shape(tensor: InputTensor, spec: TensorSpec, index: int, sizes: dict[str, tuple[int, str]]) -> None:
    if tensor.datatype != spec.datatype:
        known = "" if tensor.datatype in KINDS else f" (known are {', '.join(KINDS)})"
        raise InvalidInput(f"inputs[{index}].datatype: expected {spec.datatype}, got {shown(tensor.datatype)}{known}")
    shape = tensor.shape
    if len(shape) != len(spec.shape):
        raise _wrong_shape(tensor, spec, index)
    for axis, wanted in enumerate(spec.shape):
        size = shape[axis]
        if size < 0:
            raise InvalidInput(f"inputs[{index}].shape[{axis}]: expected a size of 0 or more, got {shown(size)}")
        if wanted >= 0 and size != wanted:
            raise _wrong_shape(tensor, spec, index)
    for axis, symbol in enumerate(spec.symbols):
        if symbol is not None:
            path = f"inputs[{index}].shape[{axis}]"
            first, place = sizes.setdefault(symbol, (shape[axis], path))
            if shape[axis] != first:
                words = f"expected {first} as in {place} (both are {shown(symbol)}), got {shape[axis]}"
                raise InvalidInput(f"{path}: {words}")


def _wrong_shape(tensor: InputTensor, spec: TensorSpec, index: int) -> InvalidInput:
    return InvalidInput(f"inputs[{index}].shape: expected {_dims(spec.shape)}, got {_dims(tensor.shape)}")


def _dims(shape: Sequence[int]) -> str:
    more = ",…" if len(shape) > _SHOWN_DIMENSIONS else ""
    return f"[{','.join(shown(size) for size in shape[:_SHOWN_DIMENSIONS])}{more}]"


def _read_data(tensor: InputTensor, spec: TensorSpec, index: int) -> NDArray[Any]:
    """Return the array; the shape has been checked against the signature, not yet against the data."""
    data, shape, kind = tensor.data, tensor.shape, KINDS[spec.datatype]
    if data is UNSET:
        raise InvalidInput(f"inputs[{index}].data: required field is missing; {_SEND_JSON}")
    if kind.family != "string" and memoryview(data).nbytes > _BULK_BYTES:
        flat = read_bulk(bytes(data), kind, decoder(spec.datatype, 1).decode, shape, f"inputs[{index}].data")
        _check_count(flat.size, shape, index)
        return flat.reshape(shape)
    try:
        values, depth = _decode(data, spec.datatype, len(shape))
        array = np.array(values, kind.dtype)
    except (ValueError, OverflowError):  # msgspec's and numpy's complaints are both ValueErrors
        raise _explain(data, kind, shape, f"inputs[{index}].data") from None
    if depth == 1:
        _check_count(array.size, shape, index)
        return array.reshape(shape)
    if list(array.shape) != shape:
        raise _explain(data, kind, shape, f"inputs[{index}].data")
    return array


def _check_count(size: int, shape: Sequence[int], index: int) -> None:
    count = math.prod(shape)
    if size != count:
        wanted = f"{count} element{'s' * (count != 1)}" if count <= sys.maxsize else "more elements than fit anywhere"
        raise InvalidInput(f"inputs[{index}].data: expected {wanted} for shape {_dims(shape)}, got {size}")
    if count == 0 and math.prod(side or 1 for side in shape) > _LARGEST_EMPTY:
        raise InvalidInput(f"inputs[{index}].shape: {_dims(shape)} is an empty tensor of an absurd shape")


def _decode(data: Raw, datatype: str, rank: int) -> tuple[list[Any], int]:
    """Return typed values and how deep their lists are nested: 1 for flat, else `rank`."""
    try:
        return decoder(datatype, 1).decode(data), 1
    except msgspec.ValidationError:
        if rank < 2:
            raise
        return decoder(datatype, rank).decode(data), rank


def _explain(data: Raw, kind: Kind, shape: Sequence[int], path: str) -> InvalidInput:
    """Return the error that names the first element that does not fit; slow, for refused requests only."""
    if memoryview(data).nbytes > _BULK_BYTES:
        return InvalidInput(
            f"{path}: expected an array of elements that are {kind.words}, flat or of shape {_dims(shape)}"
        )
    try:
        value = msgspec.json.decode(data)
    except msgspec.ValidationError as error:  # the one thing wrong with any JSON value: a number that Python has not
        place = _PLACE.search(str(error))
        return InvalidInput(f"{path}{place['place'] if place else ''}: expected {kind.words}, got a huge number")
    if not isinstance(value, list):
        return InvalidInput(f"{path}: expected an array, got {shown(value)}")
    nested = len(shape) > 1 and bool(value) and isinstance(value[0], list)
    complaint = next(_misfits(value, shape if nested else [len(value)], kind, path), None)
    return InvalidInput(complaint or f"{path}: does not fit shape {_dims(shape)}")


def _misfits(value: list[Any], shape: Sequence[int], kind: Kind, path: str) -> Iterator[str]:
    """Yield what is wrong with a nested array, in the order of the text."""
    if len(value) != shape[0]:
        yield f"{path}: expected an array of {shape[0]}, got {len(value)} elements"
    for index, element in enumerate(value):
        place = f"{path}[{index}]"
        if len(shape) > 1:
            if isinstance(element, list):
                yield from _misfits(element, shape[1:], kind, place)
            else:
                yield f"{place}: expected an array, got {shown(element)}"
        elif not kind.accepts(element):
            yield f"{place}: expected {kind.words}, got {shown(element)}"
