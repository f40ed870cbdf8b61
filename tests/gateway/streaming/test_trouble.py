"""Streams that do not come to their end: the caller cannot take them for whole, and the record says how they ended."""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import Any

import pytest

from gateway.errors import AuditUnavailable
from gateway.messages import Answer, Flow, InferRequest
from gateway.metrics import Slot
from gateway.protocols.oip_v2 import OipV2
from tests.conftest import until
from tests.gateway.streaming.world import BODY, INFER, World, chunk, on_world
from tests.gateway.wire.backends import open_sockets

ALL_TRIES: dict[str, Any] = {"fallback": ["2"], "idempotent": True, "retries": 3}
"""A route that would try again whatever it may."""


def nothing_is_left(world: World) -> bool:
    prepared = world.prepared()
    return not (world.board[Slot.IN_FLIGHT] or prepared.limit.in_flight or prepared.executor.active)


# ── the backend's ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("closes", "backend_unreachable"),
        ("resets", "backend_unreachable"),
        ("no chunk", "backend_protocol_error"),
    ],
)
def test_a_backend_that_breaks_off_fails_and_nothing_is_tried_again(tmp_path: Path, how: str, code: str) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        answering.send(b"data: 1\n\n")
        assert await call.piece() == b"data: 1\n\n"
        if how == "no chunk":
            answering.write(b"what is this?\r\n")
        else:
            answering.cut(reset=how == "resets")
        assert await call.pieces_until_cut() == b""
        record = await world.record()
        assert (record.outcome, record.error_code, record.streamed) == ("failed", code, "broken_off")
        assert (record.status, record.served, record.response.size) == (200, "1", 9)
        assert world.response().sha256 == sha256(b"data: 1\n\n").hexdigest()
        (attempt,) = record.attempts
        assert (attempt.version, attempt.backend, attempt.error) == ("1", world.backends["1"].url, code)
        assert nothing_is_left(world)
        assert world.backends["1"].connections == 1
        assert world.backends["2"].connections == 0
        assert len(world.kept.records) == 1

    on_world(tmp_path, check, route=ALL_TRIES, versions=("1", "2"))


def test_what_came_in_one_piece_with_the_trouble_is_sent_before_the_caller_is_cut_off(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        answering.write(chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n") + b"what is this?\r\n")
        body = await call.pieces_until_cut()
        record = await world.record()
        assert body == b"data: 1\n\ndata: 2\n\n"
        assert (record.response.size, world.response().sha256) == (len(body), sha256(body).hexdigest())

    on_world(tmp_path, check)


def test_a_slow_caller_gets_all_that_was_sent_on_before_it_is_cut_off(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        (connection,) = world.port.connections
        transport = connection._transport  # type: ignore[attr-defined]
        while not transport.get_write_buffer_size():  # until neither kernel takes any more of it
            answering.send(b"x" * 32_768)
            await answering.drain()
            await asyncio.sleep(0.002)
        answering.cut()
        record = await world.record()
        assert record.error_code == "backend_unreachable"
        assert len(await call.pieces_until_cut()) == record.response.size

    on_world(tmp_path, check)


def test_until_the_head_has_come_everything_is_tried_as_ever(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.call()
        for _ in range(4):
            answering = await world.backends["1"].next()
            answering.write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")
            answering.over.set()
        answering = await world.backends["2"].next()
        answering.begin()
        answering.send(b"data: 2\n\n")
        answering.end()
        await call.head()
        assert call.headers["x-model-version"] == "2"
        assert await call.rest() == b"data: 2\n\n"
        record = await world.record()
        assert (record.intended, record.served, record.streamed) == ("1", "2", "complete")
        assert [attempt.version for attempt in record.attempts] == ["1", "1", "1", "1", "2"]
        assert record.head_us <= record.infer_us
        assert nothing_is_left(world)

    on_world(tmp_path, check, route=ALL_TRIES, versions=("1", "2"))


def test_a_caller_of_http_1_0_sees_a_reset_when_a_stream_breaks_off(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun(http="1.0")
        answering.send(b"data: 1\n\n")
        assert await call.reader.readexactly(9) == b"data: 1\n\n"
        answering.cut()
        with pytest.raises(ConnectionResetError):
            await call.all_that_comes()
        assert (await world.record()).streamed == "broken_off"

    on_world(tmp_path, check)


def test_streams_that_break_off_trip_the_brake_of_their_version(tmp_path: Path) -> None:
    route = {"split": {"1": 5_000, "2": 5_000}, "brake": {"failures": 3, "of": 5}}

    async def check(world: World) -> None:
        for _ in range(3):
            call = await world.call("/v2/models/talk/versions/1/infer")
            answering = await world.backends["1"].next()
            answering.begin()
            await call.head()
            answering.cut()
            await call.pieces_until_cut()
        await until(lambda: len(world.kept.records) == 3)
        assert world.board[Slot.VERSIONS_BRAKED] == 1
        call, answering = await world.begun(version="2")
        assert call.headers["x-model-version"] == "2"
        answering.end()

    on_world(tmp_path, check, route=route, versions=("1", "2"))


def test_a_deadline_that_passes_in_the_middle_breaks_the_stream_off(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun("X-Request-Timeout-Ms: 300")
        answering.send(b"data: 1\n\n")
        assert await call.pieces_until_cut() == b"data: 1\n\n"
        record = await world.record()
        assert (record.outcome, record.error_code, record.streamed) == (
            "failed",
            "deadline_exceeded",
            "broken_off",
        )
        assert record.total_us >= 300_000
        await answering.given_up()
        assert nothing_is_left(world)

    on_world(tmp_path, check)


# ── the caller's ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_caller_that_hangs_up_ends_its_stream_at_the_backend_and_leaves_a_record(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        answering.send(b"data: 1\n\n")
        await call.piece()
        call.hang_up()
        await answering.given_up()
        record = await world.record()
        assert (record.outcome, record.error_code, record.streamed) == ("refused", "client_closed", "broken_off")
        assert (record.status, record.served, record.response.size) == (200, "1", 9)
        (attempt,) = record.attempts
        assert (attempt.version, attempt.status, attempt.error) == ("1", 200, None)
        assert nothing_is_left(world)
        assert len(world.kept.records) == 1

    on_world(tmp_path, check)


def test_a_caller_that_reads_slowly_makes_the_backend_wait_and_gets_everything(tmp_path: Path) -> None:
    piece, count = b"x" * 65_536, 512  # 32 MiB, more than all buffers between the two hold

    async def check(world: World) -> None:
        call, answering = await world.begun()
        pouring = asyncio.create_task(pour(answering))
        before = -1
        while before != (before := answering.unsent):  # noqa: ASYNC110 - until nothing moves any more
            await asyncio.sleep(0.1)
        assert not pouring.done()
        assert not world.kept.records
        (relayed,) = world.port.connections
        held = relayed._transport.get_write_buffer_size()  # type: ignore[attr-defined]
        assert held < 1_000_000
        body = bytearray()
        while data := await call.piece():
            body += data
        await pouring
        assert bytes(body) == piece * count
        record = await world.record()
        assert (record.streamed, record.response.size) == ("complete", len(body))
        assert world.response().sha256 == sha256(body).hexdigest()
        assert (record.response.kept, record.response.truncated) == (True, True)
        assert world.response().body == piece  # as much as the route's capture says

    async def pour(answering: Any) -> None:
        for _ in range(count):
            answering.send(piece)
            await answering.drain()
        answering.end()

    on_world(tmp_path, check)


def test_a_caller_that_takes_nothing_for_too_long_is_cut_off(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        _, answering = await world.begun()
        for _ in range(512):
            answering.send(b"x" * 65_536)
        await answering.given_up()
        record = await world.record()
        assert (record.outcome, record.error_code, record.streamed) == ("refused", "client_closed", "broken_off")
        assert nothing_is_left(world)

    on_world(tmp_path, check, limits={"send_seconds": 0.3})


def test_a_caller_too_slow_for_its_deadline_is_not_the_fault_of_the_version(tmp_path: Path) -> None:
    route = {"timeout_ms": 500, "split": {"1": 5_000, "2": 5_000}, "brake": {"failures": 1, "of": 5}}

    async def check(world: World) -> None:
        call = await world.call("/v2/models/talk/versions/1/infer")
        answering = await world.backends["1"].next()
        answering.begin()
        for _ in range(512):
            answering.send(b"x" * 65_536)
        await answering.given_up()
        record = await world.record()
        assert (record.outcome, record.error_code, record.streamed) == ("refused", "client_closed", "broken_off")
        assert "so slowly" in (record.error or "")
        for _ in range(20):
            await asyncio.sleep(0)
        assert not world.port.connections  # what it has not taken by then is not waited for
        assert world.board[Slot.VERSIONS_BRAKED] == 0
        await call.head()
        await call.pieces_until_cut()

    on_world(tmp_path, check, route=route, versions=("1", "2"))


def test_callers_that_hang_up_at_any_moment_leave_nothing_behind(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        async def once(number: int) -> None:
            call = await world.call(INFER, f"X-Request-Id: r-{number}")
            answering = await world.backends["1"].next()
            answering.begin()
            for turn in range(number % 5):
                answering.send(b"data: %d\n\n" % turn * (1 + number * 100))
            if number % 3:
                await asyncio.sleep(0)
            if number % 2:
                await call.head()
            call.hang_up()
            await answering.given_up()

        await once(0)
        await until(lambda: not world.port.connections)
        sockets = open_sockets()
        await asyncio.gather(*(once(number) for number in range(60)))
        await until(lambda: len(world.kept.records) == 61)
        assert {record.error_code for record in world.kept.records} == {"client_closed"}
        await until(lambda: not world.port.connections and open_sockets() <= sockets)
        assert nothing_is_left(world)

    on_world(tmp_path, check)


# ── the gateway's ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_end_of_a_stream_is_not_sent_before_its_record_is_safe(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        world.kept.slow = True
        call, answering = await world.begun()
        answering.send(b"data: 1\n\n")
        answering.end()
        assert await call.piece() == b"data: 1\n\n"
        await until(lambda: world.kept.waits)
        last = asyncio.create_task(call.piece())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not last.done()
        world.kept.settle()
        assert await last == b""

    on_world(tmp_path, check)


@pytest.mark.parametrize("when", ["at once", "on its way to the disk"])
def test_a_stream_whose_record_cannot_be_kept_is_cut_off_and_counted(tmp_path: Path, when: str) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        answering.send(b"data: 1\n\n")
        assert await call.piece() == b"data: 1\n\n"
        world.kept.broken = when == "at once"
        world.kept.slow = True
        answering.end()
        if when != "at once":
            await until(lambda: world.kept.waits)
            world.kept.settle(AuditUnavailable("the disk is gone"))
        assert await call.pieces_until_cut() == b""
        assert world.board[Slot.REFUSED_UNRECORDED] == 1
        assert nothing_is_left(world)

    on_world(tmp_path, check)


def test_a_stream_may_come_to_its_end_while_the_port_drains(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        world.stop.set()
        await until(lambda: world.port.draining)
        await call.in_step(answering, 3)
        answering.end()
        assert await call.piece() == b""
        assert await call.all_that_comes() == b""
        assert (await world.record()).streamed == "complete"

    on_world(tmp_path, check)


def test_a_stream_that_begins_while_the_port_drains_says_that_it_is_the_last(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call = await world.call()
        answering = await world.backends["1"].next()
        world.stop.set()
        await until(lambda: world.port.draining)
        answering.begin()
        assert (await call.head()).headers["connection"] == "close"
        answering.end()
        assert await call.piece() == b""
        assert await call.all_that_comes() == b""

    on_world(tmp_path, check)


class NoOutlet:
    """Nowhere to send a head to."""

    def begin(self, answer: Answer, flow: Flow) -> Callable[[bytes], None]:  # noqa: ARG002 - the shape of the port
        raise ValueError("this head cannot be written")


def test_a_stream_whose_head_cannot_be_sent_is_a_failure_and_its_backend_is_not_kept_waiting(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        request = InferRequest("talk", None, {}, BODY, "", time_ns(), monotonic_ns(), outlet=NoOutlet())
        serving = asyncio.create_task(world.plane.infer(request, OipV2()))
        answering = await world.backends["1"].next()
        answering.begin()
        answer = await serving
        assert (answer.rendered.status, answer.served) == (500, None)
        await answering.given_up()
        record = await world.record()
        assert (record.outcome, record.error_code, record.streamed) == ("failed", "internal_error", None)
        assert nothing_is_left(world)

    on_world(tmp_path, check)


def test_a_stream_that_outlives_the_drain_is_cut_off_and_recorded(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        answering.send(b"data: 1\n\n")
        assert await call.piece() == b"data: 1\n\n"
        world.stop.set()
        assert await call.pieces_until_cut() == b""
        record = await world.record()
        assert (record.outcome, record.error_code, record.streamed) == ("failed", "stopping", "broken_off")
        assert (record.status, record.response.size) == (200, 9)
        await answering.given_up()

    on_world(tmp_path, check, drain_seconds=0.2)


# ── shadows ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_shadows_begin_when_a_stream_has_ended_and_read_their_answer_whole(tmp_path: Path) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        answering.send(b"data: 1\n\n")
        await call.piece()
        assert world.backends["2"].connections == 0
        answering.end()
        assert await call.piece() == b""
        copied = await world.backends["2"].next()
        copied.begin()
        copied.send(b"data: of ")
        copied.send(b"the copy\n\n")
        copied.end()
        record = await world.record(1)
        assert (record.role, record.served, record.streamed, record.head_us) == ("shadow", "2", None, 0)
        assert world.response(1).body == b"data: of the copy\n\n"

    on_world(tmp_path, check, route={"shadows": [{"version": "2", "sample": 10_000}]}, versions=("1", "2"))
