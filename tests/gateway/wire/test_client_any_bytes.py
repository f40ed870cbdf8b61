"""Whatever bytes a backend answers with: a reply or an error, in time, and never what was meant for another caller."""

import asyncio
from collections import deque
from hashlib import sha256
from itertools import pairwise
from typing import Any

import uvloop
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from gateway.errors import BackendProtocolError, BackendUnreachable, DeadlineExceeded
from tests.fuzzing import fuzzed
from tests.gateway.wire.backends import Server, make_client, read_request, send, until

SECONDS = 0.15  # for a request; a backend that says nothing more takes all of it
ERRORS = (BackendProtocolError, BackendUnreachable, DeadlineExceeded)
FORMS = {
    "length": b"HTTP/1.1 200 OK\r\nx-of: %(of)b\r\ncontent-length: %(size)d\r\n\r\n%(of)b",
    "chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%(hex)x\r\n%(of)b\r\n0\r\nx-of: %(of)b\r\n\r\n",
    "interim": b"HTTP/1.1 103 Hints\r\nx-of: %(of)b\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %(size)d\r\n\r\n%(of)b",
    "close": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n%(of)b",
    "empty": b"HTTP/1.1 204 No Content\r\nx-of: %(of)b\r\n\r\n",
}
PUT = [
    b"\r\n",
    b"\n",
    b"\0",
    b" ",
    b":",
    b"content-length: 3\r\n",
    b"transfer-encoding: chunked\r\n",
    b"HTTP/1.1 200 OK",
]


class Edit(Struct, frozen=True):
    """`removed` bytes at a place (modulo the length) make way for `put`."""

    place: int
    removed: int
    put: bytes


class Turn(Struct, frozen=True):
    """What the backend does with a request: the form of its reply, what is wrong with that, and how it goes on.

    `again` puts a second reply behind it that nobody asked for. After it the connection is kept, closed, or neither.
    """

    form: str
    edits: tuple[Edit, ...]
    again: bool
    cuts: tuple[int, ...]
    then: str

    @property
    def honest(self) -> bool:
        """Whether the reply is whole and right, and nothing comes behind it."""
        return not self.edits and not self.again and (self.form != "close" or self.then == "close")

    def pieces(self, token: str) -> list[bytes]:
        """Return the reply to the request with this token."""
        of = token.encode()
        data = bytearray(FORMS[self.form] % {b"of": of, b"size": len(of), b"hex": len(of)} * (1 + self.again))
        for edit in self.edits:
            place = edit.place % (len(data) + 1)
            data[place : place + edit.removed] = edit.put
        at = sorted({0, len(data), *(cut % (len(data) + 1) for cut in self.cuts)})
        return [bytes(data[start:end]) for start, end in pairwise(at)]


edits = st.builds(Edit, st.integers(0, 400), st.integers(0, 30), st.sampled_from(PUT) | st.binary(max_size=5))
turns = st.builds(
    Turn,
    st.sampled_from(sorted(FORMS)),
    st.lists(edits, max_size=4).map(tuple),
    st.sampled_from([False, False, False, True]),
    st.lists(st.integers(0, 400), max_size=5).map(tuple),
    st.sampled_from(["keep", "keep", "keep", "close", "close", "hang"]),
)


class Backend:
    """Takes a turn for each request that arrives, in order, and answers honestly when there are no more."""

    def __init__(self, todo: list[Turn]) -> None:
        self._todo = deque(todo)
        self.took: dict[str, Turn] = {}
        self.writing = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            _, body = await read_request(reader)
            token = body.decode()
            turn = self.took[token] = self._todo.popleft() if self._todo else Turn("length", (), False, (), "keep")
            self.writing += 1
            try:
                for piece in turn.pieces(token):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
            finally:
                self.writing -= 1
            if turn.then == "hang":
                await reader.read()
            if turn.then != "keep":
                return


def token_of(number: int) -> str:
    return sha256(b"%d" % number).hexdigest()[:24]


async def ask(client: Any, url: str, token: str, seconds: float = SECONDS) -> str | None:
    """Return all that a caller is given as one text; None when it is told that there is nothing."""
    try:
        async with asyncio.timeout(20):
            reply = await send(client, url, body=token.encode(), seconds=seconds)
    except ERRORS:
        return None
    return "\n".join([*(f"{name}: {value}" for name, value in reply.headers), reply.body.decode("latin-1")])


@given(st.lists(turns, min_size=1, max_size=6))
@fuzzed(50)
def test_no_bytes_of_a_backend_lead_to_a_crash_a_hang_or_another_callers_reply(todo: list[Turn]) -> None:
    async def check() -> None:
        backend, tokens = Backend(todo), [token_of(number) for number in range(len(todo) + 3)]
        client = make_client(max_connections=2)
        async with Server(backend.serve) as server:
            for token in tokens:
                text = await ask(client, server.url, token)
                assert text is None or not any(other in text for other in tokens if other != token), text
                turn = backend.took.get(token)
                if text is not None and turn is not None and turn.honest and turn.form != "empty":
                    assert text.endswith(f"\n{token}")
                # What comes only when the next request is on its way cannot be told from the reply to that.
                await until(lambda: not backend.writing, "the backend is still writing")
            last = token_of(-1)
            text = await ask(client, server.url, last, 10.0)
            assert text is not None
            assert text.endswith(f"\n{last}"), "a client that cannot call an honest backend any more"
        await client.close()

    uvloop.run(check())
