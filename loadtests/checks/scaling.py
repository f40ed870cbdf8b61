"""The promise that two workers carry what two cores can: the same gateway with one worker and with two.

Belongs here: pairs of runs that differ in the number of workers. Never here: the cost of one request.

How it is measured on two cores: the digits model in process (so no backend takes a core) and few connections, 16 for
each worker. Load generator and control process still need some of the two cores, which a second worker therefore cannot
have; their time is read from /proc and taken off what was free to the workers:

    carried = requests/s of two ÷ requests/s of one × 2 ÷ (2 - cores that the others took beside two)

Time in which a worker stands idle counts against it, and with one worker the others have a core of their own.
"""

import os
import resource
import statistics
import time
from pathlib import Path

from msgspec import Struct

from gateway.examples import digits_folder
from loadtests.bench.asking import check_answers
from loadtests.bench.pointsman import Pointsman, from_folder
from loadtests.bench.proctree import core_busy_us, cpu_us
from loadtests.bench.wrk import run_wrk, write_requests
from loadtests.checks.verdict import DISTURBED, Stage, Verdict, at_least
from loadtests.peers.gateways import SPLIT
from loadtests.peers.loads import digits_load

CONNECTIONS_PER_WORKER = 16


class _Carried(Struct, frozen=True):
    """Requests/s, and the cores that our other processes, and other programs, took."""

    per_second: float
    others: float
    foreign: float


def two_workers(stage: Stage) -> list[Verdict]:
    """Load a gateway of one worker and one of two, in turn, on both cores."""
    os.sched_setaffinity(0, stage.cores)
    try:
        pairs = [(_carried(stage, 1, number), _carried(stage, 2, number)) for number in range(stage.runs)]
    finally:
        os.sched_setaffinity(0, {stage.cores[1]})
    raw = [two.per_second / one.per_second for one, two in pairs]
    freed = [ratio * 2 / (2 - two.others) for ratio, (_, two) in zip(raw, pairs, strict=True)]
    others = statistics.median(two.others for _, two in pairs)
    foreign = max(run.foreign for pair in pairs for run in pair)
    more = f"; as seen {statistics.median(raw):.3g}×, load and control process took {others:.2f} of the two cores"
    more += f"; DISTURBED by other programs, {foreign:.2f} cores" if foreign > DISTURBED else ""
    return [at_least("two workers carry, per two cores free to them,", freed, 1.8, more)]


def _carried(stage: Stage, workers: int, number: int) -> _Carried:
    folder: Path = stage.folder / f"workers-{workers}-{number}"
    load = digits_load()
    with Pointsman(folder, cores=stage.cores, workers=workers) as gateway:
        versions = [from_folder(digits_folder() / version) for version in SPLIT]
        gateway.change([*versions, {"model": "digits", "split": SPLIT}])
        check_answers(gateway.data_url, load)
        requests = write_requests(folder / "requests", [one.wire() for one in load.asks])
        connections = CONNECTIONS_PER_WORKER * workers
        for seconds in (max(1.0, stage.seconds / 3), stage.seconds):  # the first is the warm-up
            busy, began = sum(map(core_busy_us, stage.cores)), time.monotonic()
            whole, alone, loads = cpu_us(gateway.program.processes()), cpu_us(gateway.workers()), _children_us()
            spoken = run_wrk(gateway.data_url, requests, cores=stage.cores, seconds=seconds, connections=connections)
            passed = (time.monotonic() - began) * 1e6
            whole, alone = cpu_us(gateway.program.processes()) - whole, cpu_us(gateway.workers()) - alone
            loads = _children_us() - loads
            busy = sum(map(core_busy_us, stage.cores)) - busy
    if spoken.failed:
        raise RuntimeError(f"{spoken.failed} of {spoken.requests} requests failed with {workers} workers")
    return _Carried(spoken.per_second, (whole - alone + loads) / passed, max(0.0, busy - whole - loads) / passed)


def _children_us() -> float:
    """Return the CPU time of all processes that this one has started and seen end, in µs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1e6
