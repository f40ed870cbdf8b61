"""What weighted rendezvous hashing promises, measured on 100 000 fixed keys: shares, and who moves when weights move.

Hashing is deterministic, so each of these tests has one fixed outcome. The splits and salts were written down before
they were tried.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import sqrt

import pytest

from routing import BASIS_POINTS, parse_route, shadow_hit, unit_digest
from routing.hashing import winner
from routing.resolve import draw

KEYS = 100_000
Split = Mapping[str, int]


@pytest.fixture(scope="module")
def units() -> list[bytes]:
    return [unit_digest(f"caller-{number}") for number in range(KEYS)]


@pytest.fixture(scope="module")
def fewer(units: list[bytes]) -> list[bytes]:
    """Enough for what must hold for every single caller; the 100 000 are for what holds within 3 σ."""
    return units[:20_000]


def drawn(units: list[bytes], split: Split, salt: str = "fraud") -> list[str]:
    route = parse_route({"model": "m", "salt": salt, "split": split})
    return [draw(route, unit) for unit in units]


def three_sigma(share: float) -> float:
    return 3 * sqrt(KEYS * share * (1 - share))


def share_that_moves(before: Split, after: Split) -> float:
    """The expected share of callers who change version, from the mathematics of the method.

    A version of weight w has the score X / w with X exponential, the same X before and after. So a caller stays with
    version i when X_j is at least X_i times the greater of w_j / w_i before and after, for every other j, and the
    chance of that for exponential X is one over the sum of those factors.
    """
    stays = sum(
        1 / sum(max(before[j] / before[i], after[j] / after[i]) for j in before)
        for i in before
        if before[i] > 0 and after[i] > 0
    )
    return 1 - stays


@pytest.mark.parametrize(
    ("salt", "split"),
    [
        ("fraud", {"1": 9_000, "2": 1_000}),
        ("digits", {"1": 5_000, "2": 5_000}),
        ("fraud", {"1": 9_990, "2": 10}),
        ("Betrug-ü", {"1": 8_000, "2": 1_000, "3": 1_000}),
        ("churn", {"a": 3_333, "b": 3_333, "c": 3_334, "d": 0}),
        ("digits", {"1": 5_000, "2": 2_500, "3": 1_250, "4": 625, "5": 625}),
    ],
)
def test_a_split_is_honoured_within_three_sigma(units: list[bytes], salt: str, split: Split) -> None:
    chosen = drawn(units, split, salt)
    for version, weight in split.items():
        share = weight / BASIS_POINTS
        assert abs(chosen.count(version) - KEYS * share) <= three_sigma(share), version


def test_a_version_of_weight_0_serves_nobody_and_one_of_all_the_weight_serves_everybody(fewer: list[bytes]) -> None:
    assert set(drawn(fewer, {"1": 0, "2": 10_000, "3": 0})) == {"2"}


def test_raising_one_of_two_weights_moves_callers_only_to_that_version(fewer: list[bytes]) -> None:
    steps = [0, 1, 1_000, 5_000, 10_000]
    served = [drawn(fewer, {"1": BASIS_POINTS - weight, "2": weight}) for weight in steps]
    for before, after in pairwise(served):
        assert {(b, a) for b, a in zip(before, after, strict=True) if b != a} == {("1", "2")}


def test_raising_one_weight_moves_callers_only_to_it_when_the_others_keep_their_ratio(fewer: list[bytes]) -> None:
    before = drawn(fewer, {"1": 6_000, "2": 3_000, "3": 1_000})
    after = drawn(fewer, {"1": 4_000, "2": 2_000, "3": 4_000})
    assert {(b, a) for b, a in zip(before, after, strict=True) if b != a} == {("1", "3"), ("2", "3")}


def test_restoring_the_weights_restores_every_caller(fewer: list[bytes]) -> None:
    before = drawn(fewer, {"1": 9_000, "2": 1_000})
    assert drawn(fewer, {"1": 2_500, "2": 5_000, "3": 2_500}) != before
    assert drawn(fewer, {"2": 1_000, "1": 9_000}) == before


def test_the_versions_of_a_split_may_stand_in_any_order(fewer: list[bytes]) -> None:
    split = {"1": 8_000, "2": 1_000, "3": 1_000}
    assert drawn(fewer, split) == drawn(fewer, dict(reversed(split.items())))


def test_another_salt_draws_afresh(units: list[bytes]) -> None:
    split = {"1": 5_000, "2": 5_000}
    agree = sum(a == b for a, b in zip(drawn(units, split, "one"), drawn(units, split, "two"), strict=True))
    assert abs(agree - KEYS / 2) <= three_sigma(0.5)


@pytest.mark.parametrize(
    ("before", "after", "figure", "moves"),
    [
        # The figures of DESIGN §4, and the only ways that callers may go.
        (
            {"1": 8_000, "2": 1_000, "3": 1_000},
            {"1": 7_000, "2": 1_000, "3": 2_000},
            (0.110, 0.12),
            {("1", "2"), ("1", "3"), ("2", "3")},
        ),
        ({"1": 9_000, "2": 1_000}, {"1": 5_000, "2": 5_000}, (0.401, 0.41), {("1", "2")}),
    ],
)
def test_a_change_of_weights_moves_hardly_more_than_the_added_share(
    units: list[bytes], before: Split, after: Split, figure: tuple[float, float], moves: set[tuple[str, str]]
) -> None:
    about, most = figure
    changed = [(b, a) for b, a in zip(drawn(units, before), drawn(units, after), strict=True) if b != a]
    expected = share_that_moves(before, after)
    assert abs(len(changed) - KEYS * expected) <= three_sigma(expected)
    # The design's figure is itself a measurement, on 50 000 other keys: 3 σ of the difference of two measurements.
    assert len(changed) / KEYS == pytest.approx(about, abs=3 * sqrt(about * (1 - about) * (1 / KEYS + 1 / 50_000)))
    assert len(changed) / KEYS <= most
    assert set(changed) == moves


@pytest.mark.parametrize("sample", [0, 1, 1_000, 5_000, 10_000])
def test_a_shadow_is_sampled_within_three_sigma(sample: int) -> None:
    taken = sum(shadow_hit("fraud", f"record-{number}", "3", sample) for number in range(KEYS))
    share = sample / BASIS_POINTS
    assert abs(taken - KEYS * share) <= three_sigma(share)


def test_two_shadows_are_sampled_independently_of_each_other() -> None:
    ids = [f"record-{number}" for number in range(KEYS)]
    both = sum(shadow_hit("fraud", i, "3", 5_000) and shadow_hit("fraud", i, "4", 5_000) for i in ids)
    assert abs(both - KEYS * 0.25) <= three_sigma(0.25)


def test_nobody_wins_a_split_without_any_weight() -> None:
    with pytest.raises(ValueError, match="no version"):
        winner("salt", unit_digest("caller"), {"1": 0})
