"""The promise about dynamic batching: a model of 5 ms, batched and not, at 64 connections.

Belongs here: pairs of runs that differ in that one thing of the manifest. Never here: the cost of one request.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtests.bench.asking import Answer, Ask, Load
from loadtests.bench.measuring import measure
from loadtests.bench.pointsman import Pointsman, manifest
from loadtests.bench.slow_model import make_slow_model, slow_body, slow_outputs
from loadtests.checks.verdict import Stage, Verdict, at_least
from loadtests.peers.gateways import ServedByPointsman

CONNECTIONS = 64
BATCH: Mapping[str, Any] = {"batching": {"max_batch": 32, "max_wait_ms": 2}}
"""What the manifest's `backend.onnx` says for a batched version."""


def batching(stage: Stage) -> list[Verdict]:
    """Load the model unbatched and batched, in turn."""
    backend = make_slow_model(stage.folder)
    batched = {"onnx": {**backend["onnx"], **BATCH}}
    ratios = []
    for number in range(stage.runs):
        alone, together = (_per_second(stage, number, kind) for kind in (backend, batched))
        ratios.append(together / alone)
    return [at_least(f"a model of 5 ms, {CONNECTIONS} connections, requests/s batched ÷ unbatched", ratios, 3)]


def _per_second(stage: Stage, number: int, backend: Mapping[str, Any]) -> float:
    folder = stage.folder / f"{number}-{'batched' if 'batching' in backend['onnx'] else 'alone'}"
    with Pointsman(folder, cores=[stage.cores[0]]) as gateway:
        gateway.change([manifest("slow", "1", backend), {"model": "slow", "split": {"1": 10_000}}])
        served = ServedByPointsman(gateway, _load(Path(backend["onnx"]["path"])))
        served.wait_until_right()
        warm = max(1.0, stage.seconds / 3)
        figures = measure(
            served, folder, cores=stage.cores, seconds=stage.seconds, warm_seconds=warm, connections=CONNECTIONS
        )
        return figures.per_second


def _load(model: Path) -> Load:
    asks = [Ask("/v2/models/slow/infer", slow_body(number)) for number in range(100)]
    expected = slow_outputs(model, len(asks))

    def complaint(number: int, answer: Answer) -> str:
        (output,) = answer.json()["outputs"]
        right = output["shape"] == [1, 1] and math.isclose(output["data"][0], expected[number], rel_tol=1e-3)
        return "" if right else f"{output} instead of {expected[number]}"

    return Load(asks, complaint)
