"""Draws that are remembered: always what the split itself would say, of the route that is in force, and bounded."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.draws import MOST, Draws
from routing import Route, draw, parse_route, unit_digest


def route(salt: str = "s", split: str = '{"1": 5000, "2": 3000, "3": 2000}') -> Route:
    return parse_route(f'{{"model": "m", "salt": "{salt}", "split": {split}}}'.encode())


ROUTES = [route(), route(salt="t"), route(split='{"1": 1000, "2": 9000}')]


@given(st.lists(st.tuples(st.sampled_from(ROUTES), st.sampled_from("abcdefgh")), max_size=40))
def test_a_remembered_draw_is_that_of_the_route_asked_for_whatever_was_asked_before(
    asked: list[tuple[Route, str]],
) -> None:
    draws = Draws()
    for one, key in asked:
        unit = unit_digest(key)
        assert draws.draw(one, unit) == draw(one, unit)


def test_as_many_callers_as_may_be_are_remembered_and_one_more_is_served_all_the_same() -> None:
    draws, one = Draws(), ROUTES[0]
    units = [number.to_bytes(16, "big") for number in range(MOST + 10)]
    for unit in units:
        draws.draw(one, unit)
    assert sum(len(known) for _, known in draws._known.values()) <= MOST
    assert [draws.draw(one, unit) for unit in units[:50]] == [draw(one, unit) for unit in units[:50]]
