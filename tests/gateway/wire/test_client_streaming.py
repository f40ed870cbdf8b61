"""Bodies that travel piece by piece, in both directions at once, no faster than the other side takes them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import BackendProtocolError, BackendUnreachable, DeadlineExceeded, Stopping
from tests.gateway.wire.backends import (
    CHUNKED,
    OK,
    Script,
    Server,
    answering,
    hang,
    keep_answering,
    make_client,
    open_sockets,
    read_chunk,
    read_head,
    read_request,
    send,
    stream,
    until,
)
from tests.gateway.wire.conftest import Run

EVENTS = [b"data: %d\n\n" % number for number in range(5)]
TOO_MUCH = 64 * 2**20
"""More than all buffers between two sockets on one machine hold."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def read_whole(reader: asyncio.StreamReader) -> bytes:
    """Return the body of a request in chunks."""
    parts = []
    while part := await read_chunk(reader):
        parts.append(part)
    return b"".join(parts)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_each_event_is_there_before_the_next_is_sent(run: Run) -> None:
    taken = asyncio.Semaphore(0)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        await taken.acquire()
        for event in EVENTS:
            writer.write(chunk(event))
            await taken.acquire()  # a client that waited for more would wait for ever
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async def work() -> None:
        client = make_client()
        async with Server(script) as server, stream(client, server.url) as answer:
            assert answer.status == 200
            assert ("content-type", "text/event-stream") in answer.headers
            taken.release()
            arrived = []
            async for part in answer:
                arrived.append(part)
                taken.release()
            assert arrived == EVENTS
        await client.close()

    run(work())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OK, id="length"),
        pytest.param(CHUNKED + chunk(b"o") + chunk(b"k") + b"0\r\n\r\n", id="chunks"),
    ],
)
def test_connection_is_used_again_after_a_streamed_answer(run: Run, answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(answer)

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            for _ in range(3):
                async with stream(client, server.url) as streamed:
                    assert b"".join([part async for part in streamed]) == b"ok"
                assert (await send(client, server.url)).body == b"ok"
            assert server.connections == 1
        await client.close()

    run(work())


def test_answer_without_length_is_streamed_to_the_end_of_the_connection(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with (
            Server(answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(EVENTS))) as server,
            stream(client, server.url) as answer,
        ):
            assert b"".join([part async for part in answer]) == b"".join(EVENTS)
        await client.close()

    run(work())


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_streamed_answer_without_body_ends_at_once(run: Run, method: str) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n" if method == "HEAD" else b"HTTP/1.1 204 No\r\n\r\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(head)

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            for _ in range(2):
                async with stream(client, server.url, method=method, body=b"") as answer:
                    assert [part async for part in answer] == []
            assert server.connections == 1
        await client.close()

    run(work())


def test_backend_has_to_wait_when_its_answer_is_not_read(run: Run) -> None:
    written = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % TOO_MUCH)
        while written < TOO_MUCH:
            writer.write(b"x" * 65_536)
            await writer.drain()
            written += 65_536
        await reader.read()

    async def stands_still() -> None:
        """Wait until nothing has been written for some turns of the loop in which it could have been."""
        still, seen = 0, -1
        while still < 20:
            still = still + 1 if written == seen else 0
            seen = written
            await asyncio.sleep(0.005)

    async def work() -> None:
        client = make_client(max_response_bytes=1000)  # which is for answers that are kept
        async with Server(script) as server, stream(client, server.url) as answer:
            await stands_still()
            assert 0 < written < TOO_MUCH / 2
            read = 0
            async for part in answer:
                read += len(part)
            assert read == written == TOO_MUCH
        await client.close()

    run(work())


def test_leaving_the_block_early_closes_the_connection(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + chunk(EVENTS[0]))
        await reader.read()

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            listening = open_sockets()
            async with stream(client, server.url) as answer:
                assert await anext(aiter(answer)) == EVENTS[0]
            await until(lambda: server.closed == 1, "the connection of a stream nobody reads is still open")
            await until(lambda: open_sockets() <= listening, "a socket is left")
        await client.close()

    run(work())


def _ending_with(raw: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + chunk(EVENTS[0]))
        writer.write(raw)

    return script


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        pytest.param(b"", BackendUnreachable, id="nothing"),
        pytest.param(b"5\r\nda", BackendUnreachable, id="half a chunk"),
        pytest.param(b"zz\r\n", BackendProtocolError, id="no chunk"),
    ],
)
def test_what_came_is_read_before_the_error_when_an_answer_ends_with(
    run: Run, raw: bytes, kind: type[Exception]
) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(_ending_with(raw)) as server, stream(client, server.url) as answer:
            await until(lambda: server.closed == 1, "the backend did not close")
            arrived: list[bytes] = []

            async def read() -> None:
                async for part in answer:
                    arrived.append(part)

            for _ in range(2):
                with pytest.raises(kind):
                    await read()
            assert arrived[0] == EVENTS[0]
            assert b"".join(arrived[1:]) in {b"", b"da"}
        await client.close()

    run(work())


def test_error_is_raised_on_entering_when_no_head_comes(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(answering(b"no http\r\n\r\n")) as server:
            with pytest.raises(BackendProtocolError):
                async with stream(client, server.url):
                    pytest.fail("there is no answer to read")
        async with Server(hang) as server:
            with pytest.raises(DeadlineExceeded):
                async with stream(client, server.url, seconds=0.05):
                    pytest.fail("there is no answer to read")
        with pytest.raises(BackendUnreachable):
            async with stream(client, server.url):
                pytest.fail("there is no answer to read")
        await client.close()

    run(work())


def test_deadline_ends_an_answer_that_goes_on_and_on(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        while True:
            writer.write(chunk(b"more"))
            await writer.drain()
            await asyncio.sleep(0.005)

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            # Half a second is for connecting: were that to fail in time, there would be no connection to end.
            async def read() -> None:
                async with stream(client, server.url, seconds=0.5) as answer:
                    async for part in answer:
                        assert set(part.split(b"more")) == {b""}

            with pytest.raises(DeadlineExceeded, match=r"did not answer within \d+ ms"):
                await read()
            await until(lambda: server.closed == 1, "the connection is still open")
        await client.close()

    run(work())


def test_stream_ends_with_an_error_when_the_client_is_closed(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(_ending_with(b"")) as _, Server(hang) as server:

            async def read() -> None:
                async with stream(client, server.url):
                    pytest.fail("there is no answer to read")

            reading = asyncio.create_task(read())
            await until(lambda: server.connections == 1, "the request was not sent")
            await client.close()
            with pytest.raises(Stopping):
                await reading

    run(work())


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_body_from_an_iterator_arrives_in_its_chunks_and_the_connection_is_used_again(run: Run) -> None:
    chunks: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await read_head(reader)
            assert "transfer-encoding: chunked" in head
            assert not [line for line in head if line.startswith("content-length")]
            while part := await read_chunk(reader):
                chunks.append(part)
            writer.write(OK)

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            for _ in range(2):
                async with stream(client, server.url, body=pieces(b"one", b"", b"x" * 100_000, b"three")) as answer:
                    assert [part async for part in answer] == [b"ok"]
                assert chunks == [b"one", b"x" * 100_000, b"three"]
                chunks.clear()
            async with stream(client, server.url, body=pieces()) as answer:
                assert [part async for part in answer] == [b"ok"]
            assert server.connections == 1
        await client.close()

    run(work())


def test_pieces_and_answers_alternate_over_one_connection(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(CHUNKED)
        while part := await read_chunk(reader):
            writer.write(chunk(part.upper()))
        writer.write(b"0\r\n\r\n")
        await reader.read()

    async def work() -> None:
        client = make_client()
        answered: asyncio.Queue[bytes] = asyncio.Queue()

        async def questions() -> AsyncIterator[bytes]:
            yield b"a"
            while (said := await answered.get()) != b"AAAA":
                yield said.lower() + b"a"

        async with Server(script) as server, stream(client, server.url, body=questions()) as answer:
            said = []
            async for part in answer:
                said.append(part)
                answered.put_nowait(part)
            assert said == [b"A", b"AA", b"AAA", b"AAAA"]
        await client.close()

    run(work())


def test_iterator_is_not_asked_for_more_when_the_backend_does_not_read(run: Run) -> None:
    given = 0
    go_on = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while given < TOO_MUCH:
            given += 65_536
            yield b"x" * 65_536

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await go_on.wait()
        assert len(await read_whole(reader)) == TOO_MUCH
        writer.write(OK)
        await reader.read()

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:

            async def upload() -> list[bytes]:
                async with stream(client, server.url, body=endless(), seconds=30) as answer:
                    return [part async for part in answer]

            uploading = asyncio.create_task(upload())
            still, seen = 0, -1
            while still < 20:
                still = still + 1 if given == seen > 0 else 0
                seen = given
                await asyncio.sleep(0.005)
            assert given < TOO_MUCH / 2
            go_on.set()
            assert await uploading == [b"ok"]
            assert given == TOO_MUCH
        await client.close()

    run(work())


def test_what_an_iterator_raises_is_what_the_caller_gets_and_the_backend_sees_no_whole_request(run: Run) -> None:
    whole: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(CHUNKED)
        whole.append(await read_whole(reader))

    async def breaking(*, at_once: bool) -> AsyncIterator[bytes]:
        if not at_once:
            yield b"some"
            await head_has_come.wait()
        raise RuntimeError("the source is gone")

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:

            async def read(body: AsyncIterator[bytes]) -> None:
                async with stream(client, server.url, body=body) as answer:
                    head_has_come.set()
                    async for _ in answer:
                        pass

            with pytest.raises(RuntimeError, match="the source is gone"):
                await read(breaking(at_once=True))
            with pytest.raises(RuntimeError, match="the source is gone"):
                await read(breaking(at_once=False))
            await until(lambda: server.closed == 2, "a connection is left open")
            assert whole == []
        await client.close()

    head_has_come = asyncio.Event()
    run(work())


def test_iterator_is_closed_and_the_connection_too_when_the_answer_does_not_wait_for_the_body(run: Run) -> None:
    closed = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        try:
            yield b"some"
            await asyncio.Event().wait()
        finally:
            closed.set()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        await read_chunk(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await reader.read()

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            async with stream(client, server.url, body=slow()) as answer:
                assert answer.status == 413
                assert [part async for part in answer] == [b"big"]
            assert closed.is_set()
            await until(lambda: server.closed == 1, "half a request was left on an open connection")
        await client.close()

    run(work())


def test_request_whose_body_is_an_iterator_is_not_sent_twice(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_head(reader)
        await read_chunk(reader)

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            await send(client, server.url)
            with pytest.raises(BackendUnreachable, match="before its whole answer"):
                async with stream(client, server.url, body=pieces(b"some")):
                    pytest.fail("there is no answer to read")
            assert server.connections == 1
        await client.close()

    run(work())


def test_request_whose_body_is_whole_is_sent_again_though_its_answer_is_streamed(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            await send(client, server.url)
            async with stream(client, server.url) as answer:
                assert [part async for part in answer] == [b"ok"]
            assert server.connections == 2
        await client.close()

    run(work())


def test_header_that_would_end_its_line_is_not_sent(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(keep_answering) as server:
            for value in ("a\r\nx-more: b", "a\nb", "a\rb", "a\0b"):
                with pytest.raises(ValueError, match="line end or NUL"):
                    await send(client, server.url, headers=(("x-one", value),))
            assert server.connections == 0
        await client.close()

    run(work())


def test_streams_that_are_cancelled_at_any_instant_leave_nothing(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_head(reader)
            writer.write(CHUNKED)
            while part := await read_chunk(reader):
                writer.write(chunk(part))
            writer.write(b"0\r\n\r\n")

    async def work() -> None:
        before, finished = open_sockets(), 0
        client = make_client(max_connections=2)
        async with Server(script) as server:
            listening = open_sockets()

            async def exchange() -> None:
                nonlocal finished
                async with stream(client, server.url, body=pieces(*EVENTS)) as answer:
                    assert b"".join([part async for part in answer]) == b"".join(EVENTS)
                    finished += 1

            for steps in range(60):
                task = asyncio.create_task(exchange())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                (end,) = await asyncio.gather(task, return_exceptions=True)
                assert end is None or isinstance(end, asyncio.CancelledError)
            finished = 0
            await asyncio.gather(*(exchange() for _ in range(4)))
            assert finished == 4
            assert open_sockets() <= listening + 4
            await client.close()
            await until(lambda: open_sockets() <= listening, "sockets are left after close")
        await until(lambda: open_sockets() <= before, "sockets are left after the test")

    run(work())
