"""Two answers held against each other: how far apart, where, and whether whoever acts on them acts otherwise."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.evidence.outputs import OutputDifference, compare_outputs, flipped

NAN = float("nan")


def compare(one: Any, other: Any, datatype: str = "FP32", dtype: Any = np.float64) -> OutputDifference:
    [found] = compare_outputs(
        [("y", datatype, np.array(one, dtype))],
        [("x", "BOOL", np.array([True])), ("y", datatype, np.array(other, dtype))],
    )
    return found


def test_equal_outputs_have_no_difference() -> None:
    assert compare([[1.0, NAN]], [[1.0, NAN]]) == OutputDifference("y", "FP32", 2)


def test_the_largest_difference_of_floats_is_told_with_its_place_and_values() -> None:
    found = compare([[0.1, 0.7, 0.2], [0.5, 0.4, 0.1]], [[0.1, 0.7, 0.2], [0.4, 0.3, 0.3]])
    assert (found.elements, found.differing, found.position, found.one, found.other) == (6, 3, (1, 2), 0.1, 0.3)
    assert found.largest == pytest.approx(0.2)
    assert found.flips == ""


def test_another_largest_of_the_last_axis_is_a_flip() -> None:
    found = compare([[0.1, 0.9], [0.6, 0.4], [0.2, 0.8]], [[0.2, 0.8], [0.4, 0.6], [0.9, 0.1]])
    assert found.flips == "the largest of its last axis moves from 0 to 1 (row 1, and of 1 more rows)"


@pytest.mark.parametrize(("other", "flips"), [(1.0 + 5e-7, False), (1.0 + 3e-6, True), (NAN, True), (-1.0, True)])
def test_a_single_float_flips_when_it_differs_by_more_than_its_millionth(other: float, flips: bool) -> None:
    for shape in ((), (1,), (1, 1)):
        found = compare(np.full(shape, 1.0), np.full(shape, other))
        assert bool(found.flips) is flips
        assert found.differing == 1


def test_every_row_of_single_floats_is_looked_at() -> None:
    assert compare([[1.0], [2.0]], [[1.0], [2.1]]).flips == "2.0 becomes 2.1"


def test_a_number_against_none_is_as_far_apart_as_can_be() -> None:
    found = compare([[0.1, 0.9]], [[0.5, NAN]])
    assert (found.largest, found.position, found.one, found.other) == (None, (0, 1), 0.9, None)


def test_integers_tell_their_largest_difference_without_overflow() -> None:
    found = compare([0, 2**64 - 1, 5], [0, 0, 6], "UINT64", np.uint64)
    assert (found.differing, found.largest, found.position) == (2, 2**64 - 1, (1,))
    assert found.flips == f"{2**64 - 1} becomes 0"


@pytest.mark.parametrize(
    ("one", "other", "datatype", "dtype"),
    [([True, True], [True, False], "BOOL", np.bool_), (["a", "b"], ["a", "c"], "BYTES", np.object_)],
)
def test_truths_and_texts_differ_without_a_number(one: Any, other: Any, datatype: str, dtype: Any) -> None:
    found = compare(one, other, datatype, dtype)
    assert (found.differing, found.largest, found.position, found.one, found.other) == (1, None, (1,), one[1], other[1])
    assert found.flips


def test_an_output_that_is_missing_or_of_another_form_flips() -> None:
    label = ("label", "INT64", np.array([3]))
    assert "does not give it" in flipped(compare_outputs([label], []))
    assert "datatype INT64 becomes FP32" in flipped(compare_outputs([label], [("label", "FP32", np.array([3.0]))]))
    assert "shape [1] becomes [2]" in flipped(compare_outputs([label], [("label", "INT64", np.array([3, 3]))]))


def test_an_output_that_only_the_other_answer_has_does_not_count() -> None:
    assert compare_outputs([], [("label", "INT64", np.array([3]))]) == ()


@given(
    arrays.arrays(np.float64, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)),
    st.floats(width=32, allow_infinity=False),
    st.integers(0, 10**6),
)
def test_changing_one_element_is_always_seen_at_its_place(array: Any, value: float, at: int) -> None:
    array = np.where(np.isinf(array), np.nan, array)
    assert compare(array, array.copy()).differing == 0
    if not array.size:
        return
    changed = array.copy()
    place = np.unravel_index(at % array.size, array.shape)
    before = array[place]
    changed[place] = value
    found = compare(array, changed)
    if before == value or (np.isnan(before) and np.isnan(value)):
        assert found.differing == 0
    else:
        assert (found.differing, found.position) == (1, tuple(map(int, place)))
