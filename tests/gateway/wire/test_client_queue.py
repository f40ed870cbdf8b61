"""Requests that wait for a connection: how many may, what they tell a backend in the end, and how far they had come."""

import asyncio
import socket
import threading
import time

import pytest

from gateway.errors import BackendUnreachable, DeadlineExceeded, Overloaded
from gateway.timeouts import TIMEOUT_HEADER
from gateway.wire.target import retimed
from tests.gateway.wire.backends import (
    OK,
    Script,
    Server,
    answering,
    keep_answering,
    make_client,
    read_request,
    send,
    stream,
    until,
)
from tests.gateway.wire.conftest import Run


def noting(gate: asyncio.Event, heads: list[list[str]]) -> Script:
    """A script that keeps the heads of requests and answers when `gate` is open."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            heads.append(head)
            await gate.wait()
            writer.write(OK)

    return script


def told_ms(head: list[str]) -> int:
    return next(int(line.split(": ")[1]) for line in head if line.startswith(f"{TIMEOUT_HEADER}: "))


# ── how many ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_request_is_refused_at_once_when_the_queue_is_full(run: Run) -> None:
    async def work() -> None:
        client, gate = make_client(max_connections=2, queue_depth=3), asyncio.Event()
        async with Server(noting(gate, heads := list[list[str]]())) as server:
            admitted = [asyncio.create_task(send(client, server.url)) for _ in range(5)]
            await until(lambda: len(heads) == 2, "two requests are sent, three wait")
            for _ in range(10):
                with pytest.raises(Overloaded, match=r"3 requests wait for a connection to .* already") as refused:
                    await send(client, server.url, seconds=3_600)
                assert refused.value.backend == server.url
            with pytest.raises(Overloaded):
                async with stream(client, server.url):
                    pass
            gate.set()
            assert {reply.status for reply in await asyncio.gather(*admitted)} == {200}
            assert (await send(client, server.url)).status == 200
        await client.close()

    run(work())


def test_queue_has_room_for_all_whose_connections_may_still_be_opened(run: Run) -> None:
    async def work() -> None:
        client = make_client(max_connections=4, queue_depth=2)
        async with Server(keep_answering) as server:
            ends = await asyncio.gather(*(send(client, server.url) for _ in range(8)), return_exceptions=True)
            assert [type(end) is Overloaded for end in ends] == [False] * 6 + [True] * 2
        await client.close()

    run(work())


def test_full_queue_of_copies_refuses_no_primary_and_no_probe(run: Run) -> None:
    async def work() -> None:
        client, gate = make_client(max_connections=1, queue_depth=1), asyncio.Event()
        async with Server(noting(gate, heads := list[list[str]]())) as server:
            copies = [asyncio.create_task(send(client, server.url, lane="shadow")) for _ in range(2)]
            await until(lambda: len(heads) == 1, "one copy is sent, one waits")
            with pytest.raises(Overloaded):
                await send(client, server.url, lane="shadow")
            others = [asyncio.create_task(send(client, server.url, lane=lane)) for lane in ("primary", "probe")]
            await until(lambda: len(heads) == 3, "the others have connections of their own")
            gate.set()
            await asyncio.gather(*copies, *others)
        await client.close()

    run(work())


# ── what they tell ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_time_that_a_backend_is_told_has_shrunk_by_the_wait(run: Run) -> None:
    async def work() -> None:
        client, gate = make_client(max_connections=1), asyncio.Event()
        headers = ((TIMEOUT_HEADER, "60000"),)
        async with Server(noting(gate, heads := list[list[str]]())) as server:
            first = asyncio.create_task(send(client, server.url, headers=headers, seconds=60))
            await until(lambda: len(heads) == 1, "the first request is sent")
            second = asyncio.create_task(send(client, server.url, headers=headers, seconds=60))
            began = time.monotonic()
            await until(lambda: time.monotonic() > began + 0.05, "it waits")
            gate.set()
            await asyncio.gather(first, second)
            assert told_ms(heads[0]) <= 60_000
            assert 0 < told_ms(heads[1]) <= 59_950
            assert [line for line in heads[0] if "timeout" not in line] == [
                line for line in heads[1] if "timeout" not in line
            ]
        await client.close()

    run(work())


def test_only_the_time_that_is_told_changes_in_a_head() -> None:
    head = b"POST /x-request-timeout-ms:%201 HTTP/1.1\r\nhost: a\r\nx-request-timeout-ms: 900\r\nx: y\r\n\r\n"
    assert retimed(head, 5_000_000, 2_000_000) == head.replace(b": 900", b": 3")
    assert retimed(head, 5_000_000, 5_000_000) == head.replace(b": 900", b": 1")
    untold = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
    assert retimed(untold, 5_000_000, 2_000_000) == untold


def test_request_is_not_sent_when_its_deadline_passed_before_there_was_a_connection(run: Run) -> None:
    may, got = threading.Event(), list[bytes]()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65_536):
                got.append(data)
                may.wait(10)
                connection.sendall(OK)

    async def work() -> None:
        client = make_client(max_connections=1)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            server = threading.Thread(target=serve, args=(listener,))
            server.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            first = asyncio.create_task(send(client, url))
            await until(lambda: len(got) == 1, "the first request is sent")
            late = asyncio.create_task(send(client, url, seconds=0.02))
            await asyncio.sleep(0)
            may.set()
            time.sleep(0.05)  # noqa: ASYNC251 - the loop has no turn, so that answer and deadline come at once
            with pytest.raises(DeadlineExceeded):
                await late
            assert (await first).body == b"ok"
            await client.close()
            server.join(10)
        assert len(got) == 1

    run(work())


# ── how far they had come ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("answer", "progress"), [(b"", "request"), (b"HTTP/1.1 2", "answer"), (OK[:-1], "answer")])
def test_connection_that_is_cut_says_how_far_the_exchange_had_come(run: Run, answer: bytes, progress: str) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(answering(answer)) as server:
            with pytest.raises(BackendUnreachable) as cut:
                await send(client, server.url)
            assert cut.value.progress == progress
        await client.close()

    run(work())


def test_nothing_had_left_when_nobody_listens(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(BackendUnreachable) as refused:
                await send(client, f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert refused.value.progress == "nothing"
        await client.close()

    run(work())


def test_request_had_left_when_the_backend_died_with_the_connection_that_had_it(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        server = Server(answering(OK, b""))
        async with server:
            await send(client, server.url)
            server._listener.close()
            with pytest.raises(BackendUnreachable) as died:
                await send(client, server.url)
            assert died.value.progress == "request"
        await client.close()

    run(work())
