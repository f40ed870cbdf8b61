"""The promise about added time: a request through the gateway beside the same request straight to its backend.

Belongs here: pairs of runs at a constant rate. Never here: CPU time.
"""

import statistics

from loadtests.bench.asking import check_answers
from loadtests.bench.paced import Paced, run_paced
from loadtests.bench.pointsman import Pointsman, forwarded
from loadtests.checks.verdict import Stage, Verdict, spaced
from loadtests.peers.gateways import SPLIT
from loadtests.peers.loads import forward_load

RATE = 1_000
_BOUNDS_MS = {"p50": (0.50, 0.3), "p99": (0.99, 1.5)}


def added_latency(stage: Stage) -> list[Verdict]:
    """Send 1 000 requests/s to the backend and through the gateway, in turn."""
    load = forward_load()
    wire = [one.wire() for one in load.asks]
    pairs: list[tuple[Paced, Paced]] = []
    with Pointsman(stage.folder / "latency", cores=[stage.cores[0]]) as gateway:
        versions = [forwarded("fraud", version, [stage.backend_url]) for version in SPLIT]
        gateway.change([*versions, {"model": "fraud", "split": SPLIT}])
        check_answers(gateway.data_url, load)
        for number in range(stage.runs + 1):
            direct = run_paced(stage.backend_url, wire, rate=RATE, seconds=stage.seconds)
            through = run_paced(gateway.data_url, wire, rate=RATE, seconds=stage.seconds)
            if number:  # the first pair is the warm-up
                pairs.append((direct, through))
    failed = sum(one.failed for pair in pairs for one in pair)
    verdicts = []
    for name, (share, bound) in _BOUNDS_MS.items():
        direct_ms = statistics.median(direct.percentile(share) for direct, _ in pairs)
        added = [through.percentile(share) - direct.percentile(share) for direct, through in pairs]
        middle = statistics.median(added)
        words = f"median {middle:.2f} ms of {len(added)} pairs ({min(added):.2f} to {max(added):.2f}; "
        words += f"directly {direct_ms:.2f} ms)"
        if failed:
            words += f"; {failed} requests failed"
        promise = f"forward, time added at {spaced(RATE)} requests/s, {name} ≤ {bound} ms"
        verdicts.append(Verdict(promise, words, middle <= bound and not failed))
    return verdicts
