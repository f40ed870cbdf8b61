"""The upstream client against real servers on loopback that answer exactly the bytes a test wants."""

import asyncio
import socket
from contextlib import closing

import pytest

from gateway import __version__
from gateway.errors import BackendProtocolError, BackendUnreachable, DeadlineExceeded, ServingError, Stopping
from gateway.ports import UpstreamReply
from tests.gateway.wire.backends import (
    OK,
    Script,
    Server,
    answering,
    answering_each,
    hang,
    keep_answering,
    make_client,
    open_sockets,
    read_request,
    send,
    until,
)
from tests.gateway.wire.conftest import Run


def failure_of(run: Run, script: Script, kind: type[ServingError], *, seconds: float = 10.0) -> str:
    """Return the message of the error that a backend running `script` causes, after checking that it names it."""
    messages: list[str] = []

    async def work() -> None:
        client = make_client(max_response_bytes=1000)
        async with Server(script) as server:
            with pytest.raises(kind) as caught:
                await send(client, server.url, seconds=seconds)
            assert caught.value.backend == server.url
            messages.append(caught.value.message.replace(server.url, "URL"))
        await client.close()

    run(work())
    return messages[0]


def test_request_arrives_with_nothing_added_but_what_http_needs_and_its_body_byte_for_byte(run: Run) -> None:
    seen: list[tuple[list[str], bytes]] = []
    body = bytes(range(256)) * 300

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(OK)

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            headers = (("content-type", "a/b"), ("x-name", "é"))
            reply = await send(client, server.url + "/v2/models/m/infer", headers=headers, body=body)
            assert reply == UpstreamReply(200, (("content-length", "2"),), b"ok")
            host = server.url.removeprefix("http://")
        await client.close()
        [(head, arrived)] = seen
        assert head[0] == "POST /v2/models/m/infer HTTP/1.1"
        assert sorted(line.lower() for line in head[1:]) == [
            "accept-encoding: identity",
            f"content-length: {len(body)}",
            "content-type: a/b",
            f"host: {host}",
            f"user-agent: pointsman/{__version__}",
            "x-name: é",
        ]
        assert arrived == body

    run(work())


def test_answer_is_handed_on_as_it_came_when_it_is_encoded_repeats_headers_and_has_an_unusual_status(run: Run) -> None:
    answer = (
        b"HTTP/1.1 503 Busy\r\nContent-Encoding: gzip\r\nX-One: a\r\nx-one: b\r\nX-Odd: \xe9\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\n\x1f\x8b\x00\r\n2\r\nzz\r\n0\r\n\r\n"
    )

    async def work() -> None:
        client = make_client()
        async with Server(answering(answer)) as server:
            reply = await send(client, server.url)
        await client.close()
        assert reply.status == 503
        assert reply.body == b"\x1f\x8b\x00zz"
        assert reply.headers == (
            ("content-encoding", "gzip"),
            ("x-one", "a"),
            ("x-one", "b"),
            ("x-odd", "é"),
            ("transfer-encoding", "chunked"),
        )

    run(work())


def test_no_redirect_is_followed_no_cookie_kept_and_no_proxy_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    heads: list[list[str]] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append((await read_request(reader))[0])
            writer.write(b"HTTP/1.1 302 Found\r\nlocation: /b\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n")

    async def work() -> None:
        client = make_client()
        async with Server(script) as server:
            for _ in range(2):
                assert (await send(client, server.url + "/a")).status == 302
        await client.close()
        assert [head[0] for head in heads] == ["POST /a HTTP/1.1"] * 2
        assert not [line for head in heads for line in head if line.lower().startswith("cookie")]

    run(work())


def test_connection_is_used_again_when_the_answer_ended_cleanly(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(keep_answering) as server:
            for _ in range(5):
                assert (await send(client, server.url)).body == b"ok"
            assert server.connections == 1
        await client.close()

    run(work())


def test_request_succeeds_on_a_new_connection_when_the_backend_closed_the_idle_one(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(answering(OK)) as server:  # closes after every answer, without saying so
            for count in range(1, 4):
                assert (await send(client, server.url)).body == b"ok"
                await until(lambda: server.closed == server.connections, "the backend never closed")
                assert server.connections == count
        await client.close()

    run(work())


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale", id="a second answer"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n{}", id="a body where there must be none"),
        pytest.param(OK + b"x", id="one byte"),
    ],
)
def test_next_request_gets_its_own_answer_when_bytes_followed_the_one_before(run: Run, first: bytes) -> None:
    async def work() -> None:
        client = make_client(max_connections=1)
        async with Server(answering_each([first, OK, OK])) as server:
            await send(client, server.url)
            assert (await send(client, server.url)).body == b"ok"
            assert (await send(client, server.url)).body == b"ok"
            assert server.connections == 2, "the first connection had to be given up, the second kept"
        await client.close()

    run(work())


def test_nobody_listens_and_the_error_says_so(run: Run) -> None:
    async def work() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            client = make_client()
            with pytest.raises(BackendUnreachable, match="Connection refused") as caught:
                await send(client, url + "/v2/models/m/infer")
            await client.close()
        assert caught.value.backend == url

    run(work())


def test_backend_that_never_accepts_is_unreachable_after_the_connect_timeout(run: Run) -> None:
    async def work() -> None:
        with socket.socket() as full, closing(socket.socket()) as first, closing(socket.socket()) as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for filler in (first, second):  # a backlog of 0 still holds one; the next connection hangs
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            client = make_client(connect_timeout_ms=50)
            with pytest.raises(BackendUnreachable, match="within 50 ms"):
                await send(client, f"http://127.0.0.1:{full.getsockname()[1]}")
            await client.close()

    run(work())


def test_url_that_cannot_be_called_is_unreachable(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        with pytest.raises(BackendUnreachable, match="no URL that can be called"):
            await send(client, "http://127.0.0.1:99999/")
        await client.close()

    run(work())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(b"", "before its whole answer", id="nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-le", "before its whole answer", id="half a head"),
        pytest.param(OK[:-1], "before its whole answer", id="half a body"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", "before its whole", id="half a chunk"
        ),
    ],
)
def test_backend_is_unreachable_when_it_hangs_up_after(run: Run, answer: bytes, says: str) -> None:
    assert says in failure_of(run, answering(answer), BackendUnreachable)


def test_backend_is_unreachable_when_it_resets_the_connection(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    assert failure_of(run, script, BackendUnreachable) == "URL closed the connection before its whole answer had come"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="another protocol"),
        pytest.param(b"\x00\xff\x15\x03\x01\r\n\r\n", id="binary"),
        pytest.param(b"HTTP/1.1 abc OK\r\n\r\n", id="no status number"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok", id="two different lengths"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", id="no chunk size"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n", id="endless head"),
        pytest.param(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", id="upgrade nobody asked for"),
    ],
)
def test_backend_breaks_the_protocol_with(run: Run, answer: bytes) -> None:
    failure_of(run, answering(answer), BackendProtocolError)


@pytest.mark.parametrize(
    "head", [b"content-length: 1001\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n3e9\r\n", b"\r\n"]
)
def test_answer_larger_than_the_bound_is_refused(run: Run, head: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + head + b"a" * 1001
    assert "more than the 1000 bytes" in failure_of(run, answering(answer), BackendProtocolError)


def test_deadline_ends_a_request_when_the_backend_hangs(run: Run) -> None:
    assert "did not answer within" in failure_of(run, hang, DeadlineExceeded, seconds=0.05)


def test_deadline_ends_a_request_when_the_answer_trickles(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)

    assert "did not answer within" in failure_of(run, script, DeadlineExceeded, seconds=0.1)


def test_nothing_is_sent_when_the_deadline_has_passed(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(keep_answering) as server:
            with pytest.raises(DeadlineExceeded, match="no time was left"):
                await send(client, server.url, seconds=0.0)
            await send(client, server.url)
            assert server.connections == 1
        await client.close()

    run(work())


def test_primary_is_answered_when_shadows_hold_all_their_connections(run: Run) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await read_request(reader)
        if "shadow" in head[0]:
            await reader.read()
        writer.write(OK)

    async def work() -> None:
        client = make_client(max_connections=1)
        async with Server(script) as server:
            shadows = [asyncio.create_task(send(client, server.url + "/shadow", lane="shadow")) for _ in range(3)]
            await until(lambda: server.connections == 1, "no shadow was sent")
            assert (await send(client, server.url + "/primary")).body == b"ok"
            assert server.connections == 2, "the other shadows have to wait for the connection of their lane"
            for shadow in shadows:
                shadow.cancel()
            await asyncio.wait(shadows)
        await client.close()

    run(work())


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(OK, id="answered"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"a" * 2000, id="failing"),
    ],
)
def test_no_connection_leaks_when_requests_are_cancelled_at_any_instant(run: Run, answer: bytes) -> None:
    both_are_there = asyncio.Barrier(2)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            if "together" in head[0]:
                await both_are_there.wait()
                writer.write(OK)
            else:
                writer.write(answer)

    async def work() -> None:
        before = open_sockets()
        client = make_client(max_connections=2, max_response_bytes=1000)
        async with Server(script) as server:
            listening = open_sockets()
            for steps in range(80):
                request = asyncio.create_task(send(client, server.url))
                for _ in range(steps):
                    await asyncio.sleep(0)
                request.cancel()
                await asyncio.gather(request, return_exceptions=True)
            both = await asyncio.gather(*(send(client, server.url + "/together") for _ in range(2)))
            assert [reply.body for reply in both] == [b"ok", b"ok"], "both connections are still to be had"
            assert open_sockets() <= listening + 4, "sockets beyond two idle connections are left"
            await client.close()
            await until(lambda: open_sockets() <= listening, "sockets are left after close")
        await until(lambda: open_sockets() <= before, "sockets are left after the test")

    run(work())


def test_no_connection_leaks_when_requests_fail_or_time_out(run: Run) -> None:
    answers: list[Script] = [
        hang,
        answering(b"no http\r\n\r\n"),
        answering(OK[:-1]),
        answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n" + b"a" * 2_000_000),
    ]

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answers[server.connections % len(answers)](reader, writer)

    async def work() -> None:
        client = make_client(max_connections=4, keepalive_seconds=0.2)  # one that opens too late for any is kept
        async with server:
            listening = open_sockets()
            attempts = [send(client, server.url, seconds=0.3) for _ in range(40)]
            failures = await asyncio.gather(*attempts, return_exceptions=True)
            assert {type(failure) for failure in failures} >= {DeadlineExceeded, BackendProtocolError}
            assert all(isinstance(failure, ServingError) for failure in failures)
            await until(lambda: open_sockets() <= listening, "sockets are left after failures")
        await client.close()

    server = Server(script)
    run(work())


def test_request_under_way_ends_with_an_error_when_the_client_is_closed(run: Run) -> None:
    async def work() -> None:
        client = make_client()
        async with Server(hang) as server:
            request = asyncio.create_task(send(client, server.url))
            await until(lambda: server.connections == 1, "the request was not sent")
            await client.close()
            with pytest.raises(Stopping, match="the gateway stopped"):
                await request

    run(work())
