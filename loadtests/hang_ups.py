"""10 000 clients that hang up at random moments, and others who stay: nothing of them is left, no answer crosses.

    .venv/bin/python -m loadtests.hang_ups [--clients 10000]

Clients connect, send a request with an id of its own, and break off: before the first byte, within the head, within
the body, while waiting, within the answer; some in order (FIN), some not (RST). After every third comes one who stays
to the end, and eight others call without a break on kept connections meanwhile. A backend answers each id with that
id, after a moment and in two parts. Pass marks: every answer that was read whole is the one of its request; every
client who stayed got one; within 5 s file descriptors and threads of the worker and its requests in flight are back to
what they were before.

The last three are what can be seen of connection pools and tasks from outside. The baseline is taken after a burst of
clients who stay, so that pools have had their size; idle connections to backends expire after a second here.
"""

import argparse
import asyncio
import random
import socket
import struct
import time
from contextlib import suppress
from urllib.parse import urlsplit

from msgspec import Struct

from loadtests.bench.asking import Ask, ask
from loadtests.bench.moody import Moody, answer_to
from loadtests.bench.pointsman import Pointsman, forwarded
from loadtests.bench.proctree import open_files, threads
from loadtests.bench.scene import Scene, perform_with

AT_ONCE = 200
STEADY = 8
BACK_SECONDS = 5.0
_PATH = "/v2/models/fraud/infer"
_LONG_BODY = 20_000  # bytes, so that a body has moments to break off in
_PATIENCE_SECONDS = 30.0


class _Tally(Struct):
    """What came of all clients; `left` counts hang-ups by the moment at which they came."""

    whole: int = 0
    wrong: list[str] = []
    unanswered: list[str] = []
    left: dict[str, int] = {}


class _Clients:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self.tally = _Tally()
        self._number = 0
        self._ended = False

    def _request(self) -> tuple[str, bytes]:
        self._number += 1
        identity = f"client-{self._number}"
        padding = "x" * random.randrange(_LONG_BODY)
        body = f'{{"id":"{identity}","inputs":[],"parameters":{{"padding":"{padding}"}}}}'.encode()
        return identity, Ask(_PATH, body).wire()

    async def burst(self, count: int, *, all_stay: bool) -> None:
        """Have `count` clients come, some at a time."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with places:
                await self._client(stays=all_stay or number % 4 == 0)

        await asyncio.gather(*(one(number) for number in range(count)))

    async def steady(self) -> None:
        """Call on one kept connection until told to end."""
        reader, writer = await asyncio.open_connection(*self._address)
        while not self._ended:
            identity, request = self._request()
            writer.write(request)
            await self._read(identity, reader)
        writer.close()

    async def beside_steady(self, count: int) -> None:
        """Have `count` clients come and break off, and a third as many who stay, while others call steadily."""
        callers = [asyncio.create_task(self.steady(), name=f"steady {number}") for number in range(STEADY)]
        await self.burst(-(-count * 4 // 3), all_stay=False)
        self._ended = True
        for result in await asyncio.gather(*callers, return_exceptions=True):
            if isinstance(result, BaseException):
                self.tally.unanswered.append(f"a steady caller: {result!r}")

    async def _client(self, *, stays: bool) -> None:
        identity, request = self._request()
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            if stays:
                writer.write(request)
                await self._read(identity, reader)
            else:
                await self._break_off(request, reader, writer)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            if stays:
                self.tally.unanswered.append(f"{identity}: {error!r}")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _read(self, identity: str, reader: asyncio.StreamReader) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            body = await reader.readexactly(length)
        if b" 200 " not in lines[0]:
            self.tally.unanswered.append(f"{identity}: {lines[0].decode()} {body[:200].decode(errors='replace')}")
        elif body != answer_to(identity):
            self.tally.wrong.append(f"{identity}: {body[:200].decode(errors='replace')}")
        else:
            self.tally.whole += 1

    async def _break_off(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = request.index(b"\r\n\r\n")
        moments = {
            "connected": 0,
            "within the head": random.randrange(1, head),
            "within the body": random.randrange(head + 4, len(request)),
            "while waiting": len(request),
            "within the answer": len(request),
        }
        moment = random.choice(list(moments))
        self.tally.left[moment] = self.tally.left.get(moment, 0) + 1
        writer.write(request[: moments[moment]])
        await writer.drain()
        if moment == "within the answer":
            await reader.readexactly(random.randrange(1, 200))
        elif moment == "while waiting":
            await asyncio.sleep(random.random() * 0.05)
        if random.random() < 0.5:  # with no time to linger, closing sends RST instead of FIN (socket(7))
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Footprint(Struct, frozen=True):
    """What a worker holds: file descriptors, threads, requests in flight."""

    files: int
    threads: int
    in_flight: int

    def within(self, other: "_Footprint") -> bool:
        return self.files <= other.files and self.threads <= other.threads and self.in_flight <= other.in_flight


def _footprint(gateway: Pointsman) -> _Footprint:
    (worker,) = gateway.workers()
    in_flight = sum(
        value for name, value in gateway.metrics().items() if name.startswith("pointsman_in_flight_requests")
    )
    return _Footprint(open_files(worker.pid), threads(worker.pid), round(in_flight))


def _settled(gateway: Pointsman, bound: _Footprint | None, seconds: float) -> tuple[_Footprint, float]:
    """Return the footprint once it is within `bound`, at the latest after `seconds`, and when that was."""
    began = time.monotonic()
    while True:
        # Pools may let go of idle connections when they are next used; that one connection is there before and after.
        ask(gateway.data_url, Ask(_PATH, b'{"id":"looking","inputs":[]}'))
        time.sleep(0.1)
        now, passed = _footprint(gateway), time.monotonic() - began
        if passed >= seconds or (bound is not None and now.within(bound)):
            return now, passed


def scene(scene: Scene, clients: int) -> None:
    """Play it."""
    with (
        Moody("echo", scene.folder, scene.cores[1]) as backend,
        Pointsman(
            scene.folder / "gateway",
            cores=[scene.cores[0]],
            settings={"POINTSMAN_UPSTREAM__KEEPALIVE_SECONDS": "1"},
        ) as gateway,
    ):
        gateway.change([forwarded("fraud", "1", [backend.url]), {"model": "fraud", "split": {"1": 10_000}}])
        asyncio.run(_Clients(gateway.data_url).burst(2 * AT_ONCE, all_stay=True))
        before, _ = _settled(gateway, None, 2 * BACK_SECONDS)
        all_clients = _Clients(gateway.data_url)
        asyncio.run(all_clients.beside_steady(clients))
        after, seconds = _settled(gateway, before, BACK_SECONDS)
    tally = all_clients.tally
    hung_up = sum(tally.left.values())
    scene.note(f"{hung_up} hung up: " + ", ".join(f"{count} {moment}" for moment, count in sorted(tally.left.items())))
    words = f"{tally.whole} answers read whole and checked, {len(tally.wrong)} of another request (0 may)"
    scene.mark(tally.whole > 0 and not tally.wrong, f"{words} {tally.wrong[:1] or ''}")
    words = f"{len(tally.unanswered)} who stayed got no answer of status 200 (0 may) {tally.unanswered[:1] or ''}"
    scene.mark(not tally.unanswered, words)
    words = f"after {seconds:.1f} s: files {before.files} → {after.files}, threads {before.threads} → {after.threads}, "
    words += f"in flight {before.in_flight} → {after.in_flight} (back within {BACK_SECONDS:.0f} s)"
    scene.mark(after.within(before), words)


def main() -> None:
    """Run it and exit with 1 when a mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=10_000, help="who hang up")
    options = parser.parse_args()
    perform_with(0.0, lambda performance: scene(performance, options.clients))


if __name__ == "__main__":
    main()
