"""Server-sent events pass through piece by piece: nothing waits for what comes after it, and everything is counted."""

import asyncio
import gc
import socket
import struct
from hashlib import sha256
from pathlib import Path

import httpx2
import pytest

from gateway.flight import Flight
from gateway.metrics import Slot
from gateway.streaming import Stream
from gateway.wire.asgi import AsgiFace
from gateway.wire.flowing import Flowing
from gateway.wire.relaying import Relaying
from gateway.wire.server import ServerProtocol
from tests.conftest import until
from tests.gateway.streaming.world import BODY, CHUNKED, EVENTS, INFER, UNTIL_CLOSE, World, on_world
from tests.gateway.wire.open_port import get


def test_each_piece_is_with_the_caller_before_the_next_is_sent(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.call()
        answering = await world.backends["1"].next()
        assert answering.body == BODY
        answering.begin()
        await call.head()  # before there is any event
        body = b""
        for number in range(20):
            answering.send(b"data: %d\n\n" % number)
            body += await call.piece()
            assert body.endswith(b"\n\ndata: %d\n\n" % number if number else b"data: 0\n\n")
            assert not world.kept.records
        answering.end()
        assert await call.piece() == b""
        record = await world.record()
        assert (record.outcome, record.status, record.served, record.error_code) == ("served", 200, "1", None)
        assert (record.streamed, record.response.size) == ("complete", len(body))
        assert world.response().sha256 == sha256(body).hexdigest()
        assert world.response().body == body
        assert len(world.kept.records) == 1

    on_world(tmp_path, check)


def test_the_head_says_all_that_is_known_by_then(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.call(INFER, "X-Request-Id: mine", "X-Routing-Key: ann")
        answering = await world.backends["1"].next()
        answering.write(
            EVENTS + b"set-cookie: theirs=1\r\nx-model-version: 9\r\ncontent-language: de\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        headers = (await call.head()).headers
        answering.end()
        assert await call.rest() == b""
        record = await world.record()
        assert headers["content-type"] == "text/event-stream"
        assert headers["transfer-encoding"] == "chunked"
        assert headers["content-language"] == "de"
        assert "content-length" not in headers
        assert "set-cookie" not in headers
        assert headers["x-request-id"] == record.request_id == "mine"
        assert headers["x-record-id"] == record.record_id
        assert headers["x-model-name"] == "talk"
        assert headers["x-model-version"] == record.served == "1"
        assert headers["x-route-revision"] == "9"
        assert headers["x-route-reason"] == record.reason == "split"
        timing = dict(part.split(";dur=") for part in headers["server-timing"].split(", "))
        assert list(timing) == ["route", "queue", "infer", "total"]
        assert round(float(timing["infer"]) * 1000) == record.head_us
        assert 0 < record.head_us <= record.infer_us <= record.total_us
        assert float(timing["infer"]) <= float(timing["total"])

    on_world(tmp_path, check)


@pytest.mark.parametrize("content_type", ["text/event-stream; charset=utf-8", "Text/Event-Stream"])
def test_events_are_known_by_their_media_type(tmp_path: Path, content_type: str) -> None:
    async def check(world: World) -> None:
        call = await world.call()
        answering = await world.backends["1"].next()
        answering.write(f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: 2\r\n\r\n".encode())
        await call.head()
        answering.write(b"o")
        assert await call.piece() == b"o"
        answering.write(b"k")
        assert await call.rest() == b"k"
        assert call.headers["content-type"] == content_type

    on_world(tmp_path, check)


@pytest.mark.parametrize(
    ("status", "content_type"),
    [
        ("200 OK", "application/json"),
        ("200 OK", "text/event-streams"),
        ("200 OK", "text/plain; a=text/event-stream"),
        ("400 Bad Request", "text/event-stream"),
        ("503 Service Unavailable", "text/event-stream"),
    ],
)
def test_everything_else_comes_whole(tmp_path: Path, status: str, content_type: str) -> None:
    async def check(world: World) -> None:
        call = await world.call()
        answering = await world.backends["1"].next()
        answering.write(f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: 4\r\n\r\nwh".encode())
        await answering.drain()
        assert not world.kept.records
        answering.write(b"le")
        await call.head()
        assert call.headers["content-length"] == "4"
        assert call.headers["content-type"] == content_type
        assert await call.reader.readexactly(4) == b"whle"
        record = await world.record()
        assert (record.status, record.streamed, record.head_us) == (int(status[:3]), None, 0)

    on_world(tmp_path, check)


def test_events_that_come_all_at_once_are_passed_on_like_any_others(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        for number, answer in enumerate(
            (
                EVENTS + b"content-length: 9\r\n\r\ndata: 1\n\n",
                EVENTS + b"content-length: 9\r\n\r\ndata: 2\n\n",  # whose head is known by now
                CHUNKED + b"9\r\ndata: 3\n\n\r\n0\r\n\r\n",
                EVENTS + b"content-length: 0\r\n\r\n",
            )
        ):
            call = await world.call()
            answering = await world.backends["1"].next()
            answering.write(answer)
            answering.over.set()
            await call.head()
            assert call.headers["transfer-encoding"] == "chunked"
            body = await call.rest()
            assert body == (b"data: %d\n\n" % (number + 1) if number < 3 else b"")
            record = await world.record(number)
            assert (record.streamed, record.response.size) == ("complete", len(body))
            assert world.response(number).sha256 == sha256(body).hexdigest()
        assert world.backends["1"].connections == 1

    on_world(tmp_path, check)


def test_both_connections_are_used_again_after_a_complete_stream(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.connect()
        for number in range(3):
            call.ask()
            answering = await world.backends["1"].next()
            answering.begin()
            answering.send(b"data: a%d\n\n" % number)
            await call.head()
            answering.end()
            assert await call.rest() == b"data: a%d\n\n" % number
        assert world.backends["1"].connections == 1
        assert len(world.kept.records) == 3

    on_world(tmp_path, check)


def test_a_request_behind_a_stream_waits_and_is_answered_after_it(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.connect()
        call.ask(INFER, "X-Request-Id: first")
        call.writer.write(get("/v2/health/live"))
        call.ask(INFER, "X-Request-Id: second")
        first = await world.backends["1"].next()
        first.begin()
        await call.head()
        first.send(b"data: 1\n\n")
        assert await call.piece() == b"data: 1\n\n"
        assert world.backends["1"].connections == 1  # the other one waits
        first.end()
        assert await call.piece() == b""
        await call.head()
        assert await call.reader.readexactly(int(call.headers["content-length"])) == b'{"live":true}'
        second = await world.backends["1"].next()
        second.begin()
        second.send(b"data: 2\n\n")
        second.end()
        assert (await call.head()).headers["x-request-id"] == "second"
        assert await call.rest() == b"data: 2\n\n"

    on_world(tmp_path, check)


def test_a_caller_of_http_1_0_gets_the_body_until_the_end_of_the_connection(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.call(INFER, "Connection: keep-alive", version="1.0")
        answering = await world.backends["1"].next()
        answering.begin()
        await call.head()
        assert "transfer-encoding" not in call.headers
        assert call.headers["connection"] == "close"
        assert resets_on_close(world)  # were the gateway to die now, nobody should take that for the end
        for event in (b"data: 1\n\n", b"data: 2\n\n"):
            answering.send(event)
            assert await call.reader.readexactly(len(event)) == event
        answering.end()
        assert await call.all_that_comes() == b""
        assert not resets_on_close(world)
        assert (await world.record()).streamed == "complete"

    on_world(tmp_path, check)


def resets_on_close(world: World) -> bool:
    """Tell whether the only connection is one that ends with a reset: socket(7), SO_LINGER."""
    (connection,) = world.port.connections
    tcp = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    return struct.unpack("ii", tcp.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)) == (1, 0)


def test_a_backend_may_end_its_stream_with_the_connection(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.call()
        answering = await world.backends["1"].next()
        answering.write(UNTIL_CLOSE + b"data: 1\n\n")
        await call.head()
        assert await call.piece() == b"data: 1\n\n"
        answering.write(b"data: 2\n\n")
        assert await call.piece() == b"data: 2\n\n"
        answering.cut()
        assert await call.piece() == b""
        assert (await world.record()).streamed == "complete"

    on_world(tmp_path, check)


def test_streams_beside_each_other_do_not_cross(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        calls = [await world.call(INFER, f"X-Request-Id: r-{number}") for number in range(64)]
        answering = [await world.backends["1"].next() for _ in calls]
        names = []
        for one in answering:
            one.begin()
            (line,) = [line for line in one.head if line.startswith("x-request-id: ")]
            names.append(line.removeprefix("x-request-id: "))
        assert sorted(names) == sorted(f"r-{number}" for number in range(64))
        for turn in range(10):
            for name, one in zip(names, answering, strict=True):
                one.send(b"data: %b %d\n\n" % (name.encode(), turn) * (1 + turn * 50))
        for one in answering:
            one.end()
        await asyncio.gather(*(call.head() for call in calls))
        bodies = await asyncio.gather(*(call.rest() for call in calls))
        for number, body in enumerate(bodies):
            expected = b"".join(b"data: r-%d %d\n\n" % (number, turn) * (1 + turn * 50) for turn in range(10))
            assert body == expected
        assert len(world.kept.records) == 64
        for number, record in enumerate(world.kept.records):
            body = bodies[int(record.request_id.removeprefix("r-"))]
            assert (record.response.size, record.response.truncated) == (len(body), False)
            assert world.response(number).sha256 == sha256(body).hexdigest()

    on_world(tmp_path, check)


def test_a_stream_counts_as_in_flight_until_its_end(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        prepared = world.prepared()
        assert (world.board[Slot.IN_FLIGHT], prepared.limit.in_flight, prepared.executor.active) == (1, 1, 1)
        answering.send(b"data: 1\n\n")
        await call.piece()
        assert (world.board[Slot.IN_FLIGHT], prepared.limit.in_flight, prepared.executor.active) == (1, 1, 1)
        answering.end()
        assert await call.piece() == b""
        await world.record()
        assert (world.board[Slot.IN_FLIGHT], prepared.limit.in_flight, prepared.executor.active) == (0, 0, 0)

    on_world(tmp_path, check)


def test_a_version_with_as_many_streams_as_its_limit_gets_no_more(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        world.prepared().limit.most = 1
        refused = await (await world.call()).head()
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert (await world.record()).error_code == "overloaded"
        answering.end()
        assert await call.rest() == b""
        await world.record(1)
        await world.begun()

    on_world(tmp_path, check)


def test_a_complete_stream_leaves_nothing_to_the_garbage_collector(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        gc.collect()
        gc.disable()
        try:
            for number in range(3):
                call, answering = await world.begun()
                answering.send(b"data: 1\n\n")
                await call.piece()
                answering.end()
                assert await call.piece() == b""
                await world.record(number)
                call.hang_up()
                await until(lambda: not world.port.connections)
            kinds = (ServerProtocol, Stream, Flowing, Relaying, Flight)
            await until(lambda: not any(type(one) in kinds for one in gc.get_objects()))
        finally:
            gc.enable()

    on_world(tmp_path, check)


def test_through_another_server_by_asgi_a_stream_comes_whole(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        transport = httpx2.ASGITransport(app=AsgiFace(world.port.face.handle, 2**20))
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            asking = asyncio.create_task(client.post(INFER, content=BODY))
            answering = await world.backends["1"].next()
            answering.begin()
            for number in range(3):
                answering.send(b"data: %d\n\n" % number)
            answering.end()
            answer = await asking
        assert (answer.content, answer.headers["content-length"]) == (b"data: 0\n\ndata: 1\n\ndata: 2\n\n", "27")
        assert (await world.record()).streamed is None
        assert world.response().body == answer.content

    on_world(tmp_path, check)


def test_an_interim_reply_before_the_stream_is_passed_over(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.call()
        answering = await world.backends["1"].next()
        answering.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        await answering.drain()
        answering.begin()
        answering.send(b"data: 1\n\n")
        await call.head()
        assert await call.piece() == b"data: 1\n\n"
        answering.end()
        assert await call.piece() == b""
        await until(lambda: world.kept.records)

    on_world(tmp_path, check)
