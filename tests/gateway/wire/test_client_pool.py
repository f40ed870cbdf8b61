"""Which connection a request goes over, how many there are, how long they are kept, and when one is used no more."""

import asyncio
import gc
import os
import select
import socket
import threading
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

import pytest

from gateway import arrival
from gateway.errors import BackendProtocolError, BackendUnreachable, DeadlineExceeded, Stopping
from gateway.ports import UpstreamReply
from gateway.wire.connection import Connection
from gateway.wire.reply import ReplyReader
from tests.gateway.wire.backends import (
    CHUNKED,
    OK,
    Script,
    Server,
    answering,
    answering_each,
    hang,
    keep_answering,
    make_client,
    open_sockets,
    read_head,
    read_request,
    send,
    until,
)
from tests.gateway.wire.conftest import Run

CLOSE = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"


def holding(gate: asyncio.Event, arrived: list[str]) -> Script:
    """A script that notes the path of each request and answers when `gate` is open, with the path as the body."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            path = head[0].split()[1]
            arrived.append(path)
            await gate.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(path), path.encode()))

    return script


# ── how many ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_requests_beyond_the_limit_wait_and_are_sent_in_their_order(run: Run) -> None:
    async def work() -> None:
        client, gate, arrived = make_client(max_connections=2), asyncio.Event(), list[str]()
        async with Server(holding(gate, arrived)) as server:
            paths = [f"/{number}" for number in range(6)]
            requests = [asyncio.create_task(send(client, server.url + path)) for path in paths]
            await until(lambda: len(arrived) == 2, "two requests go out at once")
            gate.set()
            replies = await asyncio.gather(*requests)
            assert [reply.body.decode() for reply in replies] == paths
            assert sorted(arrived[:2]) == paths[:2]
            assert sorted(arrived) == paths
            assert server.connections == 2
        await client.close()

    run(work())


def test_limit_counts_for_each_backend_by_itself(run: Run) -> None:
    async def work() -> None:
        client = make_client(max_connections=1)
        async with Server(hang) as slow, Server(keep_answering) as fast:
            stuck = asyncio.create_task(send(client, slow.url))
            await until(lambda: slow.connections == 1, "the slow backend was not asked")
            assert (await send(client, fast.url)).body == b"ok"
            stuck.cancel()
        await client.close()

    run(work())


def test_deadline_ends_the_wait_for_a_connection_and_the_error_says_what_was_waited_for(run: Run) -> None:
    async def work() -> None:
        client = make_client(max_connections=1)
        async with Server(hang) as server:
            first = asyncio.create_task(send(client, server.url))
            await until(lambda: server.connections == 1, "the first request was not sent")
            with pytest.raises(DeadlineExceeded, match=r"did not answer within 50 ms: no connection .* 1 of 1") as late:
                await send(client, server.url, seconds=0.05)
            assert late.value.backend == server.url
            assert not first.done()
            first.cancel()
        await client.close()

    run(work())


def test_request_that_gave_up_waiting_is_not_sent_and_keeps_nobody_waiting(run: Run) -> None:
    async def work() -> None:
        client, gate, arrived = make_client(max_connections=1), asyncio.Event(), list[str]()
        async with Server(holding(gate, arrived)) as server:
            first = asyncio.create_task(send(client, server.url + "/first"))
            await until(lambda: len(arrived) == 1, "the first request was not sent")
            quitters = [asyncio.create_task(send(client, server.url + "/quitter")) for _ in range(5)]
            last = asyncio.create_task(send(client, server.url + "/last"))
            await asyncio.sleep(0)
            for quitter in quitters:
                quitter.cancel()
            gate.set()
            assert (await last).body == b"/last"
            assert (await first).body == b"/first"
            assert arrived == ["/first", "/last"]
            assert server.connections == 1
        await client.close()

    run(work())


def test_waiting_requests_are_sent_over_new_connections_when_the_old_ones_close(run: Run) -> None:
    async def work() -> None:
        client = make_client(max_connections=2)
        async with Server(answering(CLOSE)) as server:
            replies = await asyncio.gather(*(send(client, server.url) for _ in range(10)))
            assert [reply.body for reply in replies] == [b"ok"] * 10
            assert server.connections == 10
        await client.close()

    run(work())


def test_every_waiting_request_fails_when_the_backend_cannot_be_reached(run: Run) -> None:
    async def work() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            client = make_client(max_connections=2)
            failures = await asyncio.gather(*(send(client, url) for _ in range(20)), return_exceptions=True)
            assert {type(failure) for failure in failures} == {BackendUnreachable}
            await client.close()

    run(work())


def test_what_callers_are_told_names_no_backend_however_its_url_is_spelled(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://LocalHost:{unused.getsockname()[1]}/base/v2"
            with pytest.raises(BackendUnreachable) as refused:
                await send(client, url)
            assert "localhost" in refused.value.message.lower()
            assert "localhost" not in refused.value.public.lower()
        await client.close()

    run(work())


def test_connection_that_was_opened_for_one_who_left_serves_the_next(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(keep_answering) as server:
            quitter = asyncio.create_task(send(client, server.url))
            await asyncio.sleep(0)
            quitter.cancel()
            await until(lambda: server.connections == 1, "the connection was not opened")
            assert (await send(client, server.url)).body == b"ok"
            assert server.connections == 1
        await client.close()

    run(work())


# ── when they leave ──────────────────────────────────────────────────────────────────────────────────────────────


def test_requests_of_one_turn_of_the_event_loop_leave_together_at_its_end(run: Run) -> None:
    async def work() -> None:
        client, gate, arrived = make_client(), asyncio.Event(), list[str]()
        async with Server(holding(gate, arrived)) as server:
            both = [asyncio.create_task(send(client, server.url + f"/{number}")) for number in range(2)]
            await until(lambda: len(arrived) == 2, "two connections were not opened")
            gate.set()
            await asyncio.gather(*both)
            with select.epoll() as epoll:
                for ours in server.sockets:
                    epoll.register(ours, select.EPOLLIN)
                replies: list[UpstreamReply] = []
                for number in range(2):
                    arrival.Run(_keep(replies, send(client, server.url + f"/again/{number}"))).go()
                assert epoll.poll(0) == []
                await until(lambda: len(replies) == 2, "the requests did not leave")
            assert server.connections == 2
        await client.close()

    run(work())


def test_answer_that_comes_before_its_request_has_left_is_nobodys(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(answering_each([OK, OK.replace(b"ok", b"no"), OK.replace(b"ok", b"me")])) as server:
            await send(client, server.url)
            replies: list[UpstreamReply] = []
            arrival.Run(_keep(replies, send(client, server.url))).go()
            os.write(server.sockets[0].fileno(), OK)
            await until(lambda: len(replies) == 1, "the request was not sent again")
            assert replies[0].body == b"no"
            assert server.connections == 2
        await client.close()

    run(work())


async def _keep(replies: list[UpstreamReply], reply: Awaitable[UpstreamReply]) -> None:
    replies.append(await reply)


# ── how long ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_idle_connection_is_closed_when_its_time_is_over(run: Run) -> None:
    async def work() -> None:
        client = make_client(keepalive_seconds=0.05)
        async with Server(keep_answering) as server:
            await send(client, server.url)
            await until(lambda: server.closed == 1, "the idle connection is still open")
            await send(client, server.url)
            assert server.connections == 2
        await client.close()

    run(work())


def test_no_connection_is_kept_when_the_time_for_it_is_zero(run: Run) -> None:
    async def work() -> None:
        client = make_client(keepalive_seconds=0.0)
        async with Server(keep_answering) as server:
            for count in range(1, 4):
                await send(client, server.url)
                assert server.connections == count
        await client.close()

    run(work())


def test_connection_that_is_always_busy_is_replaced_when_it_is_old(run: Run) -> None:
    async def work() -> None:
        client = make_client(max_connections=1, max_age_seconds=0.05)
        async with Server(keep_answering) as server:

            async def keep_sending() -> None:
                while server.connections < 3:
                    await send(client, server.url)

            await asyncio.gather(keep_sending(), keep_sending())
        await client.close()

    run(work())


def test_connection_used_last_is_used_first(run: Run) -> None:
    async def work() -> None:
        client, gate, arrived = make_client(keepalive_seconds=0.3), asyncio.Event(), list[str]()
        async with Server(holding(gate, arrived)) as server:
            both = [asyncio.create_task(send(client, server.url + f"/{number}")) for number in range(2)]
            await until(lambda: len(arrived) == 2, "two connections were not opened")
            gate.set()
            await asyncio.gather(*both)
            while server.closed == 0:  # one connection is enough for these, so the other grows old
                await send(client, server.url + "/more")
            assert server.connections == 2
        await client.close()

    run(work())


# ── when no more ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(CLOSE, id="said so"),
        pytest.param(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", id="HTTP/1.0"),
    ],
)
def test_connection_is_not_used_again_when_the_backend(run: Run, answer: bytes) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(answering_each([answer] * 2)) as server:
            for _ in range(2):
                assert (await send(client, server.url)).body == b"ok"
            assert server.connections == 2
            await until(lambda: server.closed == 2, "the client left a connection open that it does not use")
        await client.close()

    run(work())


def test_answer_without_length_is_complete_when_the_connection_ends(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(answering(b"HTTP/1.1 200 OK\r\n\r\nsome")) as server:
            assert (await send(client, server.url)).body == b"some"
        await client.close()

    run(work())


def test_answer_without_length_is_cut_off_when_the_connection_is_reset(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")  # the body stays unread, so that closing resets the connection
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nsome")
        await writer.drain()
        writer.transport.abort()

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            with pytest.raises(BackendUnreachable, match="before its whole answer"):
                await send(client, server.url, body=b"x" * 2_000_000)
        await client.close()

    run(work())


@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", b"", id="HEAD"),
        pytest.param("HEAD", CHUNKED, b"", id="HEAD in chunks"),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", id="204"),
        pytest.param("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n", b"", id="304"),
        pytest.param("GET", CHUNKED + b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n", b"ok", id="chunks with trailer"),
        pytest.param("GET", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK, b"ok", id="after 103"),
    ],
)
def test_connection_is_used_again_after(run: Run, method: str, answer: bytes, body: bytes) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(answering_each([answer, OK, answer, OK])) as server:
            for _ in range(2):
                reply = await send(client, server.url, method=method, body=b"")
                assert reply.body == body
                assert "link" not in dict(reply.headers)
                assert (await send(client, server.url)).body == b"ok"
            assert server.connections == 1
        await client.close()

    run(work())


def test_answer_may_come_byte_by_byte(run: Run) -> None:
    answer = b"HTTP/1.1 100 C\r\n\r\n" + CHUNKED + b"2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for byte in answer:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            for _ in range(3):
                assert (await send(client, server.url)).body == b"ok"
            assert server.connections == 1
        await client.close()

    run(work())


def test_connection_is_given_up_when_the_answer_did_not_wait_for_the_request(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        await done.wait()

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            for count in (1, 2):
                assert (await send(client, server.url, body=b"x" * 20_000_000)).status == 413
                assert server.connections == count
            done.set()
        await client.close()

    done = asyncio.Event()
    run(work())


def test_backend_that_speaks_first_is_no_http(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready\r\n")
        await reader.read()

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            with pytest.raises(BackendProtocolError, match="HTTP"):
                await send(client, server.url)
        await client.close()

    run(work())


def test_idle_connection_is_dropped_when_the_backend_says_something_nobody_asked_for(run: Run) -> None:
    more = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await more.wait()
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n")
        await reader.read()

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            await send(client, server.url)
            more.set()
            await until(lambda: server.closed == 1, "the connection is still there")
            assert (await send(client, server.url)).status == 200
        await client.close()

    run(work())


def test_backend_is_hung_up_on_when_the_caller_leaves(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(hang) as server:
            leaving = asyncio.create_task(send(client, server.url, seconds=60))
            await until(lambda: server.connections == 1, "the request was not sent")
            leaving.cancel()
            await until(lambda: server.closed == 1, "the backend still works for nobody")
        await client.close()

    run(work())


@contextmanager
def answering_when_told() -> Iterator[tuple[str, threading.Event, threading.Event, list[bytes]]]:
    """A backend in a thread that answers its first request when told to, the next at once, all over one connection."""
    told, sent = threading.Event(), threading.Event()
    arrived: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65_536):
                arrived.append(data.split()[1])
                told.wait(10)
                connection.sendall(OK)
                sent.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", told, sent, arrived
        thread.join(10)


def test_freed_connection_passes_over_one_who_left_in_the_same_turn_of_the_loop() -> None:
    async def work() -> None:
        client = make_client(max_connections=1)
        with answering_when_told() as (url, told, sent, arrived):
            first = asyncio.create_task(send(client, url + "/first"))
            await until(lambda: arrived == [b"/first"], "the first request was not sent")
            leaving = arrival.Run(send(client, url + "/leaving"))
            leaving.go()
            last = asyncio.create_task(send(client, url + "/last"))
            await asyncio.sleep(0)
            told.set()
            assert sent.wait(10)  # the loop stands still, so the answer is there when it goes on
            asyncio.get_running_loop().call_soon(leaving.cancel)
            assert [reply.body for reply in await asyncio.gather(first, last)] == [b"ok", b"ok"]
            assert arrived == [b"/first", b"/last"]
            await client.close()

    asyncio.run(work())  # whose order of turns is known


@contextmanager
def late_surplus() -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A backend in a thread that sends an answer nobody asked for over its first connection, when told to."""
    told, sent = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        first, _ = listener.accept()
        first.recv(65_536)
        first.sendall(OK)
        told.wait(10)
        first.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale")
        sent.set()
        second, _ = listener.accept()
        second.recv(65_536)
        second.sendall(OK)
        second.recv(1)
        first.close()
        second.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", told, sent
    thread.join(10)
    listener.close()


def test_next_request_gets_its_own_answer_when_a_second_one_came_before_the_loop_had_a_turn(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        with late_surplus() as (url, told, sent):
            assert (await send(client, url)).body == b"ok"
            told.set()
            assert sent.wait(10)  # the loop stands still meanwhile, so the client has been told of nothing
            assert (await send(client, url)).body == b"ok"
            await client.close()

    run(work())


# ── once more ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("resets", [False, True], ids=["closes", "resets"])
def test_request_is_sent_again_when_the_backend_closed_the_idle_connection_at_that_moment(
    run: Run, resets: bool
) -> None:
    bodies: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append((await read_request(reader))[1])
        writer.write(OK)
        bodies.append((await read_request(reader))[1])
        if server.connections == 1:
            if resets:
                writer.transport.abort()
            return
        writer.write(OK)

    async def work() -> None:
        client = make_client()
        async with server:
            assert (await send(client, server.url, body=b"1")).body == b"ok"
            assert (await send(client, server.url, body=b"2")).body == b"ok"
            assert bodies == [b"1", b"2", b"2"]
            assert server.connections == 2
        await client.close()

    server = Server(script)
    run(work())


def test_request_is_sent_again_once_only(run: Run) -> None:
    requests = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        requests += 1
        if server.connections == 1:
            writer.write(OK)
            await read_request(reader)
            requests += 1

    async def work() -> None:
        client = make_client()
        async with server:
            await send(client, server.url)
            with pytest.raises(BackendUnreachable, match="before its whole answer"):
                await send(client, server.url)
            assert requests == 3
        await client.close()

    server = Server(script)
    run(work())


def test_request_is_not_sent_again_when_the_connection_was_new(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(answering(b"")) as server:
            with pytest.raises(BackendUnreachable, match="before its whole answer"):
                await send(client, server.url)
            assert server.connections == 1
        await client.close()

    run(work())


def test_request_is_not_sent_again_when_a_byte_of_the_answer_had_come(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(answering(OK, b"H")) as server:
            await send(client, server.url)
            with pytest.raises(BackendUnreachable, match="before its whole answer"):
                await send(client, server.url)
            assert server.connections == 1
        await client.close()

    run(work())


def test_requests_succeed_when_the_backend_was_started_again_and_all_idle_connections_are_dead(run: Run) -> None:
    async def work() -> None:
        client, gate, arrived = make_client(max_connections=8), asyncio.Event(), list[str]()
        async with Server(holding(gate, arrived)) as server:
            first = [asyncio.create_task(send(client, server.url)) for _ in range(8)]
            await until(lambda: len(arrived) == 8, "eight connections were not opened")
            gate.set()
            await asyncio.gather(*first)
        async with Server(keep_answering, port=server.port) as again:
            replies = await asyncio.gather(*(send(client, again.url) for _ in range(20)))
            assert [reply.body for reply in replies] == [b"ok"] * 20
        await client.close()

    run(work())


def test_deadline_holds_while_a_request_is_sent_again(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if server.connections > 1:
            await reader.read()
        writer.write(OK)
        await read_request(reader)

    async def work() -> None:
        client = make_client(max_connections=1)
        async with server:
            await send(client, server.url)
            with pytest.raises(DeadlineExceeded, match="did not answer within"):
                await send(client, server.url, seconds=0.1)
            assert server.connections == 2
        await client.close()

    server = Server(script)
    run(work())


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_client_that_is_closed_ends_waiting_requests_too_and_takes_no_more(run: Run) -> None:
    async def work() -> None:
        before = open_sockets()
        client = make_client(max_connections=1)
        async with Server(hang) as server:
            requests = [asyncio.create_task(send(client, server.url)) for _ in range(3)]
            await until(lambda: server.connections == 1, "no request was sent")
            await client.close()
            ends = await asyncio.gather(*requests, return_exceptions=True)
            assert [type(end) for end in ends] == [Stopping] * 3
            with pytest.raises(Stopping):
                await send(client, server.url)
            await client.close()
        await until(lambda: open_sockets() <= before, "sockets are left after close")

    run(work())


def test_client_that_is_closed_while_it_connects_leaves_nothing(run: Run) -> None:
    async def work() -> None:
        before = open_sockets()
        async with Server(keep_answering) as server:
            listening = open_sockets()
            for steps in range(12):
                client = make_client()
                requests = [asyncio.create_task(send(client, server.url)) for _ in range(3)]
                for _ in range(steps):
                    await asyncio.sleep(0)
                await client.close()
                ends = await asyncio.gather(*requests, return_exceptions=True)
                assert all(isinstance(end, Stopping) or getattr(end, "body", None) == b"ok" for end in ends)
            await until(lambda: open_sockets() <= listening, "sockets are left")
        await until(lambda: open_sockets() <= before, "sockets are left after close")

    run(work())


def test_nothing_is_remembered_of_a_backend_that_has_no_connections_left(run: Run) -> None:
    async def work() -> None:
        client = make_client(keepalive_seconds=0.05)
        async with Server(keep_answering) as one, Server(answering(CLOSE)) as other:
            await send(client, one.url)
            await send(client, other.url, lane="shadow")
            await until(lambda: not any(client._lanes.values()), "a pool is left")
        await client.close()

    run(work())


def test_no_garbage_in_circles_is_left_by_requests(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(keep_answering) as server:
            await send(client, server.url)
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)  # what the collector finds is kept, so that it can be looked at
            try:
                for _ in range(200):
                    await send(client, server.url)
                gc.collect()
                ours = [found for found in gc.garbage if type(found).__module__.startswith("gateway.")]
                assert ours == [], "requests leave circles that only the collector can undo"
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
        await client.close()

    run(work())


def test_a_connection_that_has_ended_leaves_nothing_to_the_garbage_collector(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        gc.collect()
        gc.disable()
        try:
            async with Server(answering(CLOSE)) as server:
                known = {id(one) for one in gc.get_objects() if isinstance(one, Connection | ReplyReader)}
                await send(client, server.url)

                def left() -> bool:
                    made = (one for one in gc.get_objects() if isinstance(one, Connection | ReplyReader))
                    return any(id(one) not in known for one in made)

                await until(lambda: not left(), "the connection and what read its replies are gone")
        finally:
            gc.enable()
        await client.close()

    run(work())
