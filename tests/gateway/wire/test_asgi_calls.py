"""Everything that is no inference goes through an ASGI application: what it is told, and what it may answer."""

import asyncio

import pytest

from gateway.wire.asgi import Message, Receive, Scope, Send
from tests.conftest import until
from tests.gateway.wire.open_port import Opened, Reply, ask, get, on_port, post, replies_in, settled, tell

CLOSE = "Connection: close"


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


class Script:
    """An application that sends these messages, then raises, if it is to; `scopes` and `received` are what it got."""

    def __init__(self, *messages: Message, error: Exception | None = None, receive: int = 1) -> None:
        self._messages = messages
        self._error = error
        self._receive = receive
        self.scopes: list[Scope] = []
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        for number in range(max(self._receive, 1)):
            if number < self._receive:
                self.received.append(await receive())
            if number == 0:
                for message in self._messages:
                    await send(message)
        if self._error is not None:
            raise self._error


def answered(application: Script, message: bytes, methods: tuple[str, ...] = ()) -> list[Reply]:
    replies: list[Reply] = []

    async def check(opened: Opened) -> None:
        replies.extend(replies_in(await tell(opened.number, message), methods))
        assert opened.echo.seen == []

    on_port(check, application)
    return replies


def test_an_application_is_told_the_request_as_asgi_says() -> None:
    application = Script(start(), body(b""), receive=2)
    answered(application, post("/a%20b/c?d=%20e", b"abc", "X-Y: Z", "x-y: z", CLOSE))
    (scope,) = application.scopes
    (host, port), (_, client_port) = scope.pop("server"), scope["client"]
    assert (host, scope.pop("client")) == ("127.0.0.1", ("127.0.0.1", client_port))
    assert port != client_port
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/a b/c",
        "raw_path": b"/a%20b/c",
        "query_string": b"d=%20e",
        "root_path": "",
        "headers": [
            (b"host", b"test"),
            (b"content-length", b"3"),
            (b"x-y", b"Z"),
            (b"x-y", b"z"),
            (b"connection", b"close"),
        ],
    }
    assert application.received == [
        {"type": "http.request", "body": b"abc", "more_body": False},
        {"type": "http.disconnect"},
    ]


def test_a_reply_of_a_known_length_is_sent_as_it_is() -> None:
    headers = ((b"Content-Length", b"6"), (b"X-A", b"b"), (b"Date", b"now"), (b"connection", b"keep-alive"))
    reply, again = answered(Script(start(201, *headers), body(b"abc", True), body(b"def")), get("/") + get("/", CLOSE))
    assert (reply.status, reply.body) == (201, b"abcdef")
    assert reply.headers["x-a"] == "b"
    assert reply.headers["date"] != "now"
    assert "connection" not in reply.headers
    assert again.headers["connection"] == "close"


def test_a_reply_of_unknown_length_is_chunked_or_in_http_1_0_ends_with_the_connection() -> None:
    messages = (start(), body(b"abc", True), body(b"", True), body(b"def", True), body(b""))
    reply, _ = answered(Script(*messages), get("/") + get("/", CLOSE))
    assert reply.headers["transfer-encoding"] == "chunked"
    assert reply.body == b"abcdef"
    old = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    (reply,) = answered(Script(*messages), old + old)
    assert reply.headers["connection"] == "close"
    assert "transfer-encoding" not in reply.headers
    assert reply.body == b"abcdef"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_a_reply_that_has_no_body_is_sent_without_one(method: str, status: int) -> None:
    message = get("/").replace(b"GET", method.encode(), 1)
    application = Script(start(status), body(b"abc", True), body(b"def"))
    reply, _ = answered(
        application, message + message.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), (method,) * 2
    )
    assert (reply.status, reply.body) == (status, b"")


def test_an_application_may_close_the_connection() -> None:
    closing = start(200, (b"connection", b"close"), (b"content-length", b"0"))
    (reply,) = answered(Script(closing, body(b"")), get("/") + get("/"))
    assert reply.headers["connection"] == "close"


LENGTH = (b"content-length", b"3")


@pytest.mark.parametrize(
    "application",
    [
        Script(error=ZeroDivisionError()),
        Script(start(), error=ZeroDivisionError()),
        Script(),
        Script(body(b"abc")),
        Script(start(), start()),
        Script(start(200, LENGTH), body(b"ab")),
        Script(start(200, LENGTH), body(b"abcd")),
        Script(start(200, (b"x-a", b"b\r\nx-c: d")), body(b"")),
        Script({"type": "http.unknown"}),
    ],
)
def test_an_application_that_fails_before_its_reply_has_begun_is_answered_for(
    application: Script, capfd: pytest.CaptureFixture[str]
) -> None:
    (reply,) = answered(application, get("/") + get("/"))
    assert (reply.status, reply.headers["connection"]) == (500, "close")
    assert b"the gateway failed" in reply.body
    assert "defect" in capfd.readouterr().out


@pytest.mark.parametrize(
    "application",
    [
        Script(start(), body(b"abc", True), error=ZeroDivisionError()),
        Script(start(), body(b"abc", True)),
        Script(start(200, LENGTH), body(b"ab", True), body(b"")),
        Script(start(200, LENGTH), body(b"ab", True), body(b"cd")),
    ],
)
def test_a_reply_that_breaks_off_is_cut_off_so_that_nobody_takes_it_for_whole(
    application: Script, capfd: pytest.CaptureFixture[str]
) -> None:
    async def check(opened: Opened) -> None:
        with pytest.raises(AssertionError):  # what came is not a whole reply
            replies_in(await tell(opened.number, get("/")) or b"nothing")

    on_port(check, application)
    assert "defect" in capfd.readouterr().out


def test_an_application_waits_for_a_caller_that_does_not_take_its_reply_and_is_cancelled_when_it_hangs_up() -> None:
    sent = 0
    ended: list[str] = []

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send(start())
        try:
            while True:
                await send(body(b"x" * 65_536, True))
                sent += 1
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def check(opened: Opened) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", opened.number, limit=1)
        writer.write(get("/"))
        await settled(lambda: sent)
        assert 0 < sent < 1_000
        assert ended == []
        writer.transport.abort()
        await until(lambda: ended)

    on_port(check, flood)


def test_an_application_that_waits_for_the_caller_to_go_is_cancelled_when_it_does() -> None:
    ended: list[str] = []

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await receive()
        finally:
            ended.append("ended")

    async def check(opened: Opened) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", opened.number)
        writer.write(get("/"))
        await until(lambda: opened.port.connections)
        writer.close()
        await until(lambda: ended)

    on_port(check, waiting)


def test_the_next_request_is_served_after_the_application_has_ended() -> None:
    async def check(opened: Opened) -> None:
        replies = await ask(opened, get("/v2/one") + get("/v2/models/m/infer") + get("/v2/two", CLOSE))
        assert [reply.echoed["path"] for reply in replies] == ["/v2/one", "/v2/models/m/infer", "/v2/two"]

    on_port(check)
