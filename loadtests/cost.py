"""What a prediction costs, side by side: Pointsman with everything on, and the barest server of the same model.

    .venv/bin/python -m loadtests.cost [--requests 20000] [--runs 5]

Starts, one after the other and `runs` times over, (a) Pointsman with one worker, records, metrics, log lines and a
90/10 split of the example models, and (b) uvicorn + Starlette + orjson + ONNX Runtime around one of those models and
nothing else. Each gets the same bodies over 32 keep-alive connections from one client. Printed are medians:
requests/s as the client saw them (it shares the cores, so only the ratio means anything) and CPU microseconds per
request, user + system, read from /proc over the counted requests. Then: how long after its reply a record is found,
and how long a change of weights takes until every worker has it.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from rich.console import Console
from rich.table import Table

from gateway.examples import digit_samples, digits_folder
from tests.e2e.raw_client import get, post, send_all
from tests.e2e.running_gateway import RunningGateway, digit_request, wait_until

CONNECTIONS = 32
_TICKS = os.sysconf("SC_CLK_TCK")
_BODIES = [json.dumps(digit_request(sample.pixels)).encode() for sample in digit_samples()[:50]]


def cpu_us(pid: int) -> float:
    """Return the user + system time of a process so far, in µs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS * 1e6


def measure(url: str, pids: dict[str, int], count: int) -> dict[str, float]:
    """Send `count` requests and return requests/s and CPU µs per request of each process."""
    requests = [
        post("/v2/models/digits/infer", _BODIES[n % len(_BODIES)], x_routing_key=f"key-{n}") for n in range(count)
    ]
    send_all(url, requests[: count // 10], CONNECTIONS)
    before = {name: cpu_us(pid) for name, pid in pids.items()}
    started = time.perf_counter()
    answers = send_all(url, requests, CONNECTIONS)
    seconds = time.perf_counter() - started
    assert {answer.status for answer in answers} == {200}
    return {"req/s": count / seconds} | {name: (cpu_us(pid) - before[name]) / count for name, pid in pids.items()}


def of_pointsman(folder: Path, count: int) -> dict[str, float]:
    """Measure Pointsman: one worker, no shadow, everything else on."""
    gateway = RunningGateway(folder, "--examples", "--workers", "1")
    try:
        gateway.cli("routes", "unshadow", "digits", "3")
        pids = {"worker": gateway.child_pid("app worker 0"), "control": gateway.child_pid("app control")}
        return measure(gateway.data_url, pids, count)
    finally:
        gateway.close()


def of_bare_server(count: int) -> dict[str, float]:
    """Measure Starlette + orjson + ONNX Runtime around the same model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "loadtests.bare_server", str(digits_folder() / "1" / "model.onnx"), str(port)]
    server = subprocess.Popen(command)
    try:
        wait_until(lambda: _answers(port), "the bare server answers")
        return measure(f"http://127.0.0.1:{port}", {"worker": server.pid}, count)
    finally:
        server.terminate()
        server.wait(10)


def _answers(port: int) -> bool:
    try:
        return httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 404
    except httpx2.TransportError:
        return False


def delays(folder: Path) -> dict[str, list[float]]:
    """Return, in ms: reply → record found (one look-up each), and change of weights → in force in both workers."""
    gateway = RunningGateway(folder, "--examples", "--workers", "2")
    found, changed = [], []
    try:
        for number in range(200):
            (answer,) = send_all(gateway.data_url, [post("/v2/models/digits/infer", _BODIES[0])], 1)
            started = time.perf_counter()
            (look_up,) = send_all(
                gateway.admin_url, [get(f"/admin/v1/audit/requests/{answer.headers['x-record-id']}")], 1
            )
            found.append((time.perf_counter() - started) * 1000)
            assert look_up.status == 200, number
        url = f"{gateway.admin_url}/admin/v1/routes/digits"
        for number in range(50):
            present = gateway.http.get(url)
            route = {"model": "digits", "split": {"1": 5000 + number, "2": 5000 - number, "3": 0}}
            started = time.perf_counter()
            put = gateway.http.put(url, json=route, headers={"if-match": present.headers["etag"]})
            changed.append((time.perf_counter() - started) * 1000)
            assert put.status_code == 200, put.text
    finally:
        gateway.close()
    return {"reply → record found": found, "weights changed → in force in every worker": changed}


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    console = Console()
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as name:
        for run in range(options.runs):
            ours.append(of_pointsman(Path(name) / str(run), options.requests))
            bare.append(of_bare_server(options.requests))
        waits = delays(Path(name) / "delays")
    table = Table(title=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for column in ("median of runs", "req/s", "worker µs/request", "control µs/request"):
        table.add_column(column)
    for label, runs in (("Pointsman, everything on", ours), ("Starlette + ONNX Runtime, nothing else", bare)):
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        table.add_row(label, f"{middle['req/s']:.0f}", f"{middle['worker']:.0f}", f"{middle.get('control', 0):.0f}")
    ratios = [
        (one["worker"], one["worker"] + one["control"], other["worker"]) for one, other in zip(ours, bare, strict=True)
    ]
    console.print(table)
    console.print(f"CPU of the worker ÷ bare server, pair by pair: {_spread([w / b for w, _, b in ratios])}")
    console.print(f"CPU of worker and control process ÷ bare server: {_spread([t / b for _, t, b in ratios])}")
    for label, values in waits.items():
        ordered = sorted(values)
        p99 = ordered[int(len(ordered) * 0.99)]
        console.print(f"{label}: p50 {statistics.median(ordered):.1f} ms, p99 {p99:.1f} ms, max {ordered[-1]:.1f} ms")


def _spread(values: list[float]) -> str:
    return f"median {statistics.median(values):.2f} (min {min(values):.2f}, max {max(values):.2f})"


if __name__ == "__main__":
    main()
