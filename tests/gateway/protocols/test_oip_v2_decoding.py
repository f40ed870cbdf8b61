"""Bodies of the Open Inference Protocol v2 to tensors: what fits, and the words for what does not."""

import json
from typing import Any

import numpy as np
import pytest

from gateway.catalog import Signature, TensorSpec
from gateway.errors import InvalidInput, MalformedBody, UnsupportedEncoding
from gateway.protocols.oip_v2 import OipV2

PROTOCOL = OipV2()
PIXELS = Signature(
    "onnx_onnxv1",
    (TensorSpec("pixels", "FP32", (-1, 4)),),
    (TensorSpec("label", "INT64", (-1,)), TensorSpec("score", "FP32", (-1,))),
)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature("onnx_onnxv1", inputs, (TensorSpec("out", "FP32", (-1,)),))


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def pixels(**changed: Any) -> dict[str, Any]:
    return {"name": "pixels", "shape": [1, 4], "datatype": "FP32", "data": [0, 1.5, 2, 3], **changed}


def named(part: object) -> str:
    """Name a case by the words it expects; bodies are too long for that."""
    return part[:60] if isinstance(part, str) else ""


def refusal(given: bytes, spec: Signature = PIXELS) -> str:
    with pytest.raises((InvalidInput, MalformedBody)) as caught:
        PROTOCOL.decode(given, spec)
    return caught.value.message


DTYPES = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "object",
}


@pytest.mark.parametrize(("datatype", "dtype"), DTYPES.items())
def test_each_datatype_becomes_its_numpy_dtype(datatype: str, dtype: str) -> None:
    special: dict[str, list[Any]] = {"BOOL": [True, False], "BYTES": ["é", ""]}
    data = special.get(datatype, [1, 0])
    spec = signature(TensorSpec("x", datatype, (-1,)))
    given = PROTOCOL.decode(body({"name": "x", "shape": [2], "datatype": datatype, "data": data}), spec).inputs["x"]
    assert given.dtype == np.dtype(dtype)
    assert given.tolist() == data


def test_flat_and_nested_data_give_the_same_array() -> None:
    spec = signature(TensorSpec("x", "INT32", (-1, 2, 3)))
    flat = {"name": "x", "shape": [1, 2, 3], "datatype": "INT32", "data": [1, 2, 3, 4, 5, 6]}
    nested = {**flat, "data": [[[1, 2, 3], [4, 5, 6]]]}
    one, other = (PROTOCOL.decode(body(tensor), spec).inputs["x"] for tensor in (flat, nested))
    assert one.shape == other.shape == (1, 2, 3)
    assert one.tolist() == other.tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_a_scalar_input_takes_one_element() -> None:
    spec = signature(TensorSpec("x", "INT64", ()))
    given = PROTOCOL.decode(body({"name": "x", "shape": [], "datatype": "INT64", "data": [7]}), spec).inputs["x"]
    assert given.shape == ()
    assert int(given) == 7


@pytest.mark.parametrize(("shape", "data"), [([0, 4], []), ([2, 0], []), ([2, 0], [[], []])])
def test_an_empty_tensor_is_taken(shape: list[int], data: list[Any]) -> None:
    spec = signature(TensorSpec("x", "FP32", (-1, -1)))
    given = PROTOCOL.decode(body({"name": "x", "shape": shape, "datatype": "FP32", "data": data}), spec).inputs["x"]
    assert list(given.shape) == shape


def test_extensions_and_nulls_of_optional_fields_are_ignored() -> None:
    tensor = pixels(parameters={"content_type": "np"}, extra=[1])
    more = {"id": None, "outputs": None, "parameters": {"binary_data_output": True}, "model_name": "m", "x": {"y": 1}}
    tensors = PROTOCOL.decode(body(tensor, **more), PIXELS)
    assert tensors.oip_id is None
    assert tensors.outputs == ()


def test_requested_outputs_keep_their_order_and_may_ask_for_binary_data() -> None:
    outputs = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "label"}]
    tensors = PROTOCOL.decode(body(pixels(), outputs=outputs, id="r-1"), PIXELS)
    assert tensors.outputs == ("score", "label")
    assert tensors.oip_id == "r-1"


SIZES = signature(TensorSpec("a", "UINT8", (-1, 2), ("batch", None)), TensorSpec("b", "BYTES", (-1,), ("batch",)))
MAX = "3.4028234663852886e+38"
A: dict[str, Any] = {"name": "a", "shape": [1, 2], "datatype": "UINT8", "data": [1, 2]}
B: dict[str, Any] = {"name": "b", "shape": [1], "datatype": "BYTES", "data": ["x"]}


def test_symbolic_dimensions_that_agree_are_taken() -> None:
    assert set(PROTOCOL.decode(body(A, B), SIZES).inputs) == {"a", "b"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (body(pixels(name="pixel")), 'inputs[0].name: unknown input "pixel"; this version takes "pixels"'),
        (body(pixels(), pixels()), 'inputs[1].name: input "pixels" stands twice'),
        (body(), 'inputs: missing input "pixels"'),
        (body(pixels(datatype="INT64")), 'inputs[0].datatype: expected FP32, got "INT64"'),
        (body(pixels(datatype="FLOAT")), 'inputs[0].datatype: expected FP32, got "FLOAT" (known are BOOL, INT8'),
        (body(pixels(shape=[1, 3])), "inputs[0].shape: expected [-1,4], got [1,3]"),
        (body(pixels(shape=[4])), "inputs[0].shape: expected [-1,4], got [4]"),
        (body(pixels(shape=[1] * 40)), "inputs[0].shape: expected [-1,4], got [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,…]"),
        (body(pixels(shape=[-1, 4])), "inputs[0].shape[0]: expected a size of 0 or more, got -1"),
        (body(pixels(shape=[2, 4])), "inputs[0].data: expected 8 elements for shape [2,4], got 4"),
        (body(pixels(shape=[2**62, 4])), "inputs[0].data: expected more elements than fit anywhere for"),
        (body(pixels(shape=[10**4000, 4])), "inputs[0].data: expected more elements than fit anywhere for"),
        (body(pixels(data=[])), "inputs[0].data: expected 4 elements for shape [1,4], got 0"),
        (body(pixels(data=[1, 2, "x", 4])), f'inputs[0].data[2]: expected a number from -{MAX} to {MAX}, got "x"'),
        (body(pixels(data=[1, 2, None, 4])), "inputs[0].data[2]: expected a number from"),
        (body(pixels(data=[1, True, 3, 4])), "inputs[0].data[1]: expected a number from"),
        (body(pixels(data=[1, 2, 3, 1e39])), "inputs[0].data[3]: expected a number from"),
        (body(pixels(data=[[1, 2, 3, "x"]])), "inputs[0].data[0][3]: expected a number from"),
        (body(pixels(data=[[1, 2, 3]])), "inputs[0].data[0]: expected an array of 4, got 3 elements"),
        (body(pixels(data=[[1, 2, 3, 4], [5]])), "inputs[0].data: expected an array of 1, got 2 elements"),
        (body(pixels(data=[[1, 2, 3, [4]]])), "inputs[0].data[0][3]: expected a number from"),
        (body(pixels(data=[[[1, 2, 3, 4]]])), "inputs[0].data[0]: expected an array of 4, got 1 element"),
        (body(pixels(data=[1, [2], 3, 4])), "inputs[0].data[1]: expected a number from"),
        (body(pixels(data=None)), "inputs[0].data: expected an array, got null"),
        (body(pixels(data="AAAA")), 'inputs[0].data: expected an array, got "AAAA"'),
        (body(pixels(data={})), "inputs[0].data: expected an array, got an object"),
        (body(pixels()).replace(b"1.5", b"1e999"), "inputs[0].data[1]: expected a number from"),
        (body(pixels()).replace(b"1.5", b"9" * 500), "inputs[0].data[1]: expected a number from"),
        (body(pixels()).replace(b"1.5", b"9" * 5000), "inputs[0].data[1]: expected a number from"),
        (
            body(pixels(), outputs=[{"name": "x"}]),
            'outputs[0].name: unknown output "x"; this version gives "label", "score"',
        ),
        (body(pixels(), outputs=[{"name": "label"}] * 2), 'outputs[1].name: output "label" stands twice'),
    ],
    ids=named,
)
def test_a_tensor_that_does_not_fit_is_refused_with_the_path_of_the_field(given: bytes, words: str) -> None:
    assert refusal(given).startswith(words)


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ({"data": [1, 300]}, {}, "inputs[0].data[1]: expected an integer from 0 to 255, got 300"),
        ({"data": [1, -1]}, {}, "inputs[0].data[1]: expected an integer from 0 to 255, got -1"),
        ({"data": [1, 1.0]}, {}, "inputs[0].data[1]: expected an integer from 0 to 255, got 1.0"),
        ({"data": [1, 1.5]}, {}, "inputs[0].data[1]: expected an integer from 0 to 255, got 1.5"),
        ({"data": [True, 1]}, {}, "inputs[0].data[0]: expected an integer from 0 to 255, got true"),
        ({"data": [1, 10**60]}, {}, "inputs[0].data[1]: expected an integer from 0 to 255, got a huge integer"),
        ({}, {"data": [1]}, "inputs[1].data[0]: expected a string, got 1"),
        ({}, {"data": [["x"]]}, "inputs[1].data[0]: expected a string, got an array"),
        (
            {},
            {"shape": [2], "data": ["x", "y"]},
            'inputs[1].shape[0]: expected 1 as in inputs[0].shape[0] (both are "batch"), got 2',
        ),
    ],
    ids=named,
)
def test_integers_strings_and_symbols_are_strict(a: dict[str, Any], b: dict[str, Any], words: str) -> None:
    assert refusal(body({**A, **a}, {**B, **b}), SIZES).startswith(words)


@pytest.mark.parametrize(
    ("datatype", "good", "bad"),
    [
        ("INT8", [-128, 127], [-129, 128]),
        ("INT16", [-(2**15), 2**15 - 1], [-(2**15) - 1, 2**15]),
        ("INT32", [-(2**31), 2**31 - 1], [-(2**31) - 1, 2**31]),
        ("INT64", [-(2**63), 2**63 - 1], [-(2**63) - 1, 2**63]),
        ("UINT8", [0, 255], [-1, 256]),
        ("UINT16", [0, 2**16 - 1], [-1, 2**16]),
        ("UINT32", [0, 2**32 - 1], [-1, 2**32]),
        ("UINT64", [0, 2**64 - 1], [-1, 2**64]),
        ("FP16", [-65504, 65519.99], [-65520, 65520]),
        ("FP32", [-3.4028235e38, 3.4028235677973362e38], [-3.4028235677973366e38, 1e300]),
        ("FP64", [-1.7976931348623157e308, 1.7976931348623157e308], [2 * 10**308, -(10**400)]),
    ],
)
def test_the_limits_of_a_datatype_are_its_last_values(datatype: str, good: list[Any], bad: list[Any]) -> None:
    spec = signature(TensorSpec("x", datatype, (-1,)))
    given = PROTOCOL.decode(body({"name": "x", "shape": [2], "datatype": datatype, "data": good}), spec).inputs["x"]
    if given.dtype.kind == "f":
        assert np.isfinite(given).all()
    else:
        assert given.tolist() == good
    for value in bad:
        words = refusal(body({"name": "x", "shape": [1], "datatype": datatype, "data": [value]}), spec)
        assert words.startswith("inputs[0].data[0]: expected ")


def test_a_ragged_array_of_strings_is_refused_even_if_the_number_of_rows_is_right() -> None:
    spec = signature(TensorSpec("x", "BYTES", (-1, -1)))
    ragged = {"name": "x", "shape": [2, 1], "datatype": "BYTES", "data": [["a", "b"], ["c"]]}
    assert refusal(body(ragged), spec) == "inputs[0].data[0]: expected an array of 1, got 2 elements"


def test_nested_arrays_that_end_before_the_last_dimension_are_refused() -> None:
    spec = signature(TensorSpec("x", "FP32", (-1, -1, -1)))
    shallow = {"name": "x", "shape": [2, 0, 4], "datatype": "FP32", "data": [[], []]}
    assert refusal(body(shallow), spec) == "inputs[0].data: does not fit shape [2,0,4]"


def test_an_empty_tensor_of_an_absurd_shape_is_refused() -> None:
    spec = signature(TensorSpec("x", "FP32", (-1, -1, -1)))
    for shape in ([0, 2**40, 1], [0, 10**30, 10**30]):
        absurd = {"name": "x", "shape": shape, "datatype": "FP32", "data": []}
        assert "absurd" in refusal(body(absurd), spec)


def test_a_request_can_fill_an_input_only_in_the_rank_of_the_signature_however_many_values_it_has() -> None:
    words = refusal(body(pixels(shape=[1] * 100_000)))
    assert words.startswith("inputs[0].shape: expected [-1,4]")
    assert len(words) < 200


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (b"", "the body is empty"),
        (b"  \n", "the body is empty"),
        (b"hello", "the body is not JSON"),
        (body(pixels())[:-9], "the body is not JSON: it ends too early"),
        (b'{"id": "\\ud800", "inputs": []}', "the body is not JSON"),
        (b"[]", "the body: expected an object, got an array"),
        (b"{}", "inputs: required field is missing"),
        (b'{"inputs": 1}', "inputs: expected an array, got an integer"),
        (b'{"inputs": [1]}', "inputs[0]: expected an object, got an integer"),
        (b'{"inputs": [{"name": "x"}]}', "inputs[0].shape: required field is missing"),
        (b'{"id": 7, "inputs": []}', "id: expected a string, got an integer"),
        (body(pixels(shape=["1", 4])), "inputs[0].shape[0]: expected an integer, got a string"),
        (body(pixels(shape=[1.0, 4])), "inputs[0].shape[0]: expected an integer, got a number with a fraction"),
        (body(pixels(shape=[True, 4])), "inputs[0].shape[0]: expected an integer, got true or false"),
        (body(pixels(parameters=[])), "inputs[0].parameters: expected an object, got an array"),
        (body(pixels(), parameters=3), "parameters: expected an object, got an integer"),
        (body(pixels(), outputs={}), "outputs: expected an array, got an object"),
        (body(pixels(), outputs=["label"]), "outputs[0]: expected an object, got a string"),
        (body(pixels()).replace(b"1.5", b"NaN"), "the body is not JSON"),
        (body(pixels()).replace(b"1.5", b"-Infinity"), "the body is not JSON"),
        (body(pixels()).replace(b"1.5", b"01"), "the body is not JSON"),
        (body(pixels(data="DATA")).replace(b'"DATA"', b"[" * 10_000 + b"]" * 10_000), "the body is nested too deeply"),
        (b'{"inputs": [], "x": "\xff"}', "the body is not UTF-8 (byte 21)"),
        (b'{"inputs": [], "\xed\xa0\x80": 1}', "the body is not UTF-8"),
        ("{}".encode("utf-16"), "the body is not UTF-8"),
    ],
    ids=named,
)
def test_a_body_of_another_form_is_refused_in_words(given: bytes, words: str) -> None:
    with pytest.raises(MalformedBody) as caught:
        PROTOCOL.decode(given, PIXELS)
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize(
    "given",
    [
        body(pixels(parameters={"binary_data_size": 16})),
        body(pixels(parameters={"shared_memory_region": "r"})),
        body(pixels(), outputs=[{"name": "label", "parameters": {"classification": 3}}]),
    ],
)
def test_an_extension_that_would_change_the_answer_is_refused(given: bytes) -> None:
    with pytest.raises(UnsupportedEncoding) as caught:
        PROTOCOL.decode(given, PIXELS)
    assert "parameters." in caught.value.message


def test_the_headers_of_compressed_and_binary_bodies_are_refused_with_what_to_do() -> None:
    PROTOCOL.check({"content-type": "text/plain"})
    PROTOCOL.check({"content-encoding": "Identity"})
    with pytest.raises(UnsupportedEncoding, match="gzip"):
        PROTOCOL.check({"content-encoding": "gzip"})
    with pytest.raises(UnsupportedEncoding, match="binary_data=False"):
        PROTOCOL.check({"inference-header-content-length": "90"})


def test_peek_gives_the_id_and_still_checks_the_whole_body() -> None:
    assert PROTOCOL.peek(b'{"inputs": "whatever", "id": "a\\u00e9"}') == "aé"
    assert PROTOCOL.peek(b"{}") is None
    for bad in (b'{"id": "a", "inputs": [1,]}', b'{"id": 1}', b'{"x": "\xff"}', b'{"id": "a"} x', b"[]", b"[" * 10_000):
        with pytest.raises(MalformedBody):
            PROTOCOL.peek(bad)
