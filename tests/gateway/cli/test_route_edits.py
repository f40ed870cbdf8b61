from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.edits import with_pin, with_shadow, without_pin, without_shadow

NAMES = st.sampled_from("abcd")
PINS = st.lists(st.fixed_dictionaries({"cohort": NAMES, "version": st.sampled_from("123")}), max_size=6)


def _others(pins: list[dict[str, Any]], cohort: str) -> list[dict[str, Any]]:
    return [pin for pin in pins if pin["cohort"] != cohort]


@settings(deadline=None)
@given(PINS, NAMES, st.booleans())
def test_the_other_pins_keep_their_order_when_one_is_set(pins: list[dict[str, Any]], cohort: str, first: bool) -> None:
    new = {"cohort": cohort, "version": "9"}
    after = with_pin(pins, new, first=first)
    assert _others(after, cohort) == _others(pins, cohort)
    assert [pin for pin in after if pin["cohort"] == cohort] == [new]
    if first:
        assert after[0] == new


@pytest.mark.parametrize(("cohort", "place"), [("a", 0), ("b", 1), ("c", 2), ("new", 3)])
def test_a_pin_takes_the_place_of_its_cohorts_first_pin_or_the_end(cohort: str, place: int) -> None:
    pins = [{"cohort": name, "version": "1"} for name in "abc"]
    assert with_pin(pins, {"cohort": cohort, "version": "2"}, first=False)[place]["version"] == "2"


@settings(deadline=None)
@given(PINS, NAMES)
def test_unpinning_takes_every_pin_of_the_cohort_and_no_other(pins: list[dict[str, Any]], cohort: str) -> None:
    assert without_pin(pins, cohort) == _others(pins, cohort)


def test_a_shadow_is_replaced_in_its_place_or_added_and_taken_away() -> None:
    shadows = with_shadow(with_shadow(None, "3", 1000), "4", 500)
    assert shadows == [{"version": "3", "sample": 1000}, {"version": "4", "sample": 500}]
    assert with_shadow(shadows, "3", 0) == [{"version": "3", "sample": 0}, {"version": "4", "sample": 500}]
    assert without_shadow(shadows, "3") == [{"version": "4", "sample": 500}]
