"""Limits of concurrency against versions of known capacity, simulated: a minute takes a moment, always the same."""

import heapq
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.concurrency import LEAST, UNLIMITED, Limit, Limits

LOOK_US = 20_000
SECOND_US = 1_000_000
Service = Callable[[int, int], int]
"""Takes the time of a request's arrival and its number, and returns how long it is being worked on, in µs."""


class Came(NamedTuple):
    at_us: int
    took_us: int
    """0 when it was refused."""


def play(  # noqa: PLR0917 - what is played, one by one
    limit: Limit, slots: int, service: Service, per_second: float, seconds: float, began_us: int = 0
) -> list[Came]:
    """Send requests at a steady pace to a version that works on `slots` at once, first come, first served."""
    free = [began_us] * slots
    leaving: list[tuple[int, int]] = []
    came: list[Came] = []
    at, look_at = float(began_us), began_us + LOOK_US
    while at < began_us + seconds * SECOND_US:
        now = int(at)
        while min(look_at, leaving[0][0] if leaving else look_at) <= now:
            if leaving and leaving[0][0] <= look_at:
                limit.in_flight -= 1
                limit.served(heapq.heappop(leaving)[1])
            else:
                limit.look(LOOK_US)
                look_at += LOOK_US
        if limit.in_flight < limit.most:
            limit.in_flight += 1
            done = max(now, heapq.heappop(free)) + service(now, len(came))
            heapq.heappush(free, done)
            heapq.heappush(leaving, (done, done - now))
            came.append(Came(now, done - now))
        else:
            limit.refused += 1
            came.append(Came(now, 0))
        at += SECOND_US / per_second
    for done, took in sorted(leaving):
        limit.in_flight -= 1
        if done < at:
            limit.served(took)
    return came


def limit_of(slowdown: int | None) -> Limit:
    limit = Limit()
    limit.slowdown = slowdown
    return limit


def steady(took_us: int) -> Service:
    return lambda _, __: took_us


def percentile(came: list[Came], share: float) -> int:
    took = sorted(one.took_us for one in came if one.took_us)
    return took[int(len(took) * share)]


@pytest.mark.parametrize(("slots", "took_us"), [(8, 20_000), (1, 5_000), (2, 200_000), (64, 50_000)])
def test_a_version_asked_thrice_what_it_can_do_does_what_it_can_in_twice_its_time(slots: int, took_us: int) -> None:
    limit = limit_of(2)
    capacity = slots * SECOND_US / took_us
    calm = play(limit, slots, steady(took_us), capacity / 10, 5)
    assert all(one.took_us for one in calm)
    came = play(limit, slots, steady(took_us), 3 * capacity, 60, 5 * SECOND_US)
    after = [one for one in came if one.at_us > 8 * SECOND_US]
    assert sum(one.took_us > 0 for one in after) / 57 > 0.95 * capacity
    assert percentile(after, 0.99) < 2.2 * took_us
    assert percentile(came, 0.99) < 3 * took_us + 10_000 or took_us >= 200_000  # a second of the beginning is no 1 %


@pytest.mark.parametrize("slowdown", [2, 10])
def test_a_version_within_its_capacity_is_never_limited(slowdown: int) -> None:
    limit = limit_of(slowdown)
    for step, load in enumerate((0.1, 0.5, 0.9, 0.95, 0.3)):
        came = play(limit, 8, steady(20_000), load * 400, 10, step * 10 * SECOND_US)
        assert all(one.took_us for one in came)
        assert limit.most == UNLIMITED


def test_slow_requests_among_fast_ones_limit_nothing() -> None:
    limit = limit_of(2)
    came = play(limit, 1_000, lambda _, number: 2_000_000 if number % 3 else 10_000, 100, 60)
    assert all(one.took_us for one in came)


def test_a_burst_that_drains_limits_nothing() -> None:
    limit = limit_of(10)
    play(limit, 8, steady(20_000), 100, 5)
    came = play(limit, 8, steady(20_000), 2_000, 0.1, 5 * SECOND_US)
    came += play(limit, 8, steady(20_000), 100, 5, 5 * SECOND_US + 100_000)
    assert all(one.took_us for one in came)


def test_the_limit_is_lifted_when_the_load_is_gone() -> None:
    limit = limit_of(2)
    play(limit, 8, steady(20_000), 100, 2)
    play(limit, 8, steady(20_000), 1_200, 5, 2 * SECOND_US)
    assert limit.most != UNLIMITED
    play(limit, 8, steady(20_000), 100, 40, 7 * SECOND_US)
    assert limit.most != UNLIMITED
    play(limit, 8, steady(20_000), 100, 25, 47 * SECOND_US)
    assert limit.most == UNLIMITED


def test_a_version_that_is_close_to_its_limit_is_limited_before_a_burst_comes() -> None:
    limit = limit_of(2)
    play(limit, 8, steady(20_000), 100, 2)
    limit.in_flight = 14
    for _ in range(6):  # fourteen at a time are answered in 35 ms, of 40 that are allowed
        for _ in range(8):
            limit.served(35_000)
        limit.look(LOOK_US)
    assert limit.most == 16
    limit.in_flight = 0
    burst = play(limit, 8, steady(20_000), 4_000, 0.2, 10 * SECOND_US)
    assert max(one.took_us for one in burst) <= 40_000


def test_a_version_that_grows_is_given_more() -> None:
    limit = limit_of(2)
    play(limit, 8, steady(20_000), 100, 2)
    play(limit, 8, steady(20_000), 2_000, 5, 2 * SECOND_US)
    came = play(limit, 32, steady(20_000), 2_000, 20, 7 * SECOND_US)
    late = [one for one in came if one.at_us > 17 * SECOND_US]
    assert sum(one.took_us > 0 for one in late) / 10 > 0.9 * 1_600


def test_a_version_that_became_slower_by_itself_is_not_starved_for_good() -> None:
    limit = limit_of(2)
    play(limit, 1_000, steady(20_000), 500, 5)
    came = play(limit, 1_000, steady(100_000), 500, 40, 5 * SECOND_US)  # five times as slow, and as many at once
    late = [one for one in came if one.at_us > 35 * SECOND_US]
    assert all(one.took_us for one in late)


def test_fast_versions_may_wait_some_milliseconds_before_they_count_as_slow() -> None:
    limit = limit_of(2)
    play(limit, 1, steady(200), 500, 2)
    came = play(limit, 1, lambda _, number: 1_000 if number % 2 else 3_000, 400, 10, 2 * SECOND_US)
    assert all(one.took_us for one in came)


def test_a_version_that_answers_nothing_in_time_is_asked_less() -> None:
    limit = limit_of(2)
    limit.in_flight = 100
    for _ in range(100):
        limit.late()
        limit.look(LOOK_US)
    assert limit.most < 100


def test_a_route_without_a_slowdown_is_never_limited() -> None:
    limit = limit_of(None)
    came = play(limit, 1, steady(20_000), 1_000, 5)
    assert all(one.took_us for one in came)


def test_a_limit_that_the_route_takes_away_is_gone_at_the_next_look() -> None:
    limit = limit_of(2)
    play(limit, 1, steady(20_000), 1_000, 5)
    assert limit.most != UNLIMITED
    limit.slowdown = None
    limit.look(SECOND_US)
    assert limit.most == UNLIMITED


@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.integers(1, 10**7), st.integers(0, 3), st.integers(1, 2 * SECOND_US)),
        max_size=60,
    ),
    st.integers(0, 1_000),
)
def test_whatever_comes_a_version_may_always_be_asked(looks: list[tuple[int, int, int, int]], in_flight: int) -> None:
    limit = limit_of(2)
    limit.in_flight = in_flight
    probed = 0
    for served, took, late, passed in looks:
        for _ in range(served):
            limit.served(took)
        for _ in range(late):
            limit.late()
        limit.look(passed)
        assert limit.most >= 1
        probed = probed + 1 if limit.most < LEAST else 0


def test_idle_limits_are_not_looked_at_any_more() -> None:
    limits, limit = Limits(), limit_of(2)
    limits.watch(("fraud", "1"), limit)
    limit.served(1_000)
    assert limits.look(SECOND_US) == 0
    assert not limit.watched
    limits.watch(("fraud", "1"), limit)
    assert limit.watched


def test_limits_are_told_when_they_change() -> None:
    told: list[Mapping[tuple[str, str], int]] = []
    limits, one, other = Limits(told.append), limit_of(2), limit_of(2)
    limits.watch(("fraud", "1"), one)
    limits.watch(("fraud", "2"), other)
    one.in_flight = other.in_flight = 1
    limits.look(1)
    assert told == []
    one.most = 8
    limits.look(1)
    limits.look(1)
    one.most = 4
    limits.look(1)
    one.most = UNLIMITED
    limits.look(1)
    assert told == [{("fraud", "1"): 8}, {("fraud", "1"): 4}, {}]
