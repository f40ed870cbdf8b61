"""Arrays to an answer's JSON and back, and bodies that nobody would think of."""

import json
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as numpy_st
from numpy.typing import NDArray

from gateway.catalog import Signature, TensorSpec
from gateway.errors import RequestError
from gateway.protocols.oip_v2 import OipV2
from tests.fuzzing import fuzzed

PROTOCOL = OipV2()
SHAPES = numpy_st.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NUMERIC = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


def _decode(tensor: dict[str, Any], datatype: str, rank: int) -> NDArray[Any]:
    spec = Signature("p", (TensorSpec("x", datatype, (-1,) * rank),), ())
    return PROTOCOL.decode(json.dumps({"inputs": [tensor]}).encode(), spec).inputs["x"]


@given(st.data(), st.sampled_from(sorted(NUMERIC)), SHAPES)
@fuzzed(300)
def test_what_encode_writes_decode_reads_for_every_number(data: st.DataObject, datatype: str, shape: Any) -> None:
    kind = np.dtype(NUMERIC[datatype]).kind
    elements = {"allow_nan": False, "allow_infinity": False} if kind == "f" else None
    array = data.draw(numpy_st.arrays(NUMERIC[datatype], shape, elements=elements))
    answer = json.loads(PROTOCOL.encode("m", "1", None, [("x", datatype, array)]))
    (output,) = answer["outputs"]
    assert output["shape"] == list(shape)
    back = _decode(output, datatype, len(shape))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()  # to the last bit, minus zero included


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=6))
@fuzzed(100)
def test_what_encode_writes_decode_reads_for_strings(strings: list[str]) -> None:
    array = np.array(strings, dtype=object)
    (output,) = json.loads(PROTOCOL.encode("m", "1", None, [("x", "BYTES", array)]))["outputs"]
    assert _decode(output, "BYTES", 1).tolist() == strings


def test_an_answer_has_the_fields_of_the_protocol_and_echoes_the_id_untouched() -> None:
    outputs = [("label", "INT64", np.array([3])), ("score", "FP32", np.array([[0.1, 0.25]], dtype=np.float32))]
    assert PROTOCOL.encode("m", "1", ' é"', outputs).decode() == (
        '{"model_name":"m","model_version":"1","id":" é\\"","outputs":['
        '{"name":"label","datatype":"INT64","shape":[1],"data":[3]},'
        '{"name":"score","datatype":"FP32","shape":[1,2],"data":[0.1,0.25]}]}'
    )


def test_the_id_is_left_out_when_there_was_none_and_kept_when_it_is_empty() -> None:
    assert "id" not in json.loads(PROTOCOL.encode("m", "1", None, []))
    assert json.loads(PROTOCOL.encode("m", "1", "", []))["id"] == ""


def test_nan_and_infinities_become_null() -> None:
    array = np.array([math.nan, math.inf, -math.inf, 1.0])
    (output,) = json.loads(PROTOCOL.encode("m", "1", None, [("x", "FP64", array)]))["outputs"]
    assert output["data"] == [None, None, None, 1.0]


def test_an_array_in_another_memory_order_is_written_row_by_row() -> None:
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    (output,) = json.loads(PROTOCOL.encode("m", "1", None, [("x", "INT32", array)]))["outputs"]
    assert (output["shape"], output["data"]) == ([3, 2], [0, 3, 1, 4, 2, 5])


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(width=32) | st.text(max_size=4)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", "b", "z"]) | VALUES,
        "shape": st.lists(st.integers(-2, 4) | VALUES, max_size=4) | VALUES,
        "datatype": st.sampled_from(["FP16", "UINT8", "FP32", "nope"]) | VALUES,
        "data": VALUES,
        "parameters": st.none() | st.dictionaries(st.sampled_from(["binary_data_size", "x"]), VALUES) | VALUES,
    },
)
BODIES = st.fixed_dictionaries(
    {"inputs": st.lists(FIELDS, max_size=3) | VALUES},
    optional={
        "id": VALUES,
        "outputs": st.lists(st.fixed_dictionaries({"name": VALUES})) | VALUES,
        "parameters": VALUES,
    },
)
ANY_SIGNATURE = Signature(
    "p",
    (TensorSpec("a", "FP16", (-1, -1), ("n", "n")), TensorSpec("b", "UINT8", (-1,), ("n",))),
    (TensorSpec("y", "FP32", (-1,)),),
)


def _decode_or_refuse(body: bytes) -> None:
    """Fail when anything but a RequestError comes out, or an array that is not the signature's."""
    try:
        tensors = PROTOCOL.decode(body, ANY_SIGNATURE)
    except RequestError as error:
        refused = PROTOCOL.render_error(error)
    else:
        assert tensors.inputs["a"].dtype == np.float16
        assert tensors.inputs["b"].dtype == np.uint8
        assert tensors.inputs["a"].shape == (tensors.inputs["b"].size,) * 2
        return
    assert refused.status in {400, 415}
    assert len(json.loads(refused.body)["error"]) > 10


@given(BODIES)
@fuzzed(500)
def test_a_body_of_nearly_the_right_form_is_decoded_or_refused(body: Any) -> None:
    _decode_or_refuse(json.dumps(body).encode())


VALID = (
    b'{"id":"r","inputs":[{"name":"a","shape":[2,2],"datatype":"FP16","data":[[1,2.5],[3,-4e2]]},'
    b'{"name":"b","shape":[2],"datatype":"UINT8","data":[0,255]}],"outputs":[{"name":"y"}]}'
)


@given(st.integers(0, len(VALID)), st.integers(0, 3), st.binary(max_size=4))
@fuzzed(500)
def test_a_body_with_a_few_bytes_changed_is_decoded_or_refused(start: int, removed: int, put: bytes) -> None:
    _decode_or_refuse(VALID[:start] + put + VALID[start + removed :])


@given(st.binary(max_size=64))
@fuzzed(100)
def test_any_bytes_at_all_are_decoded_or_refused(body: bytes) -> None:
    _decode_or_refuse(body)


def test_the_body_that_the_others_are_made_from_is_itself_decoded() -> None:
    assert PROTOCOL.decode(VALID, ANY_SIGNATURE).inputs["a"].tolist() == [[1, 2.5], [3, -400]]


@pytest.mark.parametrize("depth", [50, 900, 1_100, 200_000])
@pytest.mark.parametrize("place", ["data", "shape", "extra"])
def test_nested_arrays_of_any_depth_are_refused_and_never_break_the_decoder(depth: int, place: str) -> None:
    nested = b"[" * depth + b"]" * depth
    tensor = b'{"name":"a","datatype":"FP16","shape":[1,1],"data":[1],"' + place.encode() + b'":' + nested + b"}"
    _decode_or_refuse(b'{"inputs":[' + tensor + b',{"name":"b","shape":[1],"datatype":"UINT8","data":[1]}]}')
