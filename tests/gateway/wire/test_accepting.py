"""Who takes a connection: the worker that it was dealt to, or, when that leaves it waiting, a sibling."""

import asyncio
import resource
import select
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from gateway.config import LimitSettings, TlsSettings
from gateway.wire.accepting import Accepting
from gateway.wire.asgi import AsgiFace
from gateway.wire.listening import Listening, bind_for_each
from gateway.wire.port import Port
from gateway.wire.serving import serve_data_until
from tests.conftest import until
from tests.gateway.wire.open_port import INFER, Echo, get, replies_in, run, tell

ASK = get(INFER, "Connection: close")


class Desk:
    """An `Accepting` that keeps what it accepts, and counts its looks.

    `may` and `room` are what it is told, and `between` is done before each look.
    """

    def __init__(self, own: socket.socket, *siblings: socket.socket) -> None:
        self.taken: list[socket.socket] = []
        self.peers: set[object] = set()
        self.looks = 0
        self.may = self.room = True
        self.between: Callable[[], object] = lambda: None
        held = Listening(own.dup(), tuple(one.dup() for one in siblings))
        self.accepting = Accepting(held, self._take, may=self._look, has_room=lambda: self.room)

    def _look(self) -> bool:
        self.looks += 1
        self.between()
        return self.may

    async def _take(self, accepted: socket.socket) -> None:
        self.taken.append(accepted)
        with suppress(OSError):  # it has hung up already
            self.peers.add(accepted.getpeername())

    async def look(self, times: int = 1) -> None:
        """Wait for looks."""
        seen = self.looks
        await until(lambda: self.looks >= seen + times)

    def __enter__(self) -> "Desk":
        self.accepting.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.accepting.close()
        for one in self.taken:
            one.close()


@contextmanager
def sockets(count: int) -> Iterator[tuple[socket.socket, ...]]:
    opened = bind_for_each(count, "127.0.0.1", 0, "port")
    try:
        yield opened
    finally:
        for one in opened:
            one.close()


def waits(listening: socket.socket) -> bool:
    return bool(select.select([listening], [], [], 0)[0])


@contextmanager
def dealt_to(listening: socket.socket, count: int = 1) -> Iterator[list[socket.socket]]:
    """Connect until `count` connections wait at this one of several sockets; what the others get is closed again."""
    address, dealt = listening.getsockname(), list[socket.socket]()
    before = waiting(listening)
    while len(dealt) < count:
        one = socket.create_connection(address)
        if waiting(listening) > before + len(dealt):
            dealt.append(one)
        else:
            one.close()
    try:
        yield dealt
    finally:
        for one in dealt:
            one.close()


def waiting(listening: socket.socket) -> int:
    """Return how many connections wait there: of a socket that listens, Linux tells so as `tcpi_unacked`."""
    told = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int.from_bytes(told[24:28], "little")


def names(connected: list[socket.socket]) -> set[object]:
    return {one.getsockname() for one in connected}


def accept_all(listening: socket.socket) -> None:
    while waits(listening):
        listening.accept()[0].close()


# ── one worker's looks ───────────────────────────────────────────────────────────────────────────────────────────


def test_own_connections_are_accepted_as_they_come_and_more_than_fit_in_one_turn() -> None:
    async def check() -> None:
        with sockets(1) as (own,), Desk(own) as desk, dealt_to(own, 200):
            await until(lambda: len(desk.taken) == 200)

    run(check())


def test_what_a_sibling_leaves_waiting_at_two_looks_is_taken_all_of_it() -> None:
    async def check() -> None:
        with sockets(2) as (own, other), Desk(own, other) as desk:
            await desk.look()
            with dealt_to(other, 200) as dealt:
                await until(lambda: desk.peers >= names(dealt))
                assert not waits(other)

    run(check())


def test_a_burst_that_a_sibling_takes_in_time_stays_with_it() -> None:
    async def check() -> None:
        with sockets(2) as (own, other), Desk(own, other) as desk:
            for _ in range(5):
                with dealt_to(other, 20) as dealt:
                    after = desk.looks + 1
                    desk.between = lambda after=after: accept_all(other) if desk.looks > after else None  # type: ignore[misc]
                    await desk.look(3)
                    assert not waits(other)
                    assert not desk.peers & names(dealt)

    run(check())


def test_a_sibling_that_is_gone_again_and_again_is_stood_in_for_at_every_look() -> None:
    async def check() -> None:
        with sockets(2) as (own, other), Desk(own, other):
            for _ in range(10):
                with dealt_to(other, 3):
                    await until(lambda: not waits(other))

    run(check())


def test_one_that_may_not_accept_takes_nothing_until_it_may() -> None:
    async def check() -> None:
        with sockets(2) as (own, other), Desk(own, other) as desk:
            desk.may = False
            await desk.look()
            desk.taken.clear()
            with dealt_to(own), dealt_to(other):
                await desk.look(4)
                assert desk.taken == []
                assert waits(own)
                desk.may = True
                await until(lambda: not waits(own) and not waits(other))

    run(check())


def test_one_without_room_takes_its_own_to_refuse_them_and_leaves_those_of_others() -> None:
    async def check() -> None:
        with sockets(2) as (own, other), Desk(own, other) as desk:
            desk.room = False
            await desk.look()
            with dealt_to(other), dealt_to(own):
                await desk.look(4)
                assert waits(other)
                assert not waits(own)
                desk.room = True
                await until(lambda: not waits(other))

    run(check())


def test_what_waits_when_a_worker_closes_is_there_for_the_next() -> None:
    async def check() -> None:
        with sockets(1) as (own,):
            with Desk(own):
                pass
            with dealt_to(own, 5), Desk(own) as desk:
                await until(lambda: len(desk.taken) == 5)

    run(check())


def test_a_process_without_descriptors_rests_and_accepts_later(capfd: pytest.CaptureFixture[str]) -> None:
    async def check() -> None:
        with sockets(1) as (own,), Desk(own) as desk:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with dealt_to(own):
                lowest_free = own.dup()
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free.fileno(), hard))
                lowest_free.close()
                filled = fill()
                try:
                    await desk.look(3)
                    assert desk.taken == []
                    assert waits(own)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                    for one in filled:
                        one.close()
                await until(lambda: len(desk.taken) == 1)

    run(check())
    assert capfd.readouterr().out.count("cannot_accept") == 1


def fill() -> list[socket.socket]:
    """Use up every descriptor that the limit leaves."""
    filled: list[socket.socket] = []
    while True:
        try:
            filled.append(socket.socket())
        except OSError:
            return filled


# ── workers that serve ───────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def serving(
    own: socket.socket, *siblings: socket.socket, may: Callable[[], bool] = lambda: True, most: int = 10_000
) -> AsyncIterator[tuple[Port, asyncio.Event]]:
    """Serve an `Echo` by sockets of which others have some, too; the event ends it."""
    echo = Echo()
    port = Port(echo, AsgiFace(echo.handle, 2**20), LimitSettings(max_connections=most))
    stop, held = asyncio.Event(), Listening(own.dup(), tuple(one.dup() for one in siblings))
    ending = asyncio.create_task(serve_data_until(stop, port, held, TlsSettings(), 2.0, may_accept=may))
    try:
        yield port, stop
    finally:
        stop.set()
        await ending


async def statuses(number: int, count: int) -> Counter[int]:
    answers = await asyncio.gather(*(tell(number, ASK) for _ in range(count)))
    return Counter(reply.status for answer in answers for reply in replies_in(answer))


def test_two_workers_share_connections_about_evenly() -> None:
    async def check() -> None:
        with sockets(2) as (a, b):
            async with serving(a, b) as (one, _), serving(b, a) as (other, _):
                made = [await asyncio.open_connection(*a.getsockname()) for _ in range(200)]
                await until(lambda: len(one.connections) + len(other.connections) == 200)
                assert min(len(one.connections), len(other.connections)) >= 50  # by chance: once in 10¹² runs
                for _, writer in made:
                    writer.close()
                await until(lambda: not one.connections and not other.connections)

    run(check())


def test_every_caller_is_served_while_a_sibling_is_missing_draining_or_not_ready() -> None:
    async def check() -> None:
        with sockets(3) as (a, b, c):
            number = a.getsockname()[1]
            async with serving(a, b, c), serving(b, a, c, may=lambda: False):  # nobody serves by the third
                assert await statuses(number, 60) == {200: 60}
                async with serving(c, a, b) as (_, stop):
                    await statuses(number, 20)
                    stop.set()
                    assert await statuses(number, 60) == {200: 60}

    run(check())


def test_a_full_worker_refuses_what_is_dealt_to_it_and_its_sibling_serves_the_rest() -> None:
    async def check() -> None:
        with sockets(2) as (a, b):
            async with serving(a, b, most=1) as (one, _), serving(b, a) as (other, _):
                made = []
                while not one.connections:
                    made.append(await asyncio.open_connection(*a.getsockname()))
                    await until(lambda: len(one.connections) + len(other.connections) >= len(made))
                found = await statuses(a.getsockname()[1], 60)
                assert set(found) == {200, 503}
                for _, writer in made:
                    writer.close()

    run(check())


def test_replies_leave_at_once_on_an_accepted_connection() -> None:
    async def check() -> None:
        with sockets(1) as (own,):
            async with serving(own) as (port, _):
                _, writer = await asyncio.open_connection(*own.getsockname())
                await until(lambda: port.connections)
                (connection,) = port.connections
                accepted = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                writer.close()

    run(check())
