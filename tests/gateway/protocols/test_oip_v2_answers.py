"""Answers read back: what was encoded comes out again, and what is no answer is refused with words."""

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.protocols.oip_v2 import OipV2
from gateway.protocols.oip_v2_answers import read_answer
from gateway.protocols.oip_v2_kinds import KINDS

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@given(data=st.data(), datatype=st.sampled_from(sorted(set(KINDS) - {"BYTES"})), shape=SHAPES)
def test_outputs_come_back_as_they_were_encoded(data: st.DataObject, datatype: str, shape: tuple[int, ...]) -> None:
    array = data.draw(arrays.arrays(KINDS[datatype].dtype, shape))
    body = OipV2().encode("digits", "1", None, [("scores", datatype, array)])
    [(name, read, values)] = read_answer(body)
    assert (name, read, values.shape) == ("scores", datatype, array.shape)
    if KINDS[datatype].family != "number":
        np.testing.assert_array_equal(values, array)
        assert values.dtype == array.dtype
    else:
        finite = np.isfinite(array)
        np.testing.assert_array_equal(values[finite].astype(array.dtype), array[finite])
        assert np.isnan(values[~finite]).all()


@given(arrays.arrays(np.object_, SHAPES, elements=st.text(st.characters(exclude_categories=["Cs"]), max_size=5)))
def test_texts_come_back_as_they_were_encoded(array: Any) -> None:
    [(_, _, values)] = read_answer(OipV2().encode("m", "1", "id", [("words", "BYTES", array)]))
    np.testing.assert_array_equal(values, array)


def answer(**tensor: Any) -> bytes:
    output = {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]} | tensor
    return json.dumps({"model_name": "m", "outputs": [{k: v for k, v in output.items() if v is not ...}]}).encode()


def test_nested_data_is_read_as_flat_data_is() -> None:
    [(_, _, flat)], [(_, _, nested)] = read_answer(answer()), read_answer(answer(data=[[1, 2], [3, 4]]))
    np.testing.assert_array_equal(flat, nested)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not the protocol's JSON"),
        (b'{"error": "no"}', "missing required field `outputs`"),
        (b"\xff", "not the protocol's JSON"),
        (answer(datatype="COMPLEX"), "unknown datatype COMPLEX"),
        (answer(data=...), "no data in the JSON"),
        (answer(data=[1, 2, 3]), "has 3 elements"),
        (answer(shape=[-2, -2]), "has 4 elements"),
        (answer(data=[1, 2, "3", 4]), "does not fit its datatype"),
        (answer(data=[[1, 2], [3]]), "does not fit its datatype"),
        (answer(datatype="INT8", data=[1, 2, 3, 400]), "does not fit its datatype"),
        (answer(datatype="INT64", data=[1, 2, 3, 4.5]), "does not fit its datatype"),
        (answer(datatype="INT64", data=[1, 2, 3, None]), "does not fit its datatype"),
    ],
)
def test_what_is_no_answer_is_refused_with_words(body: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        read_answer(body)
