"""What is tried again on the same version, where, how often and within which budget: real servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic_ns
from typing import Any

import pytest

from gateway.attempt import Tried, attempt
from gateway.messages import Work
from gateway.metrics import Board, Slot
from gateway.retrying import Retries
from gateway.snapshot import PreparedVersion
from routing import Route, parse_route
from tests.conftest import until
from tests.gateway.executors.http_parts import (
    NOT_ASKED,
    Reply,
    backend,
    closed_url,
    executor,
    http,
    manifest,
    never,
    run,
    work,
)

NEVER_EJECT = {"ejection": {"after": 0}}


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    yield board
    board.close()


class Trying:
    """A version behind URLs, and requests to it with retries."""

    def __init__(self, prepared: PreparedVersion, board: Board) -> None:
        self.prepared = prepared
        self.retries = Retries(board)
        self.versions = {("fraud", "2"): prepared}

    async def infer(self, route: Route, request: Work | None = None) -> list[Tried]:
        """Send one request and return every try, in order."""
        asked = request or work()
        tried = await attempt("2", self.prepared, asked, NOT_ASKED)
        return await self.again(tried, route, asked) if tried.may_fall_back and route.retries else [tried]

    async def again(self, tried: Tried, route: Route, asked: Work) -> list[Tried]:
        """Return a try that failed and those that follow."""
        tries = [tried]
        last = await self.retries.run(
            tried,
            version="2",
            prepared=self.prepared,
            work=asked,
            protocol=NOT_ASKED,
            route=route,
            versions=self.versions,
            note=tries.append,
        )
        assert last is tries[-1]
        return tries


@asynccontextmanager
async def trying(board: Board, *urls: str, **options: Any) -> AsyncIterator[Trying]:
    async with executor(*urls, **NEVER_EJECT | options) as version:
        yield Trying(PreparedVersion(manifest(*urls), version), board)


def route(**fields: Any) -> Route:
    return parse_route({"model": "fraud", "split": {"2": 10_000}, **fields})


def seen(tries: list[Tried]) -> list[tuple[str, str | int | None]]:
    """Return the backend of each try, and its error or status."""
    return [(one.attempt.backend, one.attempt.error or one.attempt.status) for one in tries]


WHOLE_FAILURES: dict[str, tuple[Reply, str | int]] = {
    "502": (lambda *_: http(b"", "502 Bad Gateway"), 502),
    "503": (lambda *_: http(b"", "503 Service Unavailable"), 503),
    "504": (lambda *_: http(b"", "504 Gateway Timeout"), 504),
    "cut before any answer": (lambda *_: b"", "backend_unreachable"),
}
OTHER_FAILURES: dict[str, tuple[Reply, str | int]] = {
    "500": (lambda *_: http(b"", "500 Oh"), 500),
    "501": (lambda *_: http(b"", "501 Not Implemented"), 501),
    "cut in the answer": (lambda *_: b"HTTP/1.1 200 OK\r\ncontent-", "backend_unreachable"),
    "no HTTP": (lambda *_: b"nonsense\r\n\r\n", "backend_protocol_error"),
    "hangs": (lambda *_: never(), "deadline_exceeded"),
}


@pytest.mark.parametrize("failure", WHOLE_FAILURES)
def test_another_url_is_asked_when_the_route_is_idempotent(board: Board, failure: str) -> None:
    reply, what = WHOLE_FAILURES[failure]

    async def test() -> None:
        async with backend(reply) as bad, backend(lambda *_: http()) as good, trying(board, bad, good) as at:
            assert seen(await at.infer(route(idempotent=True))) == [(bad, what), (good, 200)]

    run(test())


@pytest.mark.parametrize("failure", WHOLE_FAILURES)
def test_nothing_is_repeated_that_a_backend_may_have_seen_when_the_route_is_not_idempotent(
    board: Board, failure: str
) -> None:
    reply, what = WHOLE_FAILURES[failure]

    async def test() -> None:
        async with backend(reply) as bad, backend(lambda *_: http()) as good, trying(board, bad, good) as at:
            assert seen(await at.infer(route(retries=3))) == [(bad, what)]

    run(test())


@pytest.mark.parametrize("failure", OTHER_FAILURES)
def test_other_failures_are_final_even_when_the_route_is_idempotent(board: Board, failure: str) -> None:
    reply, what = OTHER_FAILURES[failure]

    async def test() -> None:
        async with (
            backend(reply) as bad,
            backend(lambda *_: http()) as good,
            trying(board, bad, good, timeout_ms=1_000) as at,
        ):
            assert seen(await at.infer(route(idempotent=True, retries=3))) == [(bad, what)]

    run(test())


@pytest.mark.parametrize("idempotent", [False, True])
def test_what_reached_no_backend_is_sent_to_another_url_on_any_route(board: Board, idempotent: bool) -> None:
    async def test() -> None:
        dead = closed_url()
        async with backend(lambda *_: http()) as good, trying(board, dead, good) as at:
            tries = await at.infer(route(idempotent=idempotent))
            assert seen(tries) == [(dead, "backend_unreachable"), (good, 200)]

    run(test())


@pytest.mark.parametrize(("idempotent", "tries"), [(False, 1), (True, 4)])
def test_the_only_url_is_asked_again_just_when_the_route_is_idempotent(
    board: Board, idempotent: bool, tries: int
) -> None:
    async def test() -> None:
        dead = closed_url()
        async with trying(board, dead) as at:
            assert (
                seen(await at.infer(route(idempotent=idempotent, retries=3))) == [(dead, "backend_unreachable")] * tries
            )

    run(test())


def test_each_url_is_asked_once_before_any_is_asked_again(board: Board) -> None:
    async def test() -> None:
        dead = [closed_url() for _ in range(3)]
        async with trying(board, *dead) as at:
            tries = await at.infer(route(retries=3))
            assert sorted(backend for backend, _ in seen(tries)) == sorted(dead)
            again = work()
            tries = await at.infer(route(idempotent=True, retries=3), again)
            assert sorted(backend for backend, _ in seen(tries)[:3]) == sorted(dead)
            assert len(tries) == 4
            assert again.avoid == ()

    run(test())


def test_nothing_is_tried_again_when_the_route_says_so(board: Board) -> None:
    async def test() -> None:
        async with backend(lambda *_: http()) as good, trying(board, dead := closed_url(), good) as at:
            assert seen(await at.infer(route(idempotent=True, retries=0))) == [(dead, "backend_unreachable")]

    run(test())


def test_no_try_begins_when_the_deadline_has_passed_or_would_in_the_pause(board: Board) -> None:
    async def test() -> None:
        async with backend(lambda *_: http(b"", "503 No")) as bad, trying(board, bad) as at:
            asked = work()
            failed = await attempt("2", at.prepared, asked, NOT_ASKED)
            asked.deadline_ns = monotonic_ns()
            assert await at.again(failed, route(idempotent=True, retries=3), asked) == [failed]

    run(test())


class Crowd:
    """A backend that holds whatever comes until it may answer, always with 503; it counts what it was asked."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.asked = 0

    def __call__(self, *_: object) -> Awaitable[bytes]:
        self.asked += 1
        return self._answer()

    async def _answer(self) -> bytes:
        await self.may.wait()
        return http(b"", "503 No")


@pytest.mark.parametrize(("under_way", "allowed"), [(0, 3), (10, 3), (30, 7)])
def test_retries_at_once_are_a_fifth_of_the_requests_under_way_and_always_three(
    board: Board, under_way: int, allowed: int
) -> None:
    # Tries made again are themselves under way: of 30 and 7, a fifth is 7.
    async def test() -> None:
        held, holds = Crowd(), Crowd()
        async with backend(held) as busy, backend(holds) as other, trying(board, busy) as at, executor(other) as more:
            at.versions["fraud", "3"] = PreparedVersion(manifest(other), more)
            both = route(idempotent=True, retries=1, split={"2": 5_000, "3": 5_000})
            waiting = [asyncio.create_task(more.execute(work(), NOT_ASKED)) for _ in range(under_way)]
            await until(lambda: holds.asked == under_way)
            held.may.set()
            first = [await attempt("2", at.prepared, work(), NOT_ASKED) for _ in range(12)]
            held.may.clear()
            asked = held.asked
            retries = [asyncio.create_task(at.again(one, both, work())) for one in first]
            await until(lambda: held.asked == asked + allowed and board[Slot.RETRIES_REFUSED] == 12 - allowed)
            assert sum(retry.done() for retry in retries) == 12 - allowed
            held.may.set()
            holds.may.set()
            await asyncio.gather(*retries, *waiting)
            await at.infer(both)
            assert held.asked == asked + allowed + 2
            assert board[Slot.RETRIES_REFUSED] == 12 - allowed

    run(test())


def test_budget_has_room_again_when_a_retry_was_cancelled(board: Board) -> None:
    async def test() -> None:
        async with backend(lambda *_: http(b"", "503 No")) as bad, trying(board, bad) as at:
            for _ in range(10):
                request = asyncio.create_task(at.infer(route(idempotent=True, retries=3)))
                await until(lambda: at.retries._under_way["fraud"] == 1)
                request.cancel()
                await asyncio.wait([request])
            assert at.retries._under_way["fraud"] == 0
            assert board[Slot.RETRIES_REFUSED] == 0

    run(test())


def test_a_dead_url_among_three_costs_no_caller_an_error(board: Board) -> None:
    async def test() -> None:
        async with (
            backend(lambda *_: http()) as one,
            backend(lambda *_: http()) as two,
            trying(board, one, closed_url(), two, ejection={"after": 5}) as at,
        ):
            ends = [await at.infer(route()) for _ in range(60)]
            assert {tries[-1].attempt.status for tries in ends} == {200}
            assert sum(len(tries) == 2 for tries in ends) == 5

    run(test())
