"""Promises that cost and memory do not grow: with models in the rules, with idle connections, with requests served.

Belongs here: pairs of runs that differ in that one thing. Never here: a comparison with other programs.
"""

import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from gateway.examples import digits_folder
from loadtests.bench.asking import Load, check_answers
from loadtests.bench.measuring import Figures, measure
from loadtests.bench.pointsman import Pointsman, forwarded, from_folder
from loadtests.bench.proctree import resident_bytes
from loadtests.bench.wrk import run_wrk, write_requests
from loadtests.checks.verdict import Stage, Verdict, at_most, spaced
from loadtests.peers.gateways import SPLIT, ServedByPointsman
from loadtests.peers.loads import digits_load, forward_load

MODELS = 10_000
IDLE = 1_000
_MODELS_AT_ONCE = 500
_CHUNK_SECONDS = 15.0
_BASELINE_SHARE = 0.05  # of the requests, after which caches and pools have their size


def many_models(stage: Stage) -> list[Verdict]:
    """Measure requests to one model with one model in the rules and with 10 000."""
    one, many = stage.folder / "one-model", stage.folder / "many-models"
    with Pointsman(one, cores=[stage.cores[0]]) as gateway:
        _fill(gateway, ["fraud"], stage.backend_url)
    with Pointsman(many, cores=[stage.cores[0]]) as gateway:
        _fill(gateway, ["fraud", *(f"model-{number:05d}" for number in range(MODELS - 1))], stage.backend_url)
    pairs, spread = [], []
    for _ in range(stage.runs):
        pairs.append([_measured_again(stage, folder, forward_load()) for folder in (one, many)])
        spread.append(_measured_again(stage, many, _spread_load()))
    wide = [figures.cpu_us / pair[0].cpu_us for figures, pair in zip(spread, pairs, strict=True)]
    note = f"; requests spread over 1 000 of them, not judged: {statistics.median(wide):.3g}×"
    whole = [many.cpu_us / one.cpu_us for one, many in pairs]
    workers = [(many.workers_us or 0) / (one.workers_us or 1) for one, many in pairs]
    what = f"{spaced(MODELS)} models in the rules ÷ one"
    return [at_most(f"CPU of the workers, {what}", workers, 1.05), at_most(f"CPU in all, {what}", whole, 1.05, note)]


def _fill(gateway: Pointsman, models: list[str], backend_url: str) -> None:
    for first in range(0, len(models), _MODELS_AT_ONCE):
        some = models[first : first + _MODELS_AT_ONCE]
        versions = [forwarded(model, version, [backend_url]) for model in some for version in SPLIT]
        gateway.change([*versions, *({"model": model, "split": SPLIT} for model in some)])


def _spread_load() -> Load:
    loads = [forward_load("fraud"), *(forward_load(f"model-{number:05d}") for number in range(0, MODELS - 1, 10))]
    return Load([load.asks[number] for number, load in enumerate(loads[:1000])], loads[0].complaint)


def _measured_again(stage: Stage, folder: Path, load: Load) -> Figures:
    """Start a gateway on the rules that it has, and measure."""
    with Pointsman(folder, cores=[stage.cores[0]]) as gateway:
        return _measured(stage, gateway, load)


def _measured(stage: Stage, gateway: Pointsman, load: Load) -> Figures:
    served = ServedByPointsman(gateway, load)
    served.wait_until_right()
    warm = max(1.0, stage.seconds / 3)
    return measure(served, stage.folder / "load", cores=stage.cores, seconds=stage.seconds, warm_seconds=warm)


def idle_connections(stage: Stage) -> list[Verdict]:
    """Measure the same gateway with and without 1 000 idle connections, in turn."""
    ratios, still = [], IDLE
    with Pointsman(stage.folder / "idle", cores=[stage.cores[0]]) as gateway:
        _fill(gateway, ["fraud"], stage.backend_url)
        for _ in range(stage.runs):
            alone = _measured(stage, gateway, forward_load())
            with _idle(gateway.data_url) as connections:
                beside = _measured(stage, gateway, forward_load())
                still = min(still, sum(_is_open(connection) for connection in connections))
            ratios.append(beside.cpu_us / alone.cpu_us)
    promise = f"CPU in all, with {spaced(IDLE)} idle connections ÷ without"
    if still < IDLE:
        return [Verdict(promise, f"only {still} of them were still open at the end of a run", None)]
    return [at_most(promise, ratios, 1.1)]


@contextmanager
def _idle(url: str) -> Iterator[list[socket.socket]]:
    """Open connections on which one request was answered each, and keep them."""
    parts = urlsplit(url)
    connections: list[socket.socket] = []
    request = b"GET /v2/health/live HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
    try:
        for _ in range(IDLE):
            connection = socket.create_connection((parts.hostname, parts.port), timeout=10)
            connections.append(connection)
            connection.sendall(request)
            received = b""
            while not received.endswith(b"}"):
                received += connection.recv(4096)
        yield connections
    finally:
        for connection in connections:
            connection.close()


def _is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def memory(stage: Stage) -> list[Verdict]:
    """Send 2 M requests, forwarded and in process in turn, and compare the worker's memory at the end and the start."""
    loads = (forward_load(), digits_load())
    sent, baseline, now = 0, 0, 0
    with Pointsman(stage.folder / "memory", cores=[stage.cores[0]]) as gateway:
        _fill(gateway, ["fraud"], stage.backend_url)
        digits = [from_folder(digits_folder() / version) for version in SPLIT]
        gateway.change([*digits, {"model": "digits", "split": SPLIT}])
        both = [one.wire() for pair in zip(*(load.asks for load in loads), strict=True) for one in pair]
        requests = write_requests(stage.folder / "requests", both)
        (worker,) = gateway.workers()
        while sent < stage.requests:
            spoken = run_wrk(gateway.data_url, requests, cores=[stage.cores[1]], seconds=_CHUNK_SECONDS, connections=32)
            if spoken.failed:
                return [Verdict("memory of a worker", f"{spoken.failed} requests failed", False)]
            sent += spoken.requests
            now = resident_bytes(worker.pid)
            if not baseline and sent >= _BASELINE_SHARE * stage.requests:
                baseline = now
        for load in loads:
            check_answers(gateway.data_url, load)
        if gateway.workers()[0].pid != worker.pid:
            return [Verdict("memory of a worker", "the worker was replaced on the way", False)]
    growth = now / baseline - 1
    words = f"{growth:+.1%} over {spaced(sent)} requests ({baseline / 2**20:.0f} → {now / 2**20:.0f} MiB)"
    enough = stage.requests >= 2_000_000
    promise = "memory of a worker, growth over 2 M requests ≤ 2 %"
    return [Verdict(promise, words + ("" if enough else "; too few to judge"), growth <= 0.02 if enough else None)]
