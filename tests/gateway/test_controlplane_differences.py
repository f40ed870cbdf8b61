"""What differs between two documents, in words that people can find in the document."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, to_builtins

from gateway.controlplane.differences import FieldDifference, differences


def pin(cohort: str, version: str = "1", **fields: Any) -> dict[str, Any]:
    return {"cohort": cohort, "version": version, **fields}


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [
        ({"split": {"1": 9, "2": 1}}, {"split": {"1": 10}}, [('split["1"]', 9, 10), ('split["2"]', 1, UNSET)]),
        ({"split": {'a"b': 1}}, {"split": {'a"b': 2}}, [('split["a\\"b"]', 1, 2)]),
        ({"timeout_ms": 5}, {"timeout_ms": 6}, [("timeout_ms", 5, 6)]),
        ({"capture": {"request": "full"}}, {"capture": {"request": "none"}}, [("capture.request", "full", "none")]),
        ({"fallback": ["1"]}, {"fallback": ["2"]}, [("fallback", ["1"], ["2"])]),
        (
            {"pins": [pin("beta", expires=None), pin("staff")]},
            {"pins": [pin("staff"), pin("beta", expires="2027")]},
            [("pins[1].expires", None, "2027"), ("pins", ["beta", "staff"], ["staff", "beta"])],
        ),
        ({"pins": []}, {"pins": [pin("beta")]}, [("pins[0]", UNSET, pin("beta"))]),
        ({"pins": [pin("a"), pin("b")]}, {"pins": [pin("b")]}, [("pins[0]", pin("a"), UNSET)]),
        (
            {"pins": [pin("a", "1"), pin("a", "2")]},
            {"pins": [pin("a", "1"), pin("a", "3")]},
            [("pins[1].version", "2", "3")],
        ),
        (
            {"shadows": [{"version": "3", "sample": 1}]},
            {"shadows": [{"version": "4", "sample": 9}, {"version": "3", "sample": 2}]},
            [("shadows[0]", UNSET, {"version": "4", "sample": 9}), ("shadows[1].sample", 1, 2)],
        ),
        (
            {"keys": ["u-1", "u-2"]},
            {"keys": ["u-3", "u-1"]},
            [('keys["u-3"]', UNSET, "u-3"), ('keys["u-2"]', "u-2", UNSET)],
        ),
        (
            {"match": [{"header": "x", "in": ["a", "b"]}]},
            {"match": [{"header": "x", "in": ["b", "c"]}]},
            [('match[0].in["c"]', UNSET, "c"), ('match[0].in["a"]', "a", UNSET)],
        ),
        ({"match": []}, {"match": [{"header": "x", "in": ["a"]}]}, [("match", [], [{"header": "x", "in": ["a"]}])]),
        (
            {"cohorts": {"beta": {"keys": []}}},
            {"cohorts": {"beta": {"keys": ["u"]}}},
            [('cohorts["beta"].keys["u"]', UNSET, "u")],
        ),
    ],
)
def test_each_field_that_differs_is_named_by_its_path(
    older: dict[str, Any], newer: dict[str, Any], expected: list[tuple[str, Any, Any]]
) -> None:
    assert list(differences(older, newer)) == [FieldDifference(*one) for one in expected]


def test_a_field_that_is_not_there_is_left_out_of_the_json() -> None:
    (found,) = differences({}, {"timeout_ms": 5})
    assert to_builtins(found) == {"path": "timeout_ms", "after": 5}


values = st.recursive(
    st.none() | st.integers(0, 2) | st.sampled_from(["a", "b"]),
    lambda inner: st.dictionaries(st.sampled_from(["capture", "salt", "split"]), inner, max_size=3),
    max_leaves=6,
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "split": st.dictionaries(st.sampled_from(["1", "2"]), st.integers(0, 2)),
        "pins": st.lists(st.builds(pin, st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"])), max_size=4),
        "keys": st.lists(st.sampled_from(["u", "v", "w"]), unique=True),
        "fallback": st.lists(st.sampled_from(["1", "2"]), unique=True),
        "other": values,
    },
)


@given(documents, documents)
def test_there_is_a_difference_exactly_when_documents_differ_but_for_the_order_of_what_has_none(
    older: dict[str, Any], newer: dict[str, Any]
) -> None:
    def ordered(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, **({"keys": sorted(document["keys"])} if "keys" in document else {})}

    assert bool(differences(older, newer)) == (ordered(older) != ordered(newer))
    assert {one.path for one in differences(older, newer)} == {one.path for one in differences(newer, older)} or (
        older.get("pins") != newer.get("pins")
    )
