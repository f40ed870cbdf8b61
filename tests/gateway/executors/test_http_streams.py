"""Server-sent events at the executor: who gets them as they come, and what they say about their backend."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.errors import BackendUnreachable, DeadlineExceeded
from gateway.executors.http_streams import flows, is_stream
from gateway.messages import Begun
from tests.gateway.executors.http_parts import execute, executor, run, work
from tests.gateway.wire.backends import Server, answering, read_request

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: 1\n\n\r\n"
LAST = b"0\r\n\r\n"


class Caller:
    """A `messages.Relay` that keeps what comes; `begun` is the answer of which the head has."""

    def __init__(self, whenever: Callable[[], object] = lambda: None) -> None:
        self.begun: Begun | None = None
        self.pieces: list[bytes] = []
        self._whenever = whenever

    async def pass_on(self, begun: Begun) -> None:
        self.begun = begun
        self._whenever()
        await begun.flow.start(self.pieces.append)


@pytest.mark.parametrize(
    ("status", "content_type", "streams"),
    [
        (200, "text/event-stream", True),
        (201, "TEXT/EVENT-STREAM ;charset=utf-8", True),
        (200, "text/event-stream2", False),
        (200, "application/json", False),
        (200, "", False),
        (204, "text/event-stream", False),
        (304, "text/event-stream", False),
        (400, "text/event-stream", False),
        (502, "text/event-stream", False),
    ],
)
def test_only_events_that_tell_of_no_error_are_streams(status: int, content_type: str, streams: bool) -> None:
    assert is_stream(status, content_type) == streams
    assert flows(status, (("date", "today"), ("content-type", content_type), ("content-type", "x/y"))) == streams
    assert not flows(status, (("date", "today"),))


@pytest.mark.parametrize("at_once", [True, False])
def test_a_caller_that_can_be_sent_pieces_gets_them_and_nobody_else_does(at_once: bool) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(EVENTS + EVENT)
            if not at_once:
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(EVENT + LAST)

    async def test() -> None:
        async with Server(script) as server, executor(server.url) as version:
            seen: list[int] = []
            caller = Caller(lambda: seen.append(version.active))
            result = await execute(version, work(relay=caller))
            assert (result.rendered.status, result.rendered.body) == (200, b"")
            assert b"".join(caller.pieces) == b"data: 1\n\n" * 2
            assert caller.begun is not None
            assert (caller.begun.version, caller.begun.backend, result.backend) == ("2", server.url, server.url)
            assert caller.begun.rendered == result.rendered
            assert (seen, version.active) == ([1], 0)
            alone = await execute(version, work())
            assert alone.rendered.body == b"data: 1\n\n" * 2

    run(test())


def test_an_answer_that_is_no_stream_is_not_passed_on() -> None:
    async def test() -> None:
        said = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok"
        async with Server(answering(said)) as server, executor(server.url) as version:
            caller = Caller()
            assert (await execute(version, work(relay=caller))).rendered.body == b"ok"
            assert caller.begun is None

    run(test())


def test_a_url_whose_streams_break_off_is_left_out_like_one_that_fails() -> None:
    async def test() -> None:
        async with (
            Server(answering(EVENTS + EVENT)) as broken,  # and closes
            Server(answering(*[EVENTS + EVENT + LAST] * 20)) as well,
            executor(broken.url, well.url, ejection={"after": 2}) as version,
        ):
            outcomes: list[str] = []
            for _ in range(12):
                caller = Caller()
                try:
                    outcomes.append((await execute(version, work(relay=caller))).backend)
                except BackendUnreachable as error:
                    outcomes.append(f"{error.backend} broke off in the {error.progress}")
                assert caller.pieces == [b"data: 1\n\n"]
            assert outcomes.count(f"{broken.url} broke off in the answer") == 2
            assert set(outcomes[4:]) == {well.url}
            assert version.active == 0

    run(test())


def test_the_time_out_of_the_version_is_for_the_whole_stream() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(EVENTS + EVENT)
        await reader.read()

    async def test() -> None:
        async with Server(script) as server, executor(server.url, timeout_ms=150) as version:
            caller = Caller()
            with pytest.raises(DeadlineExceeded):
                await execute(version, work(relay=caller))
            assert caller.pieces == [b"data: 1\n\n"]
            assert version.active == 0

    run(test())
