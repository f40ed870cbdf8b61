"""More connections than are allowed: answered and closed at once, while those that are there are served."""

import asyncio
import socket
from pathlib import Path

import pytest

from gateway.metrics import Board, Slot
from tests.conftest import until
from tests.gateway.wire.open_port import INFER, Opened, get, on_port, post, replies_in, settled, tell

HEALTH = get("/v2/health/live", "Connection: close")


async def connect(opened: Opened, count: int) -> list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    made = [await asyncio.open_connection("127.0.0.1", opened.number) for _ in range(count)]
    await until(lambda: len(opened.port.connections) == count)
    return made


@pytest.mark.parametrize("message", [b"", post(INFER, b"x"), post(INFER, b"x" * 60_000), HEALTH, b"nonsense\r\n\r\n"])
def test_a_connection_too_many_is_told_so_whatever_it_asks(message: bytes) -> None:
    async def check(opened: Opened) -> None:
        made = await connect(opened, 3)
        (reply,) = replies_in(await tell(opened.number, message))
        assert (reply.status, reply.headers["connection"]) == (503, "close")
        assert reply.headers["retry-after"] == "1"
        assert b"too many connections" in reply.body
        assert opened.echo.seen == []
        for _, writer in made:
            writer.close()

    on_port(check, max_connections=3)


def test_connections_that_are_there_are_served_while_others_are_turned_away() -> None:
    async def check(opened: Opened) -> None:
        ((reader, writer),) = await connect(opened, 1)
        for number in range(3):
            await tell(opened.number, b"")
            writer.write(post(INFER, b"%d" % number))
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            await until(lambda: len(opened.echo.seen) == number + 1)  # noqa: B023 - called in this very turn
        writer.close()

    on_port(check, max_connections=1)


def test_there_is_room_again_when_a_connection_ends() -> None:
    async def check(opened: Opened) -> None:
        ((_, writer),) = await connect(opened, 1)
        writer.close()
        await until(lambda: not opened.port.connections)
        (reply,) = replies_in(await tell(opened.number, HEALTH))
        assert reply.status == 200

    on_port(check, max_connections=1)


def test_a_busy_loop_accepts_many_connections_in_one_turn() -> None:
    async def check(opened: Opened) -> None:
        loop, turns = asyncio.get_running_loop(), 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            if len(opened.port.connections) < 160:
                loop.call_soon(turn)

        waiting = [socket.create_connection(("127.0.0.1", opened.number)) for _ in range(160)]  # none accepted yet
        turn()
        await until(lambda: len(opened.port.connections) == 160)
        assert turns < 40
        for one in waiting:
            one.close()

    on_port(check)


def test_a_flood_of_connections_leaves_none_behind() -> None:
    async def check(opened: Opened) -> None:
        answers = await asyncio.gather(
            *(tell(opened.number, post(INFER, b"x", "Connection: close")) for _ in range(200))
        )
        statuses = {reply.status for answer in answers for reply in replies_in(answer)}
        assert statuses <= {200, 503}
        assert 503 in statuses
        assert await settled(lambda: len(opened.port.connections)) == 0

    on_port(check, max_connections=5)


def test_connections_are_counted_on_the_board(tmp_path: Path) -> None:
    board = Board(tmp_path / "board")

    async def check(opened: Opened) -> None:
        opened.port.board = board
        made = await connect(opened, 2)
        assert board[Slot.CONNECTIONS] == 2
        await tell(opened.number, b"")
        assert board[Slot.CONNECTIONS_REFUSED] == 1
        for _, writer in made:
            writer.close()
        await until(lambda: board[Slot.CONNECTIONS] == 0)

    on_port(check, max_connections=2)
    board.close()
