"""What a call of a backend costs: the pooled client, the one on httpx2 that was there before, and the least possible.

    .venv/bin/python -m loadtests.client_cost [--requests 20000] [--runs 7]

One backend in a process of its own answers every request with the same 500 bytes. Against it, `runs` times over and
taking turns, each client sends `requests` of 500 bytes from a new process on uvloop, 32 at a time. Printed is the CPU,
user + system, that the client's process takes per request. Other work on the machine moves the figures, but both of a
pair; so the ratios are what counts. "The least possible" knows no pool, no deadline and no error: it writes bytes that
are there already and reads with httptools until a reply ends.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

import httptools
import uvloop
from rich.console import Console
from rich.table import Table

from gateway.messages import Headers
from gateway.ports import UpstreamReply
from gateway.wire.client import PooledClient
from loadtests.httpx2_client import HttpxClient

CONNECTIONS = 32
BODY = b"x" * 500
PATH = "/v2/models/fraud/infer"
HEADERS: Headers = (
    ("content-type", "application/json"),
    ("x-request-id", "0198c2c4-5b5e-7cc4-8000-0123456789ab"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)
REPLY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nserver: backend\r\n"
    b"date: Mon, 23 Nov 2026 10:00:00 GMT\r\ncontent-length: 500\r\n\r\n" + BODY
)
Send = Callable[[], Awaitable[object]]


# ── the backend ──────────────────────────────────────────────────────────────────────────────────────────────────


class Answering(asyncio.Protocol):
    """Answers every request alike."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def on_message_complete(self) -> None:
        """Answer a request that has come whole."""
        self._transport.write(REPLY)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)


async def serve() -> None:
    """Say the port on standard output and answer until the parent is gone."""
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


# ── the clients ──────────────────────────────────────────────────────────────────────────────────────────────────


class Least(asyncio.Protocol):
    """One connection that sends the same bytes again and again."""

    def __init__(self) -> None:
        self._request = b"POST %b HTTP/1.1\r\nhost: x\r\n" % PATH.encode()
        self._request += b"".join(b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in HEADERS)
        self._request += b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Let the sender go on."""
        self._reply.set_result(None)

    async def send(self) -> None:
        """Send the request and wait for the end of its reply."""
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(self._request)
        await self._reply


class Client(Protocol):
    """What both clients have of `ports.UpstreamClient`."""

    async def request(
        self, *, method: str, url: str, headers: Headers, body: bytes, deadline_ns: int, lane: str
    ) -> UpstreamReply:
        """See `ports.UpstreamClient`."""

    async def close(self) -> None:
        """See `ports.UpstreamClient`."""


def new_client() -> Client:
    """Return the client of the gateway."""
    return PooledClient(max_connections=CONNECTIONS, keepalive_seconds=30, connect_timeout_ms=2_000)


def old_client() -> Client:
    """Return the one that was there before."""
    return HttpxClient(max_connections=CONNECTIONS, keepalive_seconds=30, connect_timeout_ms=2_000)


def sending(client: Client, url: str) -> Send:
    """Return what sends one request and checks the answer."""

    async def send() -> None:
        reply = await client.request(
            method="POST",
            url=url + PATH,
            headers=HEADERS,
            body=BODY,
            deadline_ns=time.monotonic_ns() + 30_000_000_000,
            lane="primary",
        )
        assert (reply.status, reply.body) == (200, BODY)

    return send


async def send_all(kind: str, port: int, count: int) -> float:
    """Return the CPU per request, in µs, after a tenth as many that are not counted."""
    client = {"pooled": new_client, "httpx2": old_client}.get(kind, new_client)()
    senders: list[Send] = [sending(client, f"http://127.0.0.1:{port}")] * CONNECTIONS
    if kind == "least":
        loop = asyncio.get_running_loop()
        connected = [await loop.create_connection(Least, "127.0.0.1", port) for _ in range(CONNECTIONS)]
        senders = [connection.send for _, connection in connected]

    async def repeat(send: Send, times: int) -> None:
        for _ in range(times):
            await send()

    async def together(total: int) -> None:
        await asyncio.gather(*(repeat(send, total // CONNECTIONS) for send in senders))

    await together(count // 10)
    before = time.process_time_ns()
    await together(count)
    spent = time.process_time_ns() - before
    await client.close()
    return spent / 1e3 / (count // CONNECTIONS * CONNECTIONS)


# ── the comparison ───────────────────────────────────────────────────────────────────────────────────────────────


def measure(kind: str, port: int, count: int) -> float:
    """Return the CPU per request, in µs, of a client in a new process."""
    command = [sys.executable, "-m", "loadtests.client_cost", "--client", kind, str(port), str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return float(json.loads(done.stdout))


def compare(runs: int, count: int) -> None:
    """Run the comparison and print it."""
    backend = subprocess.Popen(
        [sys.executable, "-m", "loadtests.client_cost", "--backend"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert backend.stdout is not None
    kinds = ("pooled", "httpx2", "least")
    costs: dict[str, list[float]] = {kind: [] for kind in kinds}
    try:
        port = int(backend.stdout.readline())
        for _ in range(runs):
            for kind in kinds:
                costs[kind].append(measure(kind, port, count))
    finally:
        backend.communicate()
    table = Table(title=f"client's CPU per request, {runs} runs of {count} requests, {CONNECTIONS} at a time")
    for column in ("client", "µs, median", "least", "most"):
        table.add_column(column)
    for kind, values in costs.items():
        table.add_row(kind, f"{statistics.median(values):.1f}", f"{min(values):.1f}", f"{max(values):.1f}")
    console = Console()
    console.print(table)
    for kind in ("httpx2", "least"):
        ratios = [pooled / other for pooled, other in zip(costs["pooled"], costs[kind], strict=True)]
        spread = f"median {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})"
        console.print(f"pooled ÷ {kind}, pair by pair: {spread}")


def main() -> None:
    """Take the part that the command line names; without one, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--backend", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.backend:
        uvloop.run(serve())
    elif options.client:
        kind, port, count = options.client
        print(json.dumps(uvloop.run(send_all(kind, int(port), int(count)))))
    else:
        compare(options.runs, options.requests)


if __name__ == "__main__":
    main()
