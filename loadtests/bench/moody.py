"""Backends that behave in one certain way, each a process of its own, so that their work is nobody else's.

    python -m loadtests.bench.moody KIND PORT

| kind | answers |
|---|---|
| echo | with the body's `id`, after a moment (0 to 30 ms), the body of the answer in two parts |
| slots | as a model server of fixed capacity: 8 at once, 20 ms each, the others wait in line |
| hangs | never |
| fails | 503 |
| huge | 200 and then 1 GiB |

Belongs here: behaviours. Never here: starting these, or what is expected of a gateway in front of them.
"""

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import uvloop

from loadtests.bench.programs import Program, free_port

SLOTS = 8
SLOT_SECONDS = 0.02
HUGE_BYTES = 2**30
_CHUNK = b"0" * 2**20


def answer_to(identity: str) -> bytes:
    """Return the body with which `echo` and `slots` answer a request of this id."""
    output = {"name": "score", "datatype": "FP32", "shape": [1], "data": [0.5]}
    return json.dumps({"model_name": "m", "id": identity, "outputs": [output]}).encode()


def head(status: str, length: int) -> bytes:
    """Return the head of an answer."""
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n".encode()


async def _echo(body: bytes, writer: asyncio.StreamWriter) -> None:
    answer = answer_to(json.loads(body).get("id", ""))
    await asyncio.sleep(random.random() * 0.03)
    writer.write(head("200 OK", len(answer)) + answer[:10])
    await writer.drain()
    await asyncio.sleep(random.random() * 0.005)
    writer.write(answer[10:])


class _Slots:
    def __init__(self) -> None:
        self._free = asyncio.Semaphore(SLOTS)

    async def __call__(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        async with self._free:
            await asyncio.sleep(SLOT_SECONDS)
        answer = answer_to(json.loads(body).get("id", ""))
        writer.write(head("200 OK", len(answer)) + answer)


async def _hangs(_body: bytes, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def _fails(_body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(head("503 Service Unavailable", 2) + b"{}")


async def _huge(_body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(head("200 OK", HUGE_BYTES))
    for _ in range(HUGE_BYTES // len(_CHUNK)):
        writer.write(_CHUNK)
        await writer.drain()


_Behaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
_KINDS: dict[str, Callable[[], _Behaviour]] = {
    "echo": lambda: _echo,
    "slots": _Slots,
    "hangs": lambda: _hangs,
    "fails": lambda: _fails,
    "huge": lambda: _huge,
}


async def _serve(kind: str, port: int) -> None:
    behaviour = _KINDS[kind]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = next(
                    (int(line[15:]) for line in request.split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                body = await reader.readexactly(length)
                if request.startswith(b"get "):  # a readiness probe
                    writer.write(head("200 OK", 2) + b"{}")
                else:
                    await behaviour(body, writer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


class Moody(Program):
    """A running backend of one kind; `url` is where it answers, also after it was stopped and `again` started."""

    def __init__(self, kind: str, folder: Path, core: int, port: int = 0) -> None:
        """Start it on `core`; it answers within a moment."""
        self.kind, self.folder, self.core, self.port = kind, folder, core, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "loadtests.bench.moody", kind, str(self.port)]
        super().__init__(command, log=folder / f"{kind}-{self.port}.log", cores=[core])


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
