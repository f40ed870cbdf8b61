"""Replies that are asked for whole unless they flow: what is handed on, when, and what becomes of the connection."""

import asyncio
from itertools import pairwise

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from gateway.arrival import Run as Request
from gateway.errors import BackendProtocolError, BackendUnreachable, DeadlineExceeded
from gateway.messages import Headers
from gateway.ports import UpstreamClient, UpstreamReply
from tests.fuzzing import fuzzed
from tests.gateway.wire.backends import (
    CHUNKED,
    Script,
    Server,
    answering,
    make_client,
    open_sockets,
    read_request,
    until,
)
from tests.gateway.wire.conftest import Run

FLOWING = CHUNKED.replace(b"\r\n\r\n", b"\r\nx-flows: yes\r\n\r\n")


def flows(status: int, headers: Headers) -> bool:
    return status == 200 and ("x-flows", "yes") in headers


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def ask(client: UpstreamClient, url: str, seconds: float = 10.0) -> UpstreamReply:
    deadline = int((asyncio.get_running_loop().time() + seconds) * 1e9)  # the loop's clock is the monotonic one
    return await client.request(
        method="POST", url=url, headers=(), body=b"{}", deadline_ns=deadline, lane="primary", flows=flows
    )


class Taken:
    """Starts the flow of a reply and keeps what it hands on."""

    def __init__(self, reply: UpstreamReply) -> None:
        assert reply.flow is not None
        assert reply.body == b""
        self.flow = reply.flow
        self.pieces: list[bytes] = []
        self.ended = reply.flow.start(self.pieces.append)


def stepping(steps: asyncio.Queue[bytes]) -> Script:
    """A script that answers requests with whatever is put into `steps`; nothing more closes the connection."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        while step := await steps.get():
            writer.write(step)
            await writer.drain()

    return script


def test_each_piece_is_handed_on_as_it_comes(run: Run) -> None:
    async def work() -> None:
        steps: asyncio.Queue[bytes] = asyncio.Queue()
        client = make_client()
        async with Server(stepping(steps)) as server:
            steps.put_nowait(FLOWING)
            taken = Taken(await ask(client, server.url))
            for number in range(10):
                steps.put_nowait(chunk(b"%d" % number))
                await until(lambda number=number: len(taken.pieces) == number + 1, "the piece")  # type: ignore[misc]
            assert not taken.ended.come
            steps.put_nowait(b"0\r\n\r\n")
            await taken.ended
            assert b"".join(taken.pieces) == b"0123456789"
        await client.close()

    run(work())


def test_a_reply_that_does_not_flow_comes_whole_whatever_pieces_it_comes_in(run: Run) -> None:
    async def work() -> None:
        steps: asyncio.Queue[bytes] = asyncio.Queue()
        client = make_client(max_response_bytes=10)
        async with Server(stepping(steps)) as server:
            for step in (CHUNKED, chunk(b"ab"), chunk(b"cd"), b"0\r\n\r\n"):
                steps.put_nowait(step)
            reply = await ask(client, server.url)
            assert (reply.body, reply.flow) == (b"abcd", None)
            for step in (b"", CHUNKED, chunk(b"0123456789"), chunk(b"a")):
                steps.put_nowait(step)
            with pytest.raises(BackendProtocolError, match="more than the 10 bytes"):
                await ask(client, server.url)
        await client.close()

    run(work())


def test_a_flowing_reply_may_be_larger_than_what_may_be_kept(run: Run) -> None:
    async def work() -> None:
        steps: asyncio.Queue[bytes] = asyncio.Queue()
        client = make_client(max_response_bytes=10)
        async with Server(stepping(steps)) as server:
            steps.put_nowait(FLOWING)
            taken = Taken(await ask(client, server.url))
            for step in (*[chunk(b"0123456789")] * 20, b"0\r\n\r\n"):
                steps.put_nowait(step)
            await taken.ended
            assert b"".join(taken.pieces) == b"0123456789" * 20
        await client.close()

    run(work())


@pytest.mark.parametrize(
    ("then", "error"),
    [(b"", BackendUnreachable), (b"nonsense\r\n", BackendProtocolError), (None, DeadlineExceeded)],
)
def test_what_breaks_a_flow_off_is_told_at_its_end(run: Run, then: bytes | None, error: type[Exception]) -> None:
    async def work() -> None:
        steps: asyncio.Queue[bytes] = asyncio.Queue()
        client = make_client()
        async with Server(stepping(steps)) as server:
            steps.put_nowait(FLOWING)
            taken = Taken(await ask(client, server.url, 10.0 if then is not None else 0.2))
            steps.put_nowait(chunk(b"some"))
            await until(lambda: bool(taken.pieces), "the piece")
            if then is not None:
                steps.put_nowait(then)
            with pytest.raises(error):
                await taken.ended
            assert taken.pieces == [b"some"]
            if then is None:
                steps.put_nowait(b"")
        await client.close()

    run(work())


def test_closing_a_flow_closes_the_connection_and_hands_nothing_more_on(run: Run) -> None:
    async def work() -> None:
        sockets = open_sockets()
        steps: asyncio.Queue[bytes] = asyncio.Queue()
        client = make_client()
        async with Server(stepping(steps)) as server:
            steps.put_nowait(FLOWING)
            taken = Taken(await ask(client, server.url))
            taken.flow.close()
            steps.put_nowait(chunk(b"late"))
            steps.put_nowait(b"")
            await until(lambda: server.closed == 1, "the connection is closed")
            assert taken.pieces == []
            steps.put_nowait(FLOWING + b"0\r\n\r\n")
            steps.put_nowait(b"")
            assert (await ask(client, server.url)).status == 200
            assert server.connections == 2
        await client.close()
        await until(lambda: open_sockets() <= sockets, "no socket is left")

    run(work())


def test_a_flow_that_is_closed_as_it_begins_hands_nothing_on_of_what_came_with_its_head(run: Run) -> None:
    async def work() -> None:
        pieces: list[bytes] = []
        client = make_client()
        async with Server(answering(FLOWING + chunk(b"some"))) as server:

            async def request() -> None:
                flow = (await ask(client, server.url)).flow
                assert flow is not None
                flow.start(pieces.append)
                flow.close()

            Request(request()).go()
            await until(lambda: server.closed == 1, "the connection is closed")
            assert pieces == []
        await client.close()

    run(work())


def test_a_flow_that_is_paused_makes_the_backend_wait(run: Run) -> None:
    async def work() -> None:
        written = 0

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            await read_request(reader)
            writer.write(FLOWING)
            while written < 1_000:
                writer.write(chunk(b"x" * 65_536))
                await writer.drain()
                written += 1
            writer.write(b"0\r\n\r\n")
            await reader.read()

        client = make_client()
        async with Server(script) as server:
            taken = Taken(await ask(client, server.url))
            taken.flow.pause()
            before = -1
            while before != (before := written):  # noqa: ASYNC110 - until nothing moves any more
                await asyncio.sleep(0.1)
            assert written < 1_000
            assert sum(map(len, taken.pieces)) < 2_000_000
            taken.flow.resume()
            await taken.ended
            assert sum(map(len, taken.pieces)) == 65_536 * 1_000
        await client.close()

    run(work())


def test_a_request_that_is_no_task_takes_its_flow_in_the_very_turn(run: Run) -> None:
    """As those of the data plane are: it goes on where the head comes, and with the end sends the next request."""

    async def work() -> None:
        done: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        client = make_client()

        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(3):
                await read_request(reader)
                writer.write(FLOWING + chunk(b"a"))
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(chunk(b"b") + b"0\r\n\r\n")

        async with Server(script) as server:

            async def request() -> None:
                pieces: list[bytes] = []
                for _ in range(3):
                    reply = await ask(client, server.url)
                    if reply.flow is None:
                        pieces.append(reply.body)
                    else:
                        await reply.flow.start(pieces.append)
                done.set_result(pieces)

            Request(request()).go()
            assert b"".join(await done) == b"ababab"
            assert server.connections == 1
        await client.close()

    run(work())


def test_a_caller_that_is_cancelled_as_the_head_comes_leaves_no_connection_in_use(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(answering(FLOWING + chunk(b"a"))) as server:
            asking = asyncio.create_task(ask(client, server.url))
            await until(lambda: server.connections == 1, "it is asked")
            asking.cancel()
            await asyncio.wait({asking})
            await until(lambda: server.closed == 1, "the connection is closed")
        await client.close()

    run(work())


# ── any bytes, in any pieces ─────────────────────────────────────────────────────────────────────────────────────

BODIES = st.lists(st.binary(min_size=1, max_size=30), max_size=6)


@fuzzed(60)
@given(BODIES, st.lists(st.integers(0, 400), max_size=6), st.sampled_from(["chunks", "length", "close"]))
def test_a_flow_hands_on_exactly_the_body_however_it_is_cut(parts: list[bytes], cuts: list[int], framing: str) -> None:
    body = b"".join(parts)
    head = b"HTTP/1.1 200 OK\r\nx-flows: yes\r\n"
    match framing:
        case "chunks":
            reply = head + b"transfer-encoding: chunked\r\n\r\n" + b"".join(map(chunk, parts)) + b"0\r\n\r\n"
        case "length":
            reply = head + b"content-length: %d\r\n\r\n" % len(body) + body
        case _:
            reply = head + b"\r\n" + body
    places = sorted({cut % (len(reply) + 1) for cut in cuts} | {0, len(reply)})
    sent = [reply[start:end] for start, end in pairwise(places)]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for piece in sent:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            reply = await ask(client, server.url)
            assert reply.status == 200
            if reply.flow is None:
                assert reply.body == body
            else:
                taken = Taken(reply)
                await taken.ended
                assert b"".join(taken.pieces) == body
        await client.close()

    uvloop.run(work())
