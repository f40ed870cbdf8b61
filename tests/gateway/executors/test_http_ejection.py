"""Backends that fail again and again are left out, and only those: real servers that misbehave, behind one version."""

import asyncio
from collections import Counter

import pytest

from gateway.errors import BackendUnreachable, DeadlineExceeded, ServingError
from gateway.executors.http import HttpExecutor
from gateway.messages import Work
from tests.conftest import until
from tests.gateway.executors.http_parts import Reply, backend, closed_url, execute, executor, http, never, run, work

BAD_ENDINGS: dict[str, tuple[Reply, dict[str, int]]] = {
    "502": (lambda *_: http(b"", "502 Bad Gateway"), {}),
    "503": (lambda *_: http(b"", "503 Service Unavailable"), {}),
    "504": (lambda *_: http(b"", "504 Gateway Timeout"), {}),
    "cut off": (lambda *_: b"", {}),
    "no HTTP": (lambda *_: b"\x16\x03\x01 no HTTP\r\n\r\n", {}),
    "hangs beyond its time-out": (lambda *_: never(), {"timeout_ms": 300}),
}


async def backends_asked(version: HttpExecutor, times: int, request: Work | None = None) -> Counter[str]:
    """Send requests one after the other and return how often each URL was asked."""
    asked: Counter[str] = Counter()
    for _ in range(times):
        try:
            asked[(await execute(version, request or work())).backend] += 1
        except ServingError as error:
            asked[error.backend] += 1
    return asked


@pytest.mark.parametrize("ending", BAD_ENDINGS)
def test_url_gets_no_more_requests_when_five_in_a_row_ended_badly(ending: str) -> None:
    reply, options = BAD_ENDINGS[ending]

    async def test() -> None:
        async with (
            backend(lambda *_: http()) as good,
            backend(reply) as bad,
            executor(bad, good, **options) as version,
        ):
            assert await backends_asked(version, 40) == {bad: 5, good: 35}

    run(test())


def test_url_gets_no_more_requests_when_nobody_listens_there() -> None:
    async def test() -> None:
        bad = closed_url()
        async with backend(lambda *_: http()) as good, executor(bad, good) as version:
            assert await backends_asked(version, 40) == {bad: 5, good: 35}

    run(test())


@pytest.mark.parametrize(
    "status", ["200 OK", "302 Found", "400 Bad Request", "429 Too Many", "500 Oh", "501 No", "505 No"]
)
def test_url_stays_when_it_answers_anything_but_a_gateway_error(status: str) -> None:
    async def test() -> None:
        async with (
            backend(lambda *_: http()) as good,
            backend(lambda *_: http(b"", status)) as other,
            executor(other, good) as version,
        ):
            assert await backends_asked(version, 40) == {other: 20, good: 20}

    run(test())


def test_url_stays_when_callers_asked_for_less_time_than_it_may_take() -> None:
    async def test() -> None:
        async with (
            backend(lambda *_: never()) as slow,
            backend(lambda *_: http()) as good,
            executor(slow, good) as version,
        ):
            for _ in range(10):
                hurried = [execute(version, work(seconds=0.05, timeout_ms=30_000)) for _ in range(2)]
                ended = await asyncio.gather(*hurried, return_exceptions=True)
                assert any(isinstance(one, DeadlineExceeded) for one in ended)
            assert [endpoint.failures for endpoint in version._endpoints.all] == [0, 0]

    run(test())


def test_url_is_left_out_when_it_hangs_for_all_of_the_routes_time() -> None:
    async def test() -> None:
        async with (
            backend(lambda *_: never()) as slow,
            backend(lambda *_: http()) as good,
            executor(slow, good) as version,
        ):
            for _ in range(50):  # a busy machine may make one of them start too late to count
                pair = (execute(version, work(seconds=0.2, timeout_ms=200)) for _ in range(2))
                await asyncio.gather(*pair, return_exceptions=True)
                if version._endpoints.all[0].ejected:
                    break
            assert [endpoint.ejected for endpoint in version._endpoints.all] == [True, False]

    run(test())


def test_copies_decide_nothing_for_requests_that_count() -> None:
    async def test() -> None:
        async with (
            backend(lambda *_: http(b"", "503 No")) as bad,
            backend(lambda *_: http()) as good,
            executor(bad, good) as version,
        ):
            copies = [work(lane="shadow") for _ in range(20)]
            for copy in copies:
                await execute(version, copy)
            assert all(endpoint.standing and not endpoint.failures for endpoint in version._endpoints.all)

    run(test())


def test_url_serves_again_when_it_has_recovered() -> None:
    async def test() -> None:
        broken = True

        def reply(*_: object) -> bytes:
            return http(b"", "503 No") if broken else http()

        async with (
            backend(reply) as flaky,
            backend(lambda *_: http()) as good,
            executor(flaky, good, ejection={"after": 3, "for_ms": 20}) as version,
        ):
            assert await backends_asked(version, 20) >= Counter({flaky: 3, good: 10})
            broken = False
            ejected = version._endpoints.all[0]
            await until(lambda: not ejected.ejected)
            assert await backends_asked(version, 10) == {flaky: 5, good: 5}
            assert not ejected.marked

    run(test())


def test_one_url_alone_is_asked_for_ever() -> None:
    async def test() -> None:
        url = closed_url()
        async with executor(url) as version:
            for _ in range(30):
                with pytest.raises(BackendUnreachable):
                    await execute(version)
            async with backend(lambda *_: http(), url):
                assert (await execute(version)).rendered.status == 200

    run(test())


@pytest.mark.parametrize("after", [0, 5])
def test_a_dead_url_no_longer_draws_traffic_by_failing_fast(after: int) -> None:
    """A dead URL answers at once, so it looks least busy all the time: without ejection it takes most of a crowd."""

    async def test() -> None:
        dead = closed_url()
        asked: Counter[str] = Counter()

        async def works() -> bytes:
            await asyncio.sleep(0.02)  # what its work takes
            return http()

        async with (
            backend(lambda *_: works()) as one,
            backend(lambda *_: works()) as two,
            executor(one, dead, two, ejection={"after": after}) as version,
        ):

            async def caller() -> None:
                for _ in range(20):
                    asked.update(await backends_asked(version, 1))

            await asyncio.gather(*(caller() for _ in range(10)))
        assert sum(asked.values()) == 200
        if after:
            assert asked[dead] <= 5 + 10  # and those that were under way
        else:
            assert asked[dead] > 100

    run(test())
