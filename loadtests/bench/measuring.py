"""One measurement: right answers before and after, and between them the cost of the requests that were answered.

Belongs here: the order of steps that makes a figure count. Never here: which programs, how often, or a verdict.
"""

import time
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from loadtests.bench.asking import Load, WrongAnswer, check_answers
from loadtests.bench.proctree import core_busy_us
from loadtests.bench.wrk import run_wrk, write_requests

CONNECTIONS = 32


class CpuTimes(Protocol):
    """CPU time so far in µs; `workers` is None where there are no data workers to tell apart."""

    @property
    def whole(self) -> float:
        """Of the whole process tree."""
        ...

    @property
    def workers(self) -> float | None:
        """Of the data workers."""
        ...


class Answering(Protocol):
    """What can be measured."""

    url: str
    load: Load

    def cpu(self) -> CpuTimes:
        """Return the CPU time taken so far."""
        ...

    def settle(self) -> None:
        """Wait until no work of past requests is left."""
        ...


class Figures(Struct, frozen=True):
    """What one measurement found. CPU is in µs per request; `foreign` is the share of the served core that other
    programs took, `load_busy` the share of the load's core that was in use.
    """

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    workers_us: float | None
    foreign: float
    load_busy: float


def measure(
    served: Answering,
    folder: Path,
    *,
    cores: tuple[int, int],
    seconds: float,
    warm_seconds: float,
    connections: int = CONNECTIONS,
) -> Figures:
    """Load a program from `cores[1]` and return what each request cost on `cores[0]`.

    Raises:
        WrongAnswer: an answer was wrong, before or after, or one under load failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    requests = write_requests(folder / "requests", [one.wire() for one in served.load.asks])
    check_answers(served.url, served.load)
    run_wrk(served.url, requests, cores=[cores[1]], seconds=warm_seconds, connections=connections)
    served.settle()
    before, busy, began = served.cpu(), [core_busy_us(core) for core in cores], time.monotonic()
    spoken = run_wrk(served.url, requests, cores=[cores[1]], seconds=seconds, connections=connections)
    busy = [core_busy_us(core) - past for core, past in zip(cores, busy, strict=True)]
    passed = (time.monotonic() - began) * 1e6
    taken = served.cpu()
    foreign = max(0.0, busy[0] - (taken.whole - before.whole)) / passed
    served.settle()
    after = served.cpu()
    if spoken.failed or not spoken.requests:
        raise WrongAnswer(f"under load: {spoken.failed} of {spoken.requests} requests failed ({spoken})")
    check_answers(served.url, served.load)
    alone = None if after.workers is None or before.workers is None else after.workers - before.workers
    return Figures(
        requests=spoken.requests,
        per_second=spoken.per_second,
        p50_ms=spoken.p50_us / 1000,
        p99_ms=spoken.p99_us / 1000,
        cpu_us=(after.whole - before.whole) / spoken.requests,
        workers_us=None if alone is None else alone / spoken.requests,
        foreign=foreign,
        load_busy=busy[1] / passed,
    )
