"""What the server of the data port costs a request, side by side: our own protocol, and the ASGI face on uvicorn.

    .venv/bin/python -m loadtests.server_cost [--requests 20000] [--runs 7]

Starts, one after the other and `runs` times over, one process that serves the same answer (nine headers, 500 bytes,
ready made) in both ways on loopback, and sends each the same `requests` inferences of 500 bytes over 32 keep-alive
connections. Printed are CPU µs per request, user + system, read from /proc over the counted requests, and the ratio by
pair. What both have in common (system calls, mostly) is in both figures.
"""

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys

import httpx2
import uvloop
from rich.console import Console
from rich.table import Table

from gateway.config import LimitSettings, TlsSettings
from gateway.errors import GatewayError
from gateway.messages import Answer, WireReply, WireRequest
from gateway.wire.asgi import AsgiFace
from gateway.wire.listening import Listening
from gateway.wire.port import Port
from gateway.wire.serving import serve_data_until, serve_until
from loadtests.cost import cpu_us
from tests.e2e.raw_client import post, send_all
from tests.e2e.running_gateway import wait_until

CONNECTIONS = 32
OURS, UVICORN = "own protocol", "ASGI face on uvicorn"
HEADERS = (
    ("content-type", "application/json"),
    ("x-request-id", "request-1"),
    ("x-record-id", "01a2076a-0000-7000-8000-000000000000"),
    ("server-timing", "route;dur=0.028, queue;dur=0.000, infer;dur=0.061, total;dur=0.352"),
    ("x-model-name", "digits"),
    ("x-model-version", "1"),
    ("x-model-digest", f"sha-256={'0' * 64}"),
    ("x-route-revision", "4"),
    ("x-route-reason", "split"),
)


class Ready:
    """A face whose answer is there already."""

    def is_inference(self, path: str) -> bool:
        """Tell an inference by its path, as the protocol does."""
        return path.endswith("/infer")

    async def handle(self, request: WireRequest) -> WireReply:
        """Answer."""
        return WireReply(200, HEADERS, b"x" * 500) if request.refused is None else self.refuse(request.refused)

    def reply(self, answer: Answer) -> WireReply:
        """Begin an answer that comes piece by piece; none does here."""
        return WireReply(answer.rendered.status, HEADERS, answer.rendered.body)

    def refuse(self, error: GatewayError) -> WireReply:
        """Answer an error; this is not to happen here."""
        return WireReply(400, (), error.message.encode())


async def serve(kind: str, listening: socket.socket) -> None:
    """Serve one of the two until SIGTERM."""
    face, stop, limits = Ready(), asyncio.Event(), LimitSettings()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    application = AsgiFace(face.handle, limits.max_body_bytes)
    if kind == OURS:
        await serve_data_until(stop, Port(face, application, limits), Listening(listening), TlsSettings(), 1.0)
    else:
        await serve_until(stop, application, listening, 1.0)


def measure(kind: str, count: int) -> float:
    """Start one of the two, send it `count` requests, and return its CPU µs per request."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(256)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        command = [sys.executable, "-m", "loadtests.server_cost", "--serve", kind, "--fd", str(listening.fileno())]
        server = subprocess.Popen(command, pass_fds=[listening.fileno()])
    try:
        wait_until(lambda: _answers(url), "the server answers")
        requests = [post("/v2/models/digits/infer", b"x" * 500, x_routing_key=f"key-{n}") for n in range(count)]
        send_all(url, requests[: count // 10], CONNECTIONS)
        before = cpu_us(server.pid)
        answers = send_all(url, requests, CONNECTIONS)
        used = cpu_us(server.pid) - before
        assert {answer.status for answer in answers} == {200}
        assert len(answers) == count
        return used / count
    finally:
        server.terminate()
        server.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/", trust_env=False).status_code == 200
    except httpx2.TransportError:
        return False


def main() -> None:
    """Run the comparison and print it, or serve one of the two for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        listening = socket.socket(fileno=options.fd)
        listening.setblocking(False)
        uvloop.run(serve(options.serve, listening))
        return
    runs = [(measure(OURS, options.requests), measure(UVICORN, options.requests)) for _ in range(options.runs)]
    table = Table(title=f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {options.runs} runs")
    for column in ("CPU µs per request", "median", "least", "most"):
        table.add_column(column)
    for label, figures in zip((OURS, UVICORN), zip(*runs, strict=True), strict=True):
        middle = statistics.median(figures)
        table.add_row(label, f"{middle:.1f}", f"{min(figures):.1f}", f"{max(figures):.1f}")
    ratios = [ours / theirs for ours, theirs in runs]
    console = Console()
    console.print(table)
    spread = f"(by pair {min(ratios):.2f}–{max(ratios):.2f})"
    console.print(f"{OURS} ÷ {UVICORN}: median {statistics.median(ratios):.2f} {spread}")


if __name__ == "__main__":
    main()
