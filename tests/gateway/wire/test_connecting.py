"""From a name to a connection: each time anew, the first address that answers, and in words when none does."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.errors import BackendUnreachable
from gateway.tasks import Tasks
from gateway.wire.connecting import Address, Dialled, by_turns, race, resolve
from tests.gateway.wire.backends import Server, answering, keep_answering, make_client, open_sockets, send, until
from tests.gateway.wire.conftest import Run

V4, V6 = socket.AF_INET, socket.AF_INET6
CLOSE = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


class Names:
    """A resolver that a test fills, and that counts what it is asked."""

    def __init__(self, *addresses: Address) -> None:
        self.addresses: Sequence[Address] = addresses
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append((host, port))
        return self.addresses


@asynccontextmanager
async def black_hole(host: str, port: int) -> AsyncIterator[None]:
    """Listen at an address that accepts nobody: connecting to it neither succeeds nor fails."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind((host, port))
        full.listen(0)
        for filler in (first, second):  # a backlog of 0 still holds one
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield


def test_families_take_turns_and_keep_their_order() -> None:
    given = [(V6, "a"), (V6, "b"), (V6, "c"), (V4, "d"), (V4, "e")]
    assert by_turns(given) == [(V6, "a"), (V4, "d"), (V6, "b"), (V4, "e"), (V6, "c")]
    assert by_turns(given[3:] + given[:1]) == [(V4, "d"), (V6, "a"), (V4, "e")]
    assert by_turns(given[:1]) == given[:1]
    assert by_turns([]) == []


def test_address_is_its_own_and_a_name_has_those_that_the_system_knows(run: Run) -> None:
    async def work() -> None:
        assert await resolve("127.0.0.1", 1) == [(V4, "127.0.0.1")]
        assert await resolve("::1", 1) == [(V6, "::1")]
        assert {address for _, address in await resolve("localhost", 1)} & {"127.0.0.1", "::1"}

    run(work())


def test_every_connection_asks_for_the_name_anew_and_follows_it_when_it_moves(run: Run) -> None:
    async def work() -> None:
        names = Names((V4, "127.0.0.1"))
        client = make_client(resolve=names)
        async with Server(answering(CLOSE)) as old, Server(keep_answering, host="127.0.0.2", port=old.port) as new:
            url = f"http://model.example:{old.port}"
            await send(client, url)
            assert (old.connections, new.connections) == (1, 0)
            names.addresses = [(V4, "127.0.0.2")]
            for _ in range(3):
                await send(client, url)
            assert (old.connections, new.connections) == (1, 1)
            assert names.asked == [("model.example", old.port)] * 2
        await client.close()

    run(work())


def test_next_address_is_tried_at_once_when_one_refuses(run: Run) -> None:
    async def work() -> None:
        names = Names((V4, "127.0.0.3"), (V6, "::1"), (V4, "127.0.0.4"), (V4, "127.0.0.1"))
        client = make_client(resolve=names)
        async with Server(keep_answering) as server:
            assert (await send(client, f"http://model.example:{server.port}")).body == b"ok"
        await client.close()

    run(work())


def test_next_address_is_tried_when_one_does_not_answer_and_nothing_is_left_of_that(run: Run) -> None:
    async def work() -> None:
        before = open_sockets()
        names = Names((V4, "127.0.0.5"), (V4, "127.0.0.1"))
        client = make_client(resolve=names, connect_timeout_ms=10_000)
        async with Server(keep_answering) as server, black_hole("127.0.0.5", server.port):
            listening = open_sockets()
            assert (await send(client, f"http://model.example:{server.port}")).body == b"ok"
            assert server.connections == 1
            await until(lambda: open_sockets() <= listening + 2, "the attempt that lost is still there")
        await client.close()
        await until(lambda: open_sockets() <= before, "sockets are left")

    run(work())


def test_only_one_connection_is_kept_when_two_addresses_answer(run: Run) -> None:
    async def slowly(host: str, port: int) -> Sequence[Address]:
        return [(V4, "127.0.0.5"), (V4, "127.0.0.1"), (V4, "127.0.0.2")]

    async def work() -> None:
        before = open_sockets()
        client = make_client(resolve=slowly, connect_timeout_ms=10_000)
        async with (
            Server(keep_answering) as one,
            Server(keep_answering, host="127.0.0.2", port=one.port) as other,
            black_hole("127.0.0.5", one.port),
        ):
            listening = open_sockets()
            for _ in range(3):
                assert (await send(client, f"http://model.example:{one.port}")).body == b"ok"
            await until(lambda: open_sockets() <= listening + 2, "a connection that lost is still there")
            assert one.connections + other.connections - one.closed - other.closed == 1
        await client.close()
        await until(lambda: open_sockets() <= before, "sockets are left")

    run(work())


def test_connections_that_come_together_are_closed_but_for_one(run: Run) -> None:
    async def work() -> None:
        loop, tasks, together = asyncio.get_running_loop(), Tasks(), asyncio.Event()
        async with Server(keep_answering) as server:
            made: list[Dialled[asyncio.Protocol]] = []

            async def dial(address: Address) -> Dialled[asyncio.Protocol]:
                made.append(await loop.create_connection(asyncio.Protocol, address[1], server.port))
                mine = made[-1]
                if len(made) == 2:
                    together.set()
                await together.wait()
                return mine

            addresses = [(V4, "127.0.0.1")] * 2
            transport, _ = await race(addresses, dial, tasks)
            assert sorted(other.is_closing() for other, _ in made) == [False, True]
            assert not transport.is_closing()
            transport.abort()

            made.clear()
            together.clear()
            racing = asyncio.create_task(race(addresses, dial, tasks))
            await until(lambda: len(made) == 1, "the first connection was not made")
            together.set()
            await asyncio.sleep(0)  # now it is there, but the race has not been told
            racing.cancel()
            await asyncio.wait([racing])
            assert all(other.is_closing() for other, _ in made)
            await tasks.cancel()

    run(work())


def test_reasons_of_all_addresses_are_told_when_none_answers(run: Run) -> None:
    async def work() -> None:
        client = make_client(resolve=Names((V4, "127.0.0.3"), (V4, "127.0.0.4"), (V6, "127.0.0.1")))
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://model.example:{unused.getsockname()[1]}"
            with pytest.raises(BackendUnreachable, match=r"Connection refused; \w+") as refused:
                await send(client, url)
            assert refused.value.message.count("Connection refused") == 1
            assert "127.0.0" not in refused.value.message
        await client.close()

    run(work())


def test_time_to_connect_bounds_all_attempts_together(run: Run) -> None:
    async def work() -> None:
        before = open_sockets()
        client = make_client(resolve=Names((V4, "127.0.0.5"), (V4, "127.0.0.6")), connect_timeout_ms=400)
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            async with black_hole("127.0.0.5", port), black_hole("127.0.0.6", port):
                with pytest.raises(BackendUnreachable, match="within 400 ms"):
                    await send(client, f"http://model.example:{port}")
        await client.close()
        await until(lambda: open_sockets() <= before, "sockets are left")

    run(work())


def test_time_to_connect_bounds_the_resolver_too(run: Run) -> None:
    async def never(host: str, port: int) -> Sequence[Address]:
        return await asyncio.Event().wait() and []

    async def work() -> None:
        client = make_client(resolve=never, connect_timeout_ms=50)
        with pytest.raises(BackendUnreachable, match=r"no connection to http://model\.example within 50 ms"):
            await send(client, "http://model.example/v2")
        await client.close()

    run(work())


@pytest.mark.parametrize(
    ("url", "why"),
    [
        pytest.param("http://no-such-host.invalid/", r"not known|resolution|No address", id="unknown name"),
        pytest.param(f"http://{'a' * 64}.example/", r"label", id="a name that is none"),
    ],
)
def test_name_that_cannot_be_resolved_is_unreachable(run: Run, url: str, why: str) -> None:
    async def work() -> None:
        client = make_client()
        with pytest.raises(BackendUnreachable, match=why):
            await send(client, url)
        await client.close()

    run(work())


def test_name_without_addresses_is_unreachable(run: Run) -> None:
    async def work() -> None:
        client = make_client(resolve=Names())
        with pytest.raises(BackendUnreachable, match="it has no address"):
            await send(client, "http://model.example/")
        await client.close()

    run(work())


def test_defect_while_connecting_fails_the_requests_that_wait_instead_of_keeping_them(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(host: str, port: int) -> Sequence[Address]:
        raise KeyError(host)

    async def work() -> None:
        client = make_client(resolve=broken, max_connections=1)
        ends = await asyncio.gather(*(send(client, "http://model.example/") for _ in range(3)), return_exceptions=True)
        assert [type(end).__name__ for end in ends] == ["InternalError"] * 3
        await client.close()

    run(work())


def test_backend_with_an_ipv6_address_is_called_by_it(run: Run) -> None:
    heads: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"{}"))
        writer.write(CLOSE)

    async def work() -> None:
        client = make_client()
        async with Server(script, host="::1") as server:
            assert (await send(client, f"http://[::1]:{server.port}/v2")).body == b"ok"
        await client.close()
        assert b"host: [::1]:%d\r\n" % server.port in heads[0]

    run(work())
