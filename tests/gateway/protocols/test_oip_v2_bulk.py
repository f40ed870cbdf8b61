"""Large tensors read in pieces give what small ones read whole give, and are refused where those are."""

import json
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as numpy_st

from gateway.catalog import Signature, TensorSpec
from gateway.errors import InvalidInput, RequestError
from gateway.protocols import oip_v2_bulk, oip_v2_tensors
from gateway.protocols.oip_v2 import OipV2
from tests.fuzzing import fuzzed

PROTOCOL = OipV2()


@pytest.fixture(scope="module", autouse=True)
def _small_pieces() -> Iterator[None]:
    """Cut after a few bytes, so that small examples have several pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oip_v2_bulk, "_PIECE_BYTES", 5)
        yield


def decode(body: bytes, datatype: str, rank: int, in_pieces: bool) -> Any:
    """Return the array or the refusal of one input `x`."""
    spec = Signature("p", (TensorSpec("x", datatype, (-1,) * rank),), ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(oip_v2_tensors, "_BULK_BYTES", -1 if in_pieces else 10**9)
        try:
            return PROTOCOL.decode(body, spec).inputs["x"]
        except RequestError as error:
            return error


def body(datatype: str, shape: Any, data: Any, indent: int | None = None) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}]}, indent=indent
    ).encode()


DATATYPES = {"BOOL": np.bool_, "INT8": np.int8, "INT64": np.int64, "UINT64": np.uint64, "FP16": np.float16}
DATATYPES |= {"FP32": np.float32, "FP64": np.float64}


@given(st.data(), st.sampled_from(sorted(DATATYPES)), numpy_st.array_shapes(max_dims=3, max_side=4), st.booleans())
@fuzzed(100)
def test_arrays_of_any_shape_are_the_same_in_pieces(
    data: st.DataObject, datatype: str, shape: tuple[int, ...], nested: bool
) -> None:
    kind = np.dtype(DATATYPES[datatype]).kind
    elements = {"allow_nan": False, "allow_infinity": False} if kind == "f" else None
    array = data.draw(numpy_st.arrays(DATATYPES[datatype], shape, elements=elements))
    indent = data.draw(st.sampled_from([None, 0, 3]))
    values = (array if nested else array.ravel()).tolist()
    back = decode(body(datatype, list(shape), values, indent), datatype, len(shape), in_pieces=True)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


ELEMENTS: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, 255, 256, -1, 1.0, 1.5, 1e39, 1e300, 2**64, 10**60, True, None, "a", "1,2", "[", {}, []]
)
VALUES = st.recursive(ELEMENTS, lambda inner: st.lists(inner, min_size=1, max_size=3), max_leaves=9)
SIDES = st.lists(st.integers(0, 3), min_size=1, max_size=3)


@given(VALUES, SIDES, st.sampled_from(["UINT8", "UINT64", "FP32", "BOOL"]))
@fuzzed(400)
def test_what_is_refused_whole_is_refused_in_pieces_and_the_other_way_round(
    value: Any, shape: list[int], datatype: str
) -> None:
    given_body = body(datatype, shape, value)
    whole, pieces = (decode(given_body, datatype, len(shape), in_pieces) for in_pieces in (False, True))
    assert type(whole) is type(pieces)
    if isinstance(whole, np.ndarray):
        assert whole.tolist() == pieces.tolist()
    else:
        assert pieces.message.startswith("inputs[0].")


@given(VALUES, SIDES, st.integers(0, 400), st.integers(0, 3), st.binary(max_size=4))
@fuzzed(300)
def test_a_body_with_a_few_bytes_changed_is_refused_in_pieces_where_it_is_whole(
    value: Any, shape: list[int], start: int, removed: int, put: bytes
) -> None:
    good = body("FP32", shape, value)
    start %= len(good) + 1
    changed = good[:start] + put + good[start + removed :]
    whole, pieces = (decode(changed, "FP32", len(shape), in_pieces) for in_pieces in (False, True))
    assert isinstance(pieces, np.ndarray) is isinstance(whole, np.ndarray)
    if isinstance(whole, np.ndarray):
        assert whole.tobytes() == pieces.tobytes()


def test_an_empty_array_is_empty_in_pieces_too() -> None:
    assert decode(body("FP32", [0, 4], []), "FP32", 2, in_pieces=True).shape == (0, 4)
    assert decode(body("FP32", [2, 0], [[], []]), "FP32", 2, in_pieces=True).shape == (2, 0)


@pytest.mark.parametrize(("shape", "data"), [([0, 1], [[]]), ([2, 0], [[]]), ([1, 0, 2], [[]]), ([], []), ([], [[]])])
def test_an_empty_array_of_another_nesting_is_refused_in_pieces_too(shape: list[int], data: Any) -> None:
    for in_pieces in (False, True):
        assert isinstance(decode(body("FP32", shape, data), "FP32", len(shape), in_pieces), InvalidInput)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "inputs[0].data: expected an array"),
        ([1, 2, 300, 4], "inputs[0].data[2]: expected an integer from 0 to 255, got 300"),
        ([[1, 2], [3, None]], "inputs[0].data[3]: expected an integer from 0 to 255, got null"),
        ([[1, 2], [3]], "inputs[0].data: expected a flat array, or nested arrays of 2×2 elements"),
        ([1, 2, 3], "inputs[0].data: expected 4 elements for shape [2,2], got 3"),
        ([1, 2, "x", 4], "inputs[0].data: expected only elements that are an integer from 0 to 255, got strings"),
        ([1, 2, 3, [4]], "inputs[0].data: expected a flat array"),
    ],
)
def test_the_words_in_pieces_name_the_field_and_the_element(data: Any, words: str) -> None:
    refused = decode(body("UINT8", [2, 2], data), "UINT8", 2, in_pieces=True)
    assert isinstance(refused, InvalidInput)
    assert refused.message.startswith(words)


def test_a_number_that_nothing_can_hold_is_refused_with_about_where_it_is() -> None:
    beyond = body("FP32", [4], [1, 2, 3, 7]).replace(b"7]", b"1e999]")
    refused = decode(beyond, "FP32", 1, in_pieces=True)
    assert isinstance(refused, InvalidInput)
    assert refused.message.endswith("got one that is not, after 3")


def test_a_body_of_a_megabyte_goes_this_way_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oip_v2_bulk, "_PIECE_BYTES", 65_536)
    count = 300_000
    spec = Signature("p", (TensorSpec("x", "FP32", (-1,)),), ())
    values = np.random.default_rng(1).random(count, np.float32)
    whole = body("FP32", [count], values.astype(float).tolist())
    assert len(whole) > 2**20
    assert np.array_equal(PROTOCOL.decode(whole, spec).inputs["x"], values)
    spoiled = whole[:-5].rstrip(b"0123456789.e-") + b" 1e39]}]}"
    with pytest.raises(InvalidInput, match=r"inputs\[0\]\.data\[299999\]: expected a number .*, got 1e\+?39"):
        PROTOCOL.decode(spoiled, spec)


def test_a_megabyte_of_wrong_things_for_strings_is_refused_without_reading_them_all() -> None:
    spec = Signature("p", (TensorSpec("x", "BYTES", (-1,)),), ())
    with pytest.raises(InvalidInput, match=r"inputs\[0\]\.data: expected an array of elements that are a string"):
        PROTOCOL.decode(body("BYTES", [400_000], [[]] * 400_000), spec)
