"""Callers who leave at any moment, before a backend that misbehaves at any moment: no reply ever comes to another."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from gateway.errors import BackendProtocolError, BackendUnreachable, DeadlineExceeded
from tests.gateway.wire.backends import (
    CHUNKED,
    Script,
    Server,
    make_client,
    open_sockets,
    read_head,
    read_request,
    send,
    stream,
    until,
)
from tests.gateway.wire.conftest import Run

REQUESTS = 1_500
AT_ONCE = 30
CONNECTIONS = 6


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def echoing(chance: random.Random, *, misbehaves: bool) -> Script:
    """A script that answers with the body of each request: in one of the ways there are, in pieces, after a while.

    When it `misbehaves`, one answer in a few is followed by another for nobody, or the connection ends, at any place.
    """

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, token = await read_request(reader)
            await turns(chance.randrange(4))
            answer = chance.choice(
                [
                    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(token), token),
                    CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(token), token),
                    b"HTTP/1.1 103 Hints\r\n\r\n" + CHUNKED + b"%x\r\n%b\r\n0\r\nx: y\r\n\r\n" % (len(token), token),
                ]
            )
            ends = chance.random() < 0.15
            # A second answer comes with the last byte of the first. If it came in its own time, when the next request
            # has been sent, nobody could tell that it is not the answer to that.
            place = chance.randrange(len(answer))
            if misbehaves and chance.random() < 0.1:
                answer += b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong"
                ends = True
            if misbehaves and chance.random() < 0.1:
                answer, ends = answer[: chance.randrange(len(answer))], True
            writer.write(answer[:place])
            await turns(chance.randrange(3))
            writer.write(answer[place:])
            if ends:
                return

    return script


@pytest.mark.parametrize("misbehaves", [False, True], ids=["behaving", "misbehaving"])
def test_every_reply_is_the_callers_own_when_others_leave_at_random_moments(run: Run, misbehaves: bool) -> None:
    chance = random.Random(7)
    outcomes = dict.fromkeys(("answered", "left", "failed"), 0)

    async def work() -> None:
        before = open_sockets()
        client = make_client(max_connections=CONNECTIONS)
        async with Server(echoing(chance, misbehaves=misbehaves)) as server:
            listening = open_sockets()

            async def ask(number: int) -> None:
                token = b"%d:" % number + b"x" * chance.randrange(200)
                reply = await send(client, server.url, body=token)
                assert reply.body == token, "a reply came to another caller"

            async def ask_and_perhaps_leave(number: int) -> None:
                asking = asyncio.create_task(ask(number))
                if chance.random() < 0.6:
                    await turns(chance.randrange(25))
                    asking.cancel()
                (end,) = await asyncio.gather(asking, return_exceptions=True)
                if isinstance(end, asyncio.CancelledError):
                    outcomes["left"] += 1
                elif isinstance(end, BackendUnreachable | BackendProtocolError):
                    outcomes["failed"] += 1
                else:
                    assert end is None, repr(end)
                    outcomes["answered"] += 1

            async def one_after_another(numbers: range) -> None:
                for number in numbers:
                    await ask_and_perhaps_leave(number)

            await asyncio.gather(*(one_after_another(range(at, REQUESTS, AT_ONCE)) for at in range(AT_ONCE)))
            assert outcomes["left"] > REQUESTS / 5
            assert outcomes["answered"] > REQUESTS / 5
            assert misbehaves or not outcomes["failed"]
            await until(lambda: open_sockets() <= listening + 2 * CONNECTIONS, "sockets beyond idle ones are left")
            await client.close()
            await until(lambda: open_sockets() <= listening, "sockets are left after close")
        await until(lambda: open_sockets() <= before, "sockets are left after the test")
        await until(lambda: len(asyncio.all_tasks()) == 1, "tasks are left")

    run(work())


def test_every_slot_is_still_there_after_callers_left_at_every_instant(run: Run) -> None:
    together = asyncio.Barrier(CONNECTIONS)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, token = await read_request(reader)
            if token == b"together":
                await together.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(token), token))

    async def work() -> None:
        client = make_client(max_connections=CONNECTIONS)
        async with Server(script) as server:
            for steps in range(60):
                asking = [asyncio.create_task(send(client, server.url)) for _ in range(CONNECTIONS * 2)]
                await turns(steps)
                for task in asking:
                    task.cancel()
                await asyncio.wait(asking)
                if steps % 10 == 0:
                    slots = [send(client, server.url, body=b"together") for _ in range(CONNECTIONS)]
                    assert {reply.body for reply in await asyncio.gather(*slots)} == {b"together"}
        await client.close()

    run(work())


def test_deadlines_that_pass_at_any_moment_cross_no_replies(run: Run) -> None:
    chance = random.Random(11)

    async def work() -> None:
        client = make_client(max_connections=CONNECTIONS)
        async with Server(echoing(chance, misbehaves=False)) as server:
            late = 0

            async def ask(number: int) -> None:
                nonlocal late
                token = b"%d" % number
                try:
                    reply = await send(client, server.url, body=token, seconds=chance.random() * 0.01)
                except DeadlineExceeded:
                    late += 1
                else:
                    assert reply.body == token, "a reply came to another caller"

            for start in range(0, 600, AT_ONCE):
                await asyncio.gather(*(ask(number) for number in range(start, start + AT_ONCE)))
            assert late
            assert (await send(client, server.url, body=b"last")).body == b"last"
        await client.close()

    run(work())


def test_streams_and_whole_replies_do_not_cross_when_readers_leave_early(run: Run) -> None:
    chance = random.Random(13)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            token = head[0].split()[1].encode()
            if "transfer-encoding: chunked" in head:
                await reader.readuntil(b"0\r\n\r\n")
            else:
                await reader.readexactly(2)
            writer.write(CHUNKED)
            for _ in range(4):
                writer.write(b"%x\r\n%b\r\n" % (len(token), token))
                await turns(chance.randrange(3))
            writer.write(b"0\r\n\r\n")

    async def work() -> None:
        client = make_client(max_connections=CONNECTIONS)
        async with Server(script) as server:

            async def body() -> AsyncIterator[bytes]:
                yield b"some"
                yield b"more"

            async def read(number: int) -> None:
                token = b"/%d" % number
                upload = body() if chance.random() < 0.5 else b"{}"
                async with stream(client, server.url + token.decode(), body=upload) as answer:
                    left = chance.randrange(6)
                    arrived = b""
                    async for part in answer:
                        arrived += part
                        left -= 1
                        if not left:
                            break
                    assert (token * 4).startswith(arrived)

            async def ask(number: int) -> None:
                token = f"/{number}"
                assert (await send(client, server.url + token)).body == token.encode() * 4

            for start in range(0, 600, AT_ONCE):
                numbers = range(start, start + AT_ONCE)
                await asyncio.gather(*(read(number) if chance.random() < 0.5 else ask(number) for number in numbers))
        await client.close()

    run(work())
