"""Shares of a budget: whoever asks little gets it, whoever asks much gets what is left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fairness import MOST_CALLERS, Shares, water_level

GREEDY, MODEST = 1, 2
asked = st.lists(st.integers(1, 1_000), min_size=1, max_size=50)


def turns(shares: Shares, budget: float, count: int, **callers: int) -> dict[str, int]:
    """Have callers ask so often in each of some turns, mixed with each other, and return what each got in all."""
    got = dict.fromkeys(callers, 0)
    for _ in range(count):
        for number in range(max(callers.values())):
            for name, times in callers.items():
                if number < times:
                    got[name] += shares.admit(hash(name))
        shares.turn(budget)
    return got


@given(asked, st.floats(1, 100_000))
def test_the_level_gives_away_the_whole_budget_and_no_more(wanted: list[int], budget: float) -> None:
    level = water_level(wanted, budget)
    given_away = sum(min(one, level) for one in wanted)
    assert given_away == pytest.approx(min(budget, sum(wanted)))


@given(asked, st.floats(1, 100_000), st.integers(1, 10**6))
def test_who_asks_for_no_more_than_an_equal_part_gets_it_however_much_others_ask(
    wanted: list[int], budget: float, much: int
) -> None:
    part = budget / (len(wanted) + 1)
    level = water_level([*wanted, much], budget)
    assert all(one <= level + 1e-9 for one in wanted if one <= part)


def test_without_a_budget_everybody_gets_everything() -> None:
    shares = Shares()
    assert all(shares.admit(GREEDY) for _ in range(1_000))
    assert (shares.admitted, shares.refused) == (1_000, 0)


def test_a_modest_caller_loses_nothing_to_a_greedy_one() -> None:
    shares = Shares()
    turns(shares, 50, 1, greedy=500, modest=5)  # what is recent
    got = turns(shares, 50, 20, greedy=500, modest=5)
    assert got["modest"] == 20 * 5
    assert got["greedy"] == pytest.approx(20 * 45, abs=20)


def test_callers_who_ask_alike_get_alike() -> None:
    shares = Shares()
    turns(shares, 30, 1, ann=30, bob=30, cid=30)
    got = turns(shares, 30, 20, ann=30, bob=30, cid=30)
    assert set(got.values()) == {200}


def test_a_budget_below_one_request_each_is_spread_over_all_in_time() -> None:
    shares = Shares()
    callers = {f"c{number}": 1 for number in range(40)}
    turns(shares, 10, 1, **callers)
    got = turns(shares, 10, 400, **callers)
    assert sum(got.values()) == pytest.approx(4_000, abs=20)


def test_a_newcomer_gets_as_much_as_the_others() -> None:
    shares = Shares()
    turns(shares, 50, 2, greedy=500)
    assert sum(shares.admit(MODEST) for _ in range(60)) == 50


def test_callers_beyond_the_bound_share_one_place() -> None:
    shares = Shares()
    for caller in range(MOST_CALLERS + 100):
        shares.admit(caller + 1)
    assert shares.asked == MOST_CALLERS + 100
    shares.turn(MOST_CALLERS)
    assert shares.level is not None
    assert shares.level < 1
