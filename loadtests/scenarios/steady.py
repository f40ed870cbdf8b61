"""An ordinary day: steady traffic, half of it forwarded and half in process, and everything about it is right.

    .venv-load/bin/python -m loadtests.scenarios.steady [--seconds 60]

Pass marks: no failed request; p99 ≤ 50 ms; each model's share within 4 σ of what its route says; as many requests
counted by the metrics as callers sent; the worker is the one that was started.
"""

import math

from gateway.examples import digits_folder
from loadtests.bench.moody import Moody
from loadtests.bench.pointsman import LOOK_UPS, Pointsman, forwarded, from_folder
from loadtests.bench.scene import Scene, perform
from loadtests.peers.loads import digits_load
from loadtests.scenarios.stage import Caller, Seen, listening, mark_no_failure, percentile, play, sleep

SPLIT = {"1": 9000, "2": 1000}
RATE, CALLERS = 200, 20
P99_MS = 50


class Forwarded(Caller):
    """Calls the model that runs on a backend."""

    prefix = "forwarded"


class InProcess(Caller):
    """Calls the digits model."""

    model, prefix = "digits", "digits"
    load = digits_load()

    def body(self, key: str) -> bytes:
        """Return one of the digits."""
        return self.load.asks[int(key.rpartition("-")[2]) % len(self.load.asks)].body


def scene(scene: Scene) -> None:
    """Play it."""
    with (
        Moody("echo", scene.folder, scene.cores[1]) as backend,
        Pointsman(scene.folder / "gateway", cores=[scene.cores[0]]) as gateway,
    ):
        backend.wait_until(listening(backend.url), "it listens", 20)
        digits = [from_folder(digits_folder() / version) for version in SPLIT]
        fraud = [forwarded("fraud", version, [backend.url]) for version in SPLIT]
        routes = [{"model": model, "split": SPLIT} for model in ("digits", "fraud")]
        gateway.change([*digits, *fraud, *routes])
        worker = gateway.workers()[0].pid
        seen = play(
            [Forwarded, InProcess], gateway.data_url, callers=CALLERS, rate=RATE, during=lambda: sleep(scene.seconds)
        )
        gateway.settle(InProcess.load.asks[0])
        mark_no_failure(scene, seen)
        p99 = percentile(seen, 0.99)
        scene.mark(p99 <= P99_MS, f"p99 {p99:.1f} ms (at most {P99_MS}); p50 {percentile(seen, 0.5):.1f} ms")
        for kind in (Forwarded.prefix, InProcess.prefix):
            _share(scene, kind, [one for one in seen if one.key.startswith(kind)])
        _counted(scene, gateway, len(seen) + LOOK_UPS)
        scene.mark(gateway.workers()[0].pid == worker, "the worker is the one that was started")


def _share(scene: Scene, what: str, seen: list[Seen]) -> None:
    asked, count = SPLIT["1"] / 10_000, len(seen)
    got = sum(one.version == "1" for one in seen) / max(1, count)
    sigma = math.sqrt(asked * (1 - asked) / max(1, count))
    words = f"version 1 served {got:.3f} of {count} {what} requests ({asked} asked, within {4 * sigma:.3f})"
    scene.mark(count > 0 and abs(got - asked) <= 4 * sigma, words)


def _counted(scene: Scene, gateway: Pointsman, sent: int) -> None:
    counted = sum(value for name, value in gateway.metrics().items() if name.startswith("pointsman_requests_total{"))
    scene.mark(counted == sent, f"{counted:.0f} requests counted by the metrics, {sent} sent")


if __name__ == "__main__":
    perform(__doc__, scene, 60)
