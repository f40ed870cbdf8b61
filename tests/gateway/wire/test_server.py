"""The server of the data port over real sockets: what a legal caller can ask of one connection."""

import asyncio
import contextvars

import pytest

from gateway.messages import WireReply, WireRequest
from tests.conftest import until
from tests.gateway.wire.open_port import INFER, Echo, Opened, ask, chunked, get, on_port, post, replies_in, tell

CLOSE = "Connection: close"
WAIT = "/v2/models/m/wait/infer"


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """Read one reply with a content-length from a connection that stays open."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
    return head + await reader.readexactly(int(length.split()[1]))


# ── requests and replies ─────────────────────────────────────────────────────────────────────────────────────────


def test_an_inference_reaches_the_face_as_it_was_sent_and_its_reply_the_caller() -> None:
    async def check(opened: Opened) -> None:
        lines = ("X-Routing-Key: ann ", "x-twice: 1", "X-Twice: 2", CLOSE)
        (reply,) = await ask(opened, post("/v2/models/m%20n/infer?x=1", b'{"a":1}', *lines))
        (seen,) = opened.echo.seen
        assert (seen.method, seen.path, seen.body) == ("POST", "/v2/models/m n/infer", b'{"a":1}')
        assert (seen.client, seen.declared_size, seen.refused) == ("127.0.0.1", 7, None)
        assert seen.headers == {
            "host": "test",
            "content-length": "7",
            "x-routing-key": "ann",
            "x-twice": "1",
            "connection": "close",
        }
        assert min(seen.started_ns, seen.received_ns) > 0
        assert reply.status == 200
        assert reply.echoed["body"] == '{"a":1}'
        assert reply.headers["connection"] == "close"
        assert reply.headers["date"].endswith(" GMT")
        assert opened.echo.sent == [seen.path]

    on_port(check)


def test_a_value_that_is_no_utf_8_is_read_as_latin_1() -> None:
    async def check(opened: Opened) -> None:
        await ask(opened, post(INFER, b"", CLOSE, "a: \xff"))
        await ask(opened, post(INFER, b"", CLOSE, "a: " + "é".encode().decode("latin-1")))
        assert [seen.headers["a"] for seen in opened.echo.seen] == ["ÿ", "é"]

    on_port(check)


def test_a_chunked_body_arrives_whole_and_its_trailers_are_no_headers() -> None:
    async def check(opened: Opened) -> None:
        head = f"POST {INFER} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: Chunked\r\n{CLOSE}\r\n\r\n".encode()
        (reply,) = await ask(opened, head + b"2;name=value\r\nab\r\n3\r\ncde\r\n0\r\nX-Routing-Key: mallory\r\n\r\n")
        assert reply.echoed["body"] == "abcde"
        (seen,) = opened.echo.seen
        assert "x-routing-key" not in seen.headers
        assert seen.declared_size == 5

    on_port(check)


def test_a_connection_serves_one_request_after_the_other_until_the_caller_says_close() -> None:
    async def check(opened: Opened) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        for number in range(50):
            writer.write(post(INFER, b"%d" % number))
            (reply,) = replies_in(await read_reply(reader))
            assert reply.echoed["body"] == str(number)
            assert "connection" not in reply.headers
        writer.write(post(INFER, b"last", CLOSE))
        (last,) = replies_in(await reader.read())
        assert last.headers["connection"] == "close"
        writer.close()

    on_port(check)


def test_what_follows_a_request_that_says_close_is_not_looked_at() -> None:
    async def check(opened: Opened) -> None:
        replies = await ask(opened, post(INFER, b"1", CLOSE) + post(INFER, b"2") + b"\0garbage")
        assert [reply.echoed["body"] for reply in replies] == ["1"]
        assert len(opened.echo.seen) == 1

    on_port(check)


def test_pipelined_requests_are_answered_in_order_and_served_one_at_a_time() -> None:
    async def check(opened: Opened) -> None:
        stream = post(WAIT, b"first") + get("/v2/health") + b"".join(post(INFER, b"%d" % n) for n in range(40))
        answers = asyncio.create_task(tell(opened.number, stream + post(INFER, b"last", CLOSE)))
        await until(lambda: opened.echo.seen)
        assert [seen.path for seen in opened.echo.seen] == [WAIT]
        opened.echo.release.set()
        replies = replies_in(await answers)
        assert [reply.echoed["path"] for reply in replies[:2]] == [WAIT, "/v2/health"]
        assert [reply.echoed["body"] for reply in replies[2:]] == [*(str(n) for n in range(40)), "last"]

    on_port(check)


@pytest.mark.parametrize(
    ("version", "line", "connection"),
    [("1.0", "A: b", "close"), ("1.0", "Connection: keep-alive", "keep-alive"), ("1.1", "A: b", None)],
)
def test_http_1_0_closes_unless_it_is_asked_not_to(version: str, line: str, connection: str | None) -> None:
    async def check(opened: Opened) -> None:
        first = f"POST {INFER} HTTP/{version}\r\nHost: test\r\nContent-Length: 1\r\n{line}\r\n\r\na"
        replies = await ask(opened, first.encode() + f"GET {INFER} HTTP/1.0\r\n\r\n".encode())
        assert len(replies) == (1 if connection == "close" else 2)
        assert replies[0].headers.get("connection") == connection
        assert replies[-1].headers["connection"] == "close"

    on_port(check)


def test_head_is_answered_without_a_body_of_the_length_that_get_would_have() -> None:
    async def check(opened: Opened) -> None:
        for path in (INFER, "/v2/health/live"):
            whole = replies_in(await tell(opened.number, get(path, CLOSE)))[0]
            head = get(path, CLOSE).replace(b"GET", b"HEAD", 1)
            (reply,) = replies_in(await tell(opened.number, head), ["HEAD"])
            assert reply.body == b""
            assert int(reply.headers["content-length"]) == len(whole.body) + 1  # "HEAD" is one longer than "GET"

    on_port(check)


def test_a_target_in_absolute_form_is_read_as_its_path() -> None:
    async def check(opened: Opened) -> None:
        (reply,) = await ask(opened, get(f"HTTP://TEST{INFER}?q", CLOSE))
        assert reply.echoed["path"] == INFER
        (root,) = await ask(opened, get("http://test?q", CLOSE))
        assert root.echoed["path"] == "/"
        (stars,) = await ask(opened, get("*", CLOSE).replace(b"GET", b"OPTIONS"))
        assert stars.echoed == {"method": "OPTIONS", "path": "*", "body": ""}

    on_port(check)


def test_empty_lines_before_a_request_are_passed_over() -> None:
    async def check(opened: Opened) -> None:
        replies = await ask(opened, b"\r\n\r\n" + get(INFER) + b"\r\n" + get(INFER, CLOSE))
        assert [reply.status for reply in replies] == [200, 200]

    on_port(check)


@pytest.mark.parametrize("body", [post(INFER, b"abc"), chunked(INFER, [b"a", b"bc"]), get(INFER)])
def test_an_upgrade_to_another_protocol_is_passed_over_and_the_body_is_not(body: bytes) -> None:
    async def check(opened: Opened) -> None:
        asking = body.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n", 1)
        stream = post(INFER, b"before") + asking + asking + post(INFER, b"after", CLOSE)
        for pieces in ([stream], [stream[n : n + 1] for n in range(len(stream))]):
            replies = replies_in(await tell(opened.number, pieces))
            sent = "" if body.startswith(b"GET") else "abc"
            assert [reply.echoed["body"] for reply in replies] == ["before", sent, sent, "after"]

    on_port(check)


# ── 100-continue ─────────────────────────────────────────────────────────────────────────────────────────────────

EXPECT = "Expect: 100-Continue"


def test_a_caller_that_waits_for_it_is_told_to_go_on_when_its_turn_has_come() -> None:
    async def check(opened: Opened) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        writer.write(post(WAIT, b"") + post(INFER, b"abc", EXPECT, CLOSE)[:-3])
        await until(lambda: opened.echo.seen)
        opened.echo.release.set()
        (first,) = replies_in(await read_reply(reader))
        assert first.echoed["path"] == WAIT
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        (second,) = replies_in(await reader.read())
        assert second.echoed["body"] == "abc"
        writer.close()

    on_port(check)


def test_nobody_is_told_to_go_on_who_has_or_will_be_refused_or_speaks_http_1_0() -> None:
    async def check(opened: Opened) -> None:
        old = post(INFER, b"abc", EXPECT).replace(b"HTTP/1.1", b"HTTP/1.0")
        for message, status in (
            (post(INFER, b"abc", EXPECT, CLOSE), 200),
            (old, 200),
            (post(INFER, b"", EXPECT, "Content-Length: 1"), 400),
            (post(INFER, b"a" * (2**16 + 1), EXPECT)[: -(2**16)], 413),
        ):
            assert [reply.status for reply in await ask(opened, message)] == [status]

    on_port(check)


# ── what the face may do ─────────────────────────────────────────────────────────────────────────────────────────

NAME: contextvars.ContextVar[str] = contextvars.ContextVar("NAME", default="nobody")


class Demanding(Echo):
    """A face that needs a task and a context of its own for each request, as libraries do."""

    async def handle(self, request: WireRequest) -> WireReply:
        task, before = asyncio.current_task(), NAME.get()
        assert task is not None
        token = NAME.set(request.body.decode())
        try:
            async with asyncio.timeout(0.01):
                await self.release.wait()
        except TimeoutError:
            pass
        async with asyncio.timeout(10):
            await asyncio.wait_for(asyncio.sleep(0), 10)
        assert asyncio.current_task() is task
        assert task.cancelling() == 0
        if request.body != b"kept":
            NAME.reset(token)
        return WireReply(200, (("x-before", before), ("x-after", NAME.get())), b"")


def test_a_request_of_the_application_has_a_task_and_a_context_of_its_own() -> None:
    async def check(opened: Opened) -> None:
        stream = post("/v2/x", b"ann") + post("/v2/x", b"kept") + post("/v2/x", b"bob", CLOSE)
        replies = replies_in(await tell(opened.number, stream))
        assert [(reply.headers["x-before"], reply.headers["x-after"]) for reply in replies] == [
            ("nobody", "nobody"),
            ("nobody", "kept"),
            ("nobody", "nobody"),
        ]

    on_port(check, echo=Demanding())


@pytest.mark.parametrize("path", ["/v2/models/m/break/infer", "/v2/models/m/split/infer", "/v2/break/", "/v2/split/"])
def test_a_defect_is_one_answer_500_and_a_closed_connection(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    async def check(opened: Opened) -> None:
        (reply,) = await ask(opened, get(path) + get(INFER))
        assert reply.status == 500
        assert "the gateway failed" in reply.body.decode()
        assert reply.headers["connection"] == "close"

    on_port(check)
    assert "Traceback" in capfd.readouterr().out
