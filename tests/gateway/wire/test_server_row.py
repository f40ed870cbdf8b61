"""Replies that wait for each other: those of one group of records leave in a row, and none is lost or out of order."""

import asyncio
import select

from gateway.arrival import Arrival
from gateway.messages import WireReply, WireRequest
from tests.conftest import until
from tests.gateway.wire.open_port import INFER, Echo, Opened, get, on_port, post, replies_in

CLOSE = "Connection: close"


class Grouped(Echo):
    """Answers when its group is told, as requests do that wait for their records."""

    def __init__(self) -> None:
        super().__init__()
        self.group: Arrival[None] = Arrival()

    async def handle(self, request: WireRequest) -> WireReply:
        self.seen.append(request)
        await self.group
        self.seen.pop()
        return await super().handle(request)


def readable(*writers: asyncio.StreamWriter) -> int:
    """Count the connections over which something has come that nobody has read."""
    sockets = [writer.get_extra_info("socket") for writer in writers]
    return len(select.select(sockets, [], [], 0)[0])


def test_replies_of_a_group_leave_in_a_row_when_all_have_been_told() -> None:
    face = Grouped()

    async def check(opened: Opened) -> None:
        connections = [await asyncio.open_connection("127.0.0.1", opened.number) for _ in range(3)]
        writers = [writer for _, writer in connections]
        for number, writer in enumerate(writers):
            writer.write(post(INFER, b"%d" % number, *([CLOSE] if number == 2 else [])))
        await until(lambda: len(face.seen) == 3)
        with opened.port.row:
            face.group.arrive(None)
            assert readable(*writers) == 1  # of the connection that ends with its reply
        assert readable(*writers) == 3
        for number, (reader, writer) in enumerate(connections):
            writer.write(get("/v2/health/live", CLOSE) if number < 2 else b"")
            replies = replies_in(await reader.read())
            assert replies[0].echoed["body"] == str(number)
            assert len(replies) == 1 + (number < 2)
            writer.close()

    on_port(check, echo=face)


def test_replies_on_one_connection_keep_their_order_in_a_row() -> None:
    face = Grouped()

    async def check(opened: Opened) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        bodies = [b"%d" % number for number in range(5)]
        writer.write(b"".join(post(INFER, body) for body in bodies) + post(INFER, b"last", CLOSE))
        await until(lambda: len(face.seen) == 1)
        with opened.port.row:
            face.group.arrive(None)
        replies = replies_in(await reader.read())
        assert [reply.echoed["body"] for reply in replies] == ["0", "1", "2", "3", "4", "last"]
        writer.close()

    on_port(check, echo=face)


def test_a_caller_that_is_gone_when_its_reply_leaves_is_passed_over() -> None:
    face = Grouped()

    async def check(opened: Opened) -> None:
        connections = [await asyncio.open_connection("127.0.0.1", opened.number) for _ in range(2)]
        for _, writer in connections:
            writer.write(post(INFER, b"x"))
        await until(lambda: len(face.seen) == 2)
        with opened.port.row:
            face.group.arrive(None)
            for connection in list(opened.port.connections)[:1]:
                connection.abort()
        answered = [bool(await reader.read(1)) for reader, _ in connections]
        assert sorted(answered) == [False, True]
        for _, writer in connections:
            writer.close()

    on_port(check, echo=face)
