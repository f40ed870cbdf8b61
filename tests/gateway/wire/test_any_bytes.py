"""Properties over real sockets: how a stream is cut changes nothing, and no stream of bytes does harm."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.config import LimitSettings
from gateway.errors import RequestError
from gateway.wire.receiving import Receiver
from tests.fuzzing import fuzzed
from tests.gateway.wire.malformed import CASES
from tests.gateway.wire.open_port import INFER, Opened, ask, chunked, get, on_port, post, replies_in, tell

CLOSE = "Connection: close"
LIMITS = LimitSettings(max_body_bytes=2**16)

bodies = st.binary(max_size=40)
paths = st.sampled_from([INFER, "/v2/health/live", "/v2/models/m%2Fn/infer?q", "http://test/v2"])
lines = st.lists(st.sampled_from(["A: b", "x-routing-key: ä", "Empty:", "Connection: keep-alive", "Accept:\t*/* "]))

ends = st.sampled_from([b"0\r\n\r\n", b"0;last=1\r\n\r\n", b"00\r\nTrailer: x\r\n\r\n"])


@st.composite
def legal(draw: st.DrawFn, *more: str) -> bytes:
    """A legal request in one of its framings, perhaps with an upgrade that nobody takes up."""
    path, fields, body = draw(paths), [*draw(lines), *more], draw(bodies)
    if draw(st.booleans()) and not more:
        fields = [field for field in fields if not field.startswith("Connection")]
        fields += ["Connection: upgrade", "Upgrade: h2c"]
    kind = draw(st.sampled_from(["get", "post", "chunked"]))
    if kind == "get":
        return get(path, *fields)
    if kind == "post":
        return post(path, body, *fields)
    return chunked(path, [body[at : at + 7] for at in range(0, len(body), 7)], *fields, end=draw(ends))


streams = st.builds(lambda several, last: b"".join(several) + last, st.lists(legal(), max_size=4), legal(CLOSE))


@st.composite
def cut(draw: st.DrawFn, stream: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    """A stream, and the same in pieces."""
    whole = draw(stream)
    at = sorted(draw(st.sets(st.integers(1, max(1, len(whole) - 1)), max_size=30)))
    return whole, [whole[start:end] for start, end in zip([0, *at], [*at, len(whole)], strict=True) if end > start]


def _received(pieces: list[bytes]) -> list[Any]:
    """What a receiver makes of pieces: requests, and at last the status of a refusal."""
    receiver, made = Receiver(LIMITS, ""), []
    for piece in pieces:
        receiver.offer(piece)
        while receiver.waiting and not receiver.ended:
            try:
                receiver.read_on()
            except RequestError as error:
                receiver.refuse(error, lambda path: path.endswith("/infer"))
    for turn in receiver.turns:
        request = turn.request
        asked = None if request is None else (request.method, request.path, request.headers, request.body)
        made.append((asked, turn.error and turn.error.code, turn.head.keep_alive))
    return made


@given(cut(streams))
@fuzzed(300)
def test_requests_are_the_same_however_their_stream_is_cut(stream: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = stream
    made = _received([whole])
    assert made == _received(pieces)
    assert all(error is None for _, error, _ in made)
    assert [keep_alive for _, _, keep_alive in made] == [True] * (len(made) - 1) + [False]


@given(cut(st.sampled_from([case.message for case in CASES if len(case.message) < 2_000])))
@fuzzed(300)
def test_refusals_are_the_same_however_their_stream_is_cut(stream: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = stream
    assert [error for _, error, _ in _received([whole])] == [error for _, error, _ in _received(pieces)]


@given(cut(streams))
@fuzzed(60)
def test_answers_are_the_same_however_a_stream_is_cut(stream: tuple[bytes, list[bytes]]) -> None:
    whole, pieces = stream

    async def check(opened: Opened) -> None:
        replies = [replies_in(await tell(opened.number, told)) for told in (whole, pieces)]
        assert len(replies[0]) == len(_received([whole]))
        assert [reply.body for reply in replies[0]] == [reply.body for reply in replies[1]]
        assert {reply.status for reply in replies[0] + replies[1]} == {200}

    on_port(check)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A stream of requests, legal or not, with some bytes changed, taken out, put in or repeated."""
    stream = bytearray(draw(st.one_of(streams, st.sampled_from([case.message[:4_096] for case in CASES]))))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(stream) - 1)))
        match draw(st.integers(0, 3)):
            case 0:
                stream[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del stream[at : at + draw(st.integers(1, 20))]
            case 2:
                words = [
                    b"\r\n",
                    b"\n",
                    b"\0",
                    b" ",
                    b":",
                    b"\r\nContent-Length: 5\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                ]
                stream[at:at] = draw(st.one_of(st.binary(max_size=4), st.sampled_from(words)))
            case _:
                stream[at:at] = stream[at : at + draw(st.integers(1, 60))]
    return bytes(stream)


@given(st.lists(mutated(), min_size=1, max_size=8))
@fuzzed(100)
def test_no_bytes_lead_to_a_5xx_a_crash_or_a_connection_that_hangs(several: list[bytes]) -> None:
    async def check(opened: Opened) -> None:
        told = await asyncio.gather(*(tell(opened.number, stream, half_close=True) for stream in several))
        for data in told:
            statuses = [reply.status for reply in replies_in(data)]
            assert all(status < 500 for status in statuses), statuses
            assert all(status < 400 for status in statuses[:-1]), statuses
        (reply,) = await ask(opened, post(INFER, b"honest", CLOSE))
        assert reply.echoed["body"] == "honest"

    on_port(check)


IMPATIENT: dict[str, Any] = {"head_seconds": 0.2, "body_seconds": 0.2, "min_body_rate": 2**20, "idle_seconds": 0.2}


@given(st.lists(cut(mutated() | st.binary(min_size=1, max_size=200)), min_size=1, max_size=8))
@fuzzed(25)
def test_every_connection_ends_by_its_deadline_though_its_caller_says_nothing_more(
    several: list[tuple[bytes, list[bytes]]],
) -> None:
    async def check(opened: Opened) -> None:
        telling = [asyncio.create_task(tell(opened.number, pieces)) for _, pieces in several]
        (reply,) = await ask(opened, post(INFER, b"honest", CLOSE))
        assert reply.echoed["body"] == "honest"
        for data in await asyncio.gather(*telling):
            statuses = [reply.status for reply in replies_in(data)]
            assert all(status < 500 for status in statuses), statuses
            assert all(status < 400 for status in statuses[:-1]), statuses
        assert not opened.port.connections

    on_port(check, **IMPATIENT)
