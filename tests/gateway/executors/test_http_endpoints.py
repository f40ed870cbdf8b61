"""Which URL is chosen while others are in trouble, whatever happens in whatever order."""

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic_ns
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.catalog import Ejection
from gateway.executors.http_endpoints import Endpoint, Endpoints
from gateway.standings import Standings
from tests.conftest import until

MINUTE = 60_000


def make(
    count: int, *, after: int = 2, for_ms: int = MINUTE, most_ms: int = 10 * MINUTE
) -> tuple[Endpoints, Standings]:
    standings = Standings()
    urls = [f"http://127.0.0.1:{1_000 + number}" for number in range(count)]
    ejection = Ejection(after, for_ms, most_ms)
    return Endpoints("fraud", "2", urls, path="/infer", ejection=ejection, standings=standings), standings


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def fail(endpoints: Endpoints, endpoint: Endpoint, times: int = 1) -> None:
    for _ in range(times):
        endpoints.failed(endpoint, monotonic_ns(), "answered 503")


events = st.lists(
    st.tuples(
        st.sampled_from(["failed", "succeeded", "well", "unwell", "begin", "end"]), st.integers(0, 3), st.booleans()
    ),
    max_size=60,
)


@given(st.integers(1, 4), events)
def test_traffic_never_goes_to_a_url_in_trouble_while_another_is_not(
    count: int, happening: list[tuple[str, int, bool]]
) -> None:
    async def test() -> None:
        endpoints, standings = make(count)
        for what, number, avoiding in happening:
            endpoint = endpoints.all[number % count]
            match what:
                case "failed":
                    endpoints.failed(endpoint, monotonic_ns(), "answered 503")
                case "succeeded":
                    endpoints.succeeded(endpoint, monotonic_ns())
                case "well" | "unwell":
                    endpoints.checked(endpoint, what == "well", "no connection")
                case "begin":
                    endpoint.in_flight += 1
                case _:
                    endpoint.in_flight = max(0, endpoint.in_flight - 1)
            chosen = endpoints.choose((endpoint.url,) if avoiding else ())
            standing = [one for one in endpoints.all if one.standing]
            assert chosen.standing or not standing
            if avoiding and any(one is not endpoint for one in standing):
                assert chosen is not endpoint
            told = standings.of("fraud", "2")
            assert told.ejected == sum(one.ejected for one in endpoints.all)
            assert told.unhealthy == sum(not one.healthy for one in endpoints.all)
            assert told.ejected < count
        endpoints.release()
        assert (standings.of("fraud", "2").ejected, standings.of("fraud", "2").unhealthy) == (0, 0)

    in_a_loop(test)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_the_least_busy_is_chosen_and_equals_take_turns(busy: list[int]) -> None:
    endpoints, _ = make(len(busy))
    for endpoint, in_flight in zip(endpoints.all, busy, strict=True):
        endpoint.in_flight = in_flight
    idlest = [endpoint for endpoint in endpoints.all if endpoint.in_flight == min(busy)]
    assert [endpoints.choose() for _ in range(2 * len(idlest))] == idlest * 2


def test_failures_that_are_not_in_a_row_eject_nobody() -> None:
    async def test() -> None:
        endpoints, _ = make(2)
        bad, _good = endpoints.all
        for _ in range(5):
            fail(endpoints, bad)
            endpoints.succeeded(bad, monotonic_ns())
        assert bad.standing
        fail(endpoints, bad, 2)
        assert bad.ejected
        endpoints.release()

    in_a_loop(test)


def test_nobody_is_ejected_when_the_manifest_says_never() -> None:
    async def test() -> None:
        endpoints, _ = make(2, after=0)
        fail(endpoints, endpoints.all[0], 100)
        assert endpoints.all[0].standing

    in_a_loop(test)


def test_an_ejected_url_comes_back_on_probation_with_one_request_at_a_time() -> None:
    async def test() -> None:
        endpoints, _ = make(2, for_ms=5)
        bad, good = endpoints.all
        fail(endpoints, bad, 2)
        assert {endpoints.choose() for _ in range(4)} == {good}
        await until(lambda: bad.on_probation)
        good.in_flight = 7
        assert endpoints.choose() is bad
        bad.in_flight = 1
        assert {endpoints.choose() for _ in range(4)} == {good}
        endpoints.succeeded(bad, monotonic_ns())
        assert endpoints.choose() is bad

    in_a_loop(test)


def test_the_first_failure_on_probation_ejects_again_and_for_longer_each_time_up_to_the_most() -> None:
    async def test() -> None:
        endpoints, standings = make(2, for_ms=20, most_ms=50)
        bad, _ = endpoints.all
        with capture_logs() as logs:
            fail(endpoints, bad, 2)
            for _ in range(3):
                await until(lambda: bad.on_probation)
                fail(endpoints, bad)
        lengths = [line["for_seconds"] for line in logs if line["event"] == "backend_ejected"]
        assert lengths == [0.02, 0.04, 0.05, 0.05]
        assert standings.of("fraud", "2").ejections == 4
        endpoints.release()

    in_a_loop(test)


def test_ejections_are_short_again_when_it_has_behaved_for_a_while() -> None:
    async def test() -> None:
        endpoints, _ = make(2, for_ms=5)
        bad, _ = endpoints.all
        fail(endpoints, bad, 2)
        await until(lambda: bad.on_probation)
        fail(endpoints, bad)
        await until(lambda: bad.on_probation)
        assert bad.ejections == 2
        endpoints.succeeded(bad, monotonic_ns())
        returned_ns = bad.returned_ns
        await until(lambda: monotonic_ns() > returned_ns + 50_000_000)
        fail(endpoints, bad, 2)
        assert bad.ejections == 1
        endpoints.release()

    in_a_loop(test)


def test_what_was_sent_before_a_url_came_back_says_nothing_about_it() -> None:
    async def test() -> None:
        endpoints, _ = make(2, for_ms=5)
        bad, _ = endpoints.all
        sent_ns = monotonic_ns()
        fail(endpoints, bad, 2)
        await until(lambda: bad.on_probation)
        endpoints.succeeded(bad, sent_ns)
        assert bad.on_probation
        endpoints.failed(bad, sent_ns, "cut off")
        assert not bad.ejected

    in_a_loop(test)


def test_the_last_one_is_not_ejected_but_its_failures_bring_the_others_back_early() -> None:
    async def test() -> None:
        endpoints, _ = make(3)
        one, two, three = endpoints.all
        fail(endpoints, one, 2)
        fail(endpoints, two, 2)
        assert endpoints.choose() is three
        fail(endpoints, three)
        assert (one.ejected, two.ejected) == (True, True)
        fail(endpoints, three)
        assert [endpoint.standing for endpoint in endpoints.all] == [True, True, True]
        assert (one.on_probation, two.on_probation) == (True, True)
        fail(endpoints, three, 2)
        assert three.ejected
        endpoints.release()

    in_a_loop(test)


def test_checks_end_an_ejection_early_only_if_they_have_seen_the_trouble() -> None:
    async def test() -> None:
        endpoints, _ = make(2)
        bad, _ = endpoints.all
        fail(endpoints, bad, 2)
        endpoints.checked(bad, True)
        assert bad.ejected
        endpoints.checked(bad, False, "no connection")
        endpoints.checked(bad, True)
        assert (bad.ejected, bad.on_probation) == (False, True)

    in_a_loop(test)


def test_all_get_traffic_and_an_alarm_is_raised_once_when_all_are_in_trouble() -> None:
    async def test() -> None:
        endpoints, _ = make(3)
        one, two, three = endpoints.all
        fail(endpoints, one, 2)
        with capture_logs() as logs:
            endpoints.checked(two, False, "no connection")
            endpoints.checked(three, False, "no connection")
            fail(endpoints, two)
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["backends_all_in_trouble"]
        assert {endpoints.choose() for _ in range(3)} == {one, two, three}
        endpoints.checked(three, True)
        assert endpoints.choose() is three
        endpoints.release()

    in_a_loop(test)
