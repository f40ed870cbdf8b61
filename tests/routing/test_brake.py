"""The brake in the decision: who is diverted, to where, and who never is."""

from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from routing import BASIS_POINTS, Facts, Route, Step, explain, parse_route, resolve, standing, unit_digest
from tests.routing.test_decision_properties import splits, unhurried

BRAKE = {"failures": 5, "of": 20}
THREE = {"1": 6_000, "2": 2_000, "3": 2_000, "4": 0}
CALLERS = [f"u-{number}" for number in range(2_000)]


def route(split: dict[str, int], **fields: Any) -> Route:
    return parse_route({"model": "fraud", "split": split, "brake": BRAKE, **fields})


def facts(key: str, *braked: str) -> Facts:
    return Facts(unit_digest(key), "r", 0, braked=braked)


def test_callers_of_other_versions_stay_where_they_are_when_a_version_is_braked() -> None:
    rules = route(THREE)
    for key in CALLERS:
        before, after = resolve(rules, {}, facts(key)), resolve(rules, {}, facts(key, "2"))
        assert after == before if before.version != "2" else (after.reason, after.instead_of) == ("brake", "2")


def test_the_diverted_are_spread_over_the_others_by_their_weights() -> None:
    rules = route(THREE)
    gone_to = [found.version for key in CALLERS if (found := resolve(rules, {}, facts(key, "2"))).reason == "brake"]
    assert 300 < len(gone_to) < 500  # 20 % of 2 000
    assert 0.65 < gone_to.count("1") / len(gone_to) < 0.85  # 6 000 of 8 000
    assert set(gone_to) == {"1", "3"}


def test_the_diverted_go_where_they_would_if_the_version_had_no_share() -> None:
    without = route({"1": 7_500, "2": 0, "3": 2_500})  # as 6 000 to 2 000
    rules = route(THREE)
    for key in CALLERS:
        assert resolve(rules, {}, facts(key, "2")).version == resolve(without, {}, facts(key)).version


def test_the_intended_version_is_the_one_first_drawn() -> None:
    assert resolve(route({"1": 0, "2": BASIS_POINTS}), {}, facts("u-1", "1")).intended == "2"
    diverted = resolve(route({"1": 1, "2": 9_999}), {}, facts("u-1", "2"))
    assert (diverted.version, diverted.intended) == ("1", "2")


@unhurried
@given(splits(), st.text(min_size=1, max_size=8), st.data())
def test_nobody_is_sent_to_a_braked_version_while_another_stands(
    split: dict[str, int], key: str, data: st.DataObject
) -> None:
    braked = data.draw(st.lists(st.sampled_from(sorted(split)), unique=True).map(sorted))
    rules = route(split)
    decision = resolve(rules, {}, facts(key, *braked))
    if standing(rules, braked):
        assert decision.version in standing(rules, braked)
    else:
        assert decision == resolve(rules, {}, facts(key))


@unhurried
@given(splits(least=2), st.text(min_size=1, max_size=8))
def test_the_brake_moves_only_callers_of_the_braked_version(split: dict[str, int], key: str) -> None:
    rules = route(split)
    drawn = resolve(rules, {}, facts(key)).version
    others = [version for version in split if version != drawn]
    assume(any(split[version] for version in others))
    assert resolve(rules, {}, facts(key, *sorted(others))) == resolve(rules, {}, facts(key))
    assert resolve(rules, {}, facts(key, drawn)).instead_of == drawn


def test_an_explanation_says_from_which_version_the_brake_diverted() -> None:
    key = next(key for key in CALLERS if resolve(route(THREE), {}, facts(key)).version == "2")
    explained = explain(route(THREE), {}, facts(key, "2"))
    assert explained.steps[-2:] == (
        Step("split", False, "smallest rendezvous score of the routing key: version 2, which is braked"),
        Step("brake", True, "smallest rendezvous score among the versions that are not"),
    )
    assert explained.scores.keys() == {"1", "2", "3"}
