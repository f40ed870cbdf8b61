"""Steady traffic from a process of its own, while a test or a load run changes things: what each answer said, and when.

    python -m tests.e2e.traffic URL MODEL FILE CONNECTIONS RATE

sends until SIGTERM, `RATE` requests a second spread over `CONNECTIONS` keep-alive connections (0: as fast as they
come), each with a routing key of its own, and then writes FILE: a msgpack list of `Seen`.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from time import monotonic, monotonic_ns
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from gateway.examples import digit_samples
from tests.e2e.raw_client import ask, post
from tests.e2e.running_gateway import digit_request

CALLERS = 5_000
BODIES = [json.dumps(digit_request(sample.pixels)).encode() for sample in digit_samples()[:50]]
_BEGAN = b"traffic began\n"


class Seen(Struct, array_like=True):
    """One request as its client saw it. `status` 0 is no answer at all, and `why` says what came instead."""

    connection: int
    at_ns: int
    latency_us: int
    status: int
    version: str = ""
    revision: int = 0
    why: str = ""
    record_id: str = ""


class Traffic:
    """Traffic at a gateway for as long as the `with` lasts; afterwards `seen` has every request in order of its end."""

    def __init__(self, url: str, folder: Path, *, model: str = "digits", connections: int = 8, rate: int = 0) -> None:
        self._file = folder / f"traffic-{monotonic_ns()}.msgpack"
        self._arguments = [url, model, str(self._file), str(connections), str(rate)]
        self.seen: list[Seen] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.traffic", *self._arguments], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == _BEGAN
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
        self.seen = msgspec.msgpack.decode(self._file.read_bytes(), type=list[Seen])

    @property
    def failed(self) -> list[Seen]:
        """Every request that did not get its answer."""
        return [seen for seen in self.seen if seen.status != 200]

    def gone_back(self) -> list[tuple[Seen, Seen]]:
        """Answers of one connection of which the later names a lower revision than the one before."""
        by_connection: dict[int, list[Seen]] = {}
        for seen in self.seen:
            if seen.status == 200:
                by_connection.setdefault(seen.connection, []).append(seen)
        pairs = (pair for answers in by_connection.values() for pair in pairwise(answers))
        return [(one, other) for one, other in pairs if other.revision < one.revision]

    def percentile(self, share: float, since_ns: int = 0, until_ns: int = 2**63) -> float:
        """Return a percentile of the latencies in ms, of the requests sent between two moments (monotonic)."""
        ordered = sorted(seen.latency_us for seen in self.seen if since_ns <= seen.at_ns < until_ns)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1000 if ordered else 0.0


def illegal(seen: Iterable[Seen], legal: dict[int, set[str]]) -> list[Seen]:
    """Return the answers whose version may not serve under the revision that they name themselves."""
    return [one for one in seen if one.status == 200 and one.version not in legal[one.revision]]


class _Sender:
    def __init__(self, url: str, model: str, rate: float) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._path = f"/v2/models/{model}/infer"
        self._interval = 1 / rate if rate else 0.0
        self._connections = 0
        self._sent = 0
        self.stopping = False
        self.seen: list[Seen] = []

    async def connection(self) -> None:
        """Send over one connection until told to stop; open another when it is lost."""
        while not self.stopping:
            self._connections += 1
            number = self._connections
            try:
                reader, writer = await asyncio.open_connection(*self._address)
            except OSError as error:
                self.seen.append(Seen(number, monotonic_ns(), 0, 0, why=f"connecting: {error}"))
                await asyncio.sleep(0.01)
                continue
            try:
                await self._send(number, reader, writer)
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

    async def _send(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        due = monotonic()
        while not self.stopping:
            if self._interval:
                due = max(due + self._interval, monotonic() - 1.0)
                await asyncio.sleep(max(0.0, due - monotonic()))
            self._sent += 1
            key = f"caller-{self._sent % CALLERS}"
            request = post(self._path, BODIES[self._sent % len(BODIES)], x_routing_key=key)
            at = monotonic_ns()
            try:
                answer = await ask(reader, writer, request)
            except (OSError, EOFError) as error:
                self.seen.append(Seen(number, at, (monotonic_ns() - at) // 1000, 0, why=repr(error)))
                return
            headers, took = answer.headers, (monotonic_ns() - at) // 1000
            self.seen.append(
                Seen(
                    number,
                    at,
                    took,
                    answer.status,
                    headers.get("x-model-version", ""),
                    int(headers.get("x-route-revision", "0")),
                    "" if answer.status == 200 else answer.body[:200].decode(errors="replace"),
                    headers.get("x-record-id", ""),
                )
            )


async def _run(url: str, model: str, connections: int, rate: float) -> list[Seen]:
    sender = _Sender(url, model, rate / connections)

    def stop() -> None:
        sender.stopping = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    sys.stdout.buffer.write(_BEGAN)
    sys.stdout.buffer.flush()
    await asyncio.gather(*(sender.connection() for _ in range(connections)))
    return sender.seen


def main(arguments: Sequence[str]) -> None:
    url, model, file, connections, rate = arguments
    seen = asyncio.run(_run(url, model, int(connections), float(rate)))
    Path(file).write_bytes(msgspec.msgpack.encode(seen))


if __name__ == "__main__":
    main(sys.argv[1:])
