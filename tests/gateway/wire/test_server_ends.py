"""How connections end: callers that hang up, are slow, do not take their replies, or are there when the port closes."""

import asyncio
import gc
import socket
import time
from contextlib import suppress
from typing import Any

import pytest

from gateway.errors import BodyTooLarge, ClientClosed, RequestTimeout
from gateway.wire.receiving import Receiver
from gateway.wire.server import ServerProtocol
from tests.conftest import until
from tests.gateway.wire.open_port import INFER, Opened, ask, chunked, get, on_port, post, replies_in, settled, tell

CLOSE = "Connection: close"
WAIT = "/v2/models/m/wait/infer"
LARGE = "/v2/models/m/large/infer"


def living(*kinds: type) -> int:
    """Count the objects of these types that there are."""
    return sum(type(one) in kinds for one in gc.get_objects())


@pytest.mark.parametrize("path", [INFER, WAIT, "/v2/health/live"])
def test_a_connection_that_has_ended_leaves_nothing_to_the_garbage_collector(path: str) -> None:
    async def check(opened: Opened) -> None:
        gc.collect()
        gc.disable()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", opened.number)
            writer.write(get(path))
            await until(lambda: opened.echo.seen)
            (connection,) = opened.port.connections
            assert isinstance(connection, ServerProtocol)
            del connection
            assert living(ServerProtocol, Receiver) == 2
            writer.close()
            await until(lambda: not living(ServerProtocol, Receiver))
        finally:
            gc.enable()

    on_port(check)


# ── callers that hang up ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("path", [WAIT, "/v2/wait/"])
def test_hanging_up_cancels_the_work_and_says_so(path: str, reset: bool) -> None:
    async def check(opened: Opened) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        writer.write(get(path))
        await until(lambda: opened.echo.seen)
        if reset:
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )
        writer.close()
        await until(lambda: opened.echo.ended)
        assert opened.echo.ended == ["hung up"]
        await until(lambda: not opened.port.connections)
        assert opened.echo.sent == []

    on_port(check)


def test_requests_that_waited_for_a_caller_that_hung_up_are_refused_not_lost() -> None:
    async def check(opened: Opened) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        writer.write(post(WAIT, b"1") + post(INFER, b"2") + get("/v2/health/live") + post(INFER, b"3"))
        await until(lambda: opened.echo.seen)
        writer.close()
        await until(lambda: len(opened.echo.seen) == 3)
        assert [seen.body for seen in opened.echo.seen] == [b"1", b"2", b"3"]
        assert [type(seen.refused) for seen in opened.echo.seen] == [type(None), ClientClosed, ClientClosed]

    on_port(check)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("message", [post(INFER, b"abcd")[:-2], chunked(INFER, [b"ab", b"cd"])[:-9]])
def test_a_body_that_is_cut_off_is_refused_with_the_size_that_is_known(message: bytes, half: bool) -> None:
    async def check(opened: Opened) -> None:
        if half:
            (reply,) = replies_in(await tell(opened.number, message, half_close=True))
            assert reply.status == 499
            assert reply.headers["connection"] == "close"
        else:
            _, writer = await asyncio.open_connection("127.0.0.1", opened.number)
            writer.write(message)
            await until(lambda: opened.port.connections)
            writer.close()
        await until(lambda: opened.echo.seen)
        (seen,) = opened.echo.seen
        assert isinstance(seen.refused, ClientClosed)
        assert (seen.body, seen.path) == (b"", INFER)
        assert seen.declared_size == (2 if b"chunked" in message else 4)

    on_port(check)


def test_callers_that_hang_up_at_any_moment_leave_no_connection_and_no_task() -> None:
    stream = post(INFER, b"a" * 300) + get("/v2/health/live") + chunked(WAIT, [b"b" * 300]) + get(LARGE) + get(INFER)

    async def hang_up(number: int, at: int, reset: bool) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", number)
        writer.write(stream[:at])
        await asyncio.sleep(0)
        if reset:
            writer.transport.abort()
        else:
            writer.close()

    async def check(opened: Opened) -> None:
        await ask(opened, get(INFER, CLOSE))
        await until(lambda: not opened.port.connections)
        before = asyncio.all_tasks()
        for at in range(len(stream) + 1):
            await hang_up(opened.number, at, reset=bool(at % 2))
        await until(lambda: not opened.port.connections)
        await until(lambda: asyncio.all_tasks() == before)
        assert not opened.port.farewells
        assert "stopped" not in opened.echo.ended
        (reply,) = await ask(opened, post(INFER, b"honest", CLOSE))
        assert reply.echoed["body"] == "honest"

    on_port(check)


# ── callers that are slow ────────────────────────────────────────────────────────────────────────────────────────

SLOW: dict[str, Any] = {"head_seconds": 0.7, "body_seconds": 0.7, "send_seconds": 0.7, "min_body_rate": 100}


@pytest.mark.parametrize("first", [b"", get(INFER)])
def test_an_idle_connection_is_closed_without_a_word(first: bytes) -> None:
    async def check(opened: Opened) -> None:
        assert len(await ask(opened, first)) == (1 if first else 0)

    on_port(check, head_seconds=0.7, idle_seconds=0.7)


@pytest.mark.parametrize("begun", [b"\r\n", b"GE", b"GET /v2/health HTTP/1.1\r\nA: ", get(INFER, "A: b")[:-2]])
@pytest.mark.parametrize("first", [b"", get(INFER)])
def test_a_head_that_does_not_end_is_refused_with_408(first: bytes, begun: bytes) -> None:
    async def check(opened: Opened) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        writer.write(first)
        if first:
            await reader.readuntil(b"}")
        writer.write(begun)
        (late,) = replies_in(await reader.read())
        assert (late.status, late.headers["connection"]) == (408, "close")
        assert b"the head of the request came too slowly" in late.body
        recorded = [seen for seen in opened.echo.seen if seen.refused is not None]
        assert [type(seen.refused) for seen in recorded] == ([RequestTimeout] if b"infer" in begun else [])
        writer.close()

    on_port(check, **SLOW)


@pytest.mark.parametrize("every", [b"\r\n", b"A: b\r\n", b"A"])
def test_a_head_that_drips_has_no_more_time_than_one_that_stands_still(every: bytes) -> None:
    async def check(opened: Opened) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        writer.write(b"" if every == b"\r\n" else get(INFER)[:-2])
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            writer.write(every)
            await asyncio.wait({answer}, timeout=0.02)
        assert [reply.status for reply in replies_in(answer.result())] == [408]
        writer.close()

    on_port(check, **SLOW)


@pytest.mark.parametrize("message", [post(INFER, b"abcd")[:-2], chunked(INFER, [b"ab", b"cd"])[:-9]])
def test_a_body_that_does_not_end_is_refused_with_408_and_handed_on_to_be_recorded(message: bytes) -> None:
    async def check(opened: Opened) -> None:
        (late,) = await ask(opened, message)
        assert (late.status, late.headers["connection"]) == (408, "close")
        assert b"the body of the request came too slowly" in late.body
        (seen,) = opened.echo.seen
        assert isinstance(seen.refused, RequestTimeout)
        assert seen.body == b""

    on_port(check, **SLOW)


def test_a_body_may_take_long_if_it_keeps_coming() -> None:
    async def check(opened: Opened) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        size = 20 * 400
        writer.write(post(INFER, b"a" * size)[:-size])
        for _ in range(20):  # 4 000 bytes per second where 100 are enough, for three times what a body has anyway
            writer.write(b"a" * 400)
            await asyncio.sleep(0.1)
        await until(lambda: opened.echo.seen)
        assert opened.echo.seen[0].refused is None
        assert len(opened.echo.seen[0].body) == size
        writer.close()

    on_port(check, **SLOW)


def test_time_that_a_request_is_served_is_not_the_callers() -> None:
    async def check(opened: Opened) -> None:
        answers = asyncio.create_task(tell(opened.number, post(WAIT, b"") + post(INFER, b"", CLOSE)))
        await until(lambda: opened.echo.seen)
        asyncio.get_running_loop().call_later(2.0, opened.echo.release.set)  # three times every limit
        assert [reply.status for reply in replies_in(await answers)] == [200, 200]

    on_port(check, **SLOW)


# ── callers that send more than may be ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", [INFER, "/v2/health/live"])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(path: str) -> None:
    async def check(opened: Opened) -> None:
        for head, size in (
            (post(path, b"a" * 70_000)[:-70_000], 70_000),
            (chunked(path, [b"a" * 60_000, b"b" * 60_000])[:-7], 65_536),
        ):
            opened.echo.seen.clear()
            (reply,) = await ask(opened, head)
            assert (reply.status, reply.headers["connection"]) == (413, "close")
            assert b"65536 bytes (limits.max_body_bytes)" in reply.body
            for seen in opened.echo.seen:
                assert isinstance(seen.refused, BodyTooLarge)
                assert seen.declared_size >= size
            assert len(opened.echo.seen) == (1 if path == INFER else 0)

    on_port(check)


def test_a_caller_that_sends_all_of_a_body_that_is_too_large_reads_why_it_is_refused() -> None:
    async def check(opened: Opened) -> None:
        (reply,) = await ask(opened, post(INFER, b"a" * 30_000_000))
        assert reply.status == 413

    on_port(check)


def test_as_many_and_as_large_headers_as_are_allowed_are_allowed() -> None:
    async def check(opened: Opened) -> None:
        for lines in ([f"a{n}: b" for n in range(8)], ["a: " + "b" * 970]):
            for message, status in ((get(INFER, *lines, CLOSE), 200), (get(INFER, *lines, CLOSE, "c: d"), 431)):
                for size in (1, 300, len(message)):
                    pieces = [message[at : at + size] for at in range(0, len(message), size)]
                    (reply,) = replies_in(await tell(opened.number, pieces))
                    assert reply.status == status

    on_port(check, max_headers=10, max_head_bytes=1_024)


@pytest.mark.parametrize("first", [WAIT, LARGE])
def test_a_caller_that_sends_ahead_is_read_no_further_than_a_bound(first: str) -> None:
    async def check(opened: Opened) -> None:
        one = post(INFER, b"a" * 60_000)
        count = 400  # 24 MB, far beyond what the kernel keeps for both ends
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        writer.write(post(first, b"") + one * count + post(INFER, b"", CLOSE))
        assert await settled(writer.transport.get_write_buffer_size) > 10_000_000
        assert len(opened.echo.seen) < count / 2
        opened.echo.release.set()
        assert len(replies_in(await reader.read())) == count + 2
        writer.close()

    on_port(check)


@pytest.mark.parametrize("first", [WAIT, LARGE])
def test_requests_without_a_body_are_read_ahead_no_further_than_a_bound(first: str) -> None:
    async def check(opened: Opened) -> None:
        one = f"GET {INFER} HTTP/1.1\r\nHost: t\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        writer.write(get(first) + one * 5_000 + get(INFER, CLOSE))
        await until(lambda: opened.echo.seen)
        await settled(lambda: len(opened.echo.seen))
        (connection,) = opened.port.connections
        # What the kernel keeps for both ends would hold all of them, so that only the inside can tell.
        assert len(connection._receiver.turns) < 16 + 16_384 / len(one)  # type: ignore[attr-defined]
        opened.echo.release.set()
        assert len(replies_in(await reader.read())) == 5_002
        writer.close()

    on_port(check)


# ── callers that do not take their replies ───────────────────────────────────────────────────────────────────────


def connected(number: int, buffer: int = 4_096) -> socket.socket:
    """Connect with a small buffer, so that little of a reply fits in between."""
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    caller.connect(("127.0.0.1", number))
    return caller


def test_nothing_more_is_served_to_a_caller_that_takes_no_reply_until_it_does() -> None:
    async def check(opened: Opened) -> None:
        caller = connected(opened.number)
        caller.sendall(get(LARGE) + get(INFER) + get(INFER, CLOSE))
        await until(lambda: opened.echo.seen)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(opened.echo.seen) == 1
        answer = await asyncio.to_thread(_read_all, caller)
        assert [reply.status for reply in replies_in(answer)] == [200, 200, 200]

    on_port(check)


@pytest.mark.parametrize("message", [get(LARGE), get(LARGE, CLOSE), get(LARGE) + get(LARGE) * 9])
def test_a_caller_that_takes_nothing_of_its_reply_is_cut_off(message: bytes) -> None:
    async def check(opened: Opened) -> None:
        caller = connected(opened.number)
        caller.sendall(message)
        await until(lambda: opened.echo.seen)
        await until(lambda: not opened.port.connections)
        assert opened.echo.seen[0].refused is None
        assert all(isinstance(seen.refused, ClientClosed) for seen in opened.echo.seen[1:])
        caller.close()

    on_port(check, **SLOW)


def test_a_caller_that_takes_its_reply_slowly_gets_all_of_it() -> None:
    async def check(opened: Opened) -> None:
        caller = connected(opened.number, 65_536)
        caller.sendall(get(LARGE, CLOSE))
        answer = await asyncio.to_thread(_read_all, caller, 0.02)  # so that it takes longer than `send_seconds`
        (reply,) = replies_in(answer)
        assert len(reply.body) == 4 * 2**20

    on_port(check, **SLOW)


def _read_all(caller: socket.socket, pause: float = 0.0) -> bytes:
    caller.settimeout(20)
    data = b""
    while piece := caller.recv(65_536):
        data += piece
        time.sleep(pause)
    caller.close()
    return data


# ── callers that are there when the port closes ──────────────────────────────────────────────────────────────────


def test_closing_the_port_ends_idle_connections_and_lets_requests_end() -> None:
    async def check(opened: Opened) -> None:
        idle = asyncio.create_task(tell(opened.number, b""))
        used = asyncio.create_task(tell(opened.number, get(INFER)))
        await until(lambda: opened.echo.seen)
        serving = [asyncio.create_task(tell(opened.number, get(path) + get(INFER))) for path in (WAIT, "/v2/wait/")]
        uploading_reader, uploading = await asyncio.open_connection("127.0.0.1", opened.number)
        uploading.write(post(INFER, b"abc")[:-1])
        await until(lambda: len(opened.echo.seen) == 3)
        await until(lambda: len(opened.port.connections) == 5)
        opened.stop.set()
        assert await idle == b""
        assert [reply.headers.get("connection") for reply in replies_in(await used)] == [None]
        with pytest.raises(OSError, match="refused"):
            await asyncio.open_connection("127.0.0.1", opened.number)
        uploading.write(b"c")
        (uploaded,) = replies_in(await uploading_reader.read())
        assert (uploaded.echoed["body"], uploaded.headers["connection"]) == ("abc", "close")
        uploading.close()
        opened.echo.release.set()
        for answers in serving:
            first, last = replies_in(await answers)
            assert (first.status, last.status, last.headers["connection"]) == (200, 200, "close")
        await opened.serving

    on_port(check)


def test_what_does_not_end_in_time_is_stopped_and_answered_with_503() -> None:
    async def check(opened: Opened) -> None:
        serving = [asyncio.create_task(tell(opened.number, get(path))) for path in (WAIT, "/v2/wait/")]
        stuck = asyncio.create_task(tell(opened.number, get(INFER)[:-2]))
        await until(lambda: len(opened.echo.seen) == 2)
        await until(lambda: len(opened.port.connections) == 3)
        opened.stop.set()
        for answers in serving:
            (reply,) = replies_in(await answers)
            assert (reply.status, reply.headers["connection"]) == (503, "close")
        with suppress(ConnectionError):
            assert await stuck == b""
        assert opened.echo.ended == ["stopped", "stopped"]
        await opened.serving

    on_port(check, drain_seconds=0.2)
