"""Shadows at their worst: requests are copied to one that hangs, then to one that fails, then to one that sends 1 GiB.

    .venv-load/bin/python -m loadtests.scenarios.shadow_storm [--seconds 180]

For each of the three, stretches with and without the shadow alternate, so that what else happens on the machine happens
to both. Pass marks: no failed request with or without a shadow; p99 with it within 5 % of p99 without it, the median of
the pairs of stretches; no worker above 2 GiB.

The first two get every request, the one that sends 1 GiB one in a hundred: it is its size that is tried, and loopback
has its limits. When a worker passes 2 GiB, the scenario breaks off, before it takes the machine's memory.
"""

import statistics
import time
from functools import partial

from loadtests.bench.moody import Moody
from loadtests.bench.pointsman import Pointsman, forwarded, wait_for
from loadtests.bench.proctree import resident_bytes
from loadtests.bench.programs import ProgramFailed
from loadtests.bench.scene import Scene, perform
from loadtests.scenarios.stage import Caller, Seen, listening, mark_no_failure, percentile, play, sleep

RATE, CALLERS = 200, 20
P99_RATIO = 1.05
MOST_BYTES = 2 * 2**30
SHADOWS = {"hangs": 10_000, "fails": 10_000, "huge": 100}
_STRETCHES = 5  # pairs for each kind of shadow
_SETTLE_SECONDS = 30.0


def scene(scene: Scene) -> None:
    """Play it."""
    backends = {kind: Moody(kind, scene.folder, scene.cores[1]) for kind in ("echo", *SHADOWS)}
    try:
        for backend in backends.values():
            backend.wait_until(listening(backend.url), "it listens", 20)
        with Pointsman(scene.folder / "gateway", cores=[scene.cores[0]]) as gateway:
            versions = [forwarded("fraud", kind, [backend.url]) for kind, backend in backends.items()]
            gateway.change([*versions, _route()])
            for kind, sample in SHADOWS.items():
                _storm(scene, gateway, kind, sample)
    finally:
        for backend in backends.values():
            backend.stop()


def _route(kind: str = "", sample: int = 0) -> dict[str, object]:
    shadows = [{"version": kind, "sample": sample}] if kind else []
    return {"model": "fraud", "split": {"echo": 10_000}, "shadows": shadows}


def _storm(scene: Scene, gateway: Pointsman, kind: str, sample: int) -> None:
    each = scene.seconds / len(SHADOWS) / _STRETCHES / 2
    calm: list[list[Seen]] = []
    stormy: list[list[Seen]] = []
    for number in range(_STRETCHES + 1):
        pair = []
        for route in (_route(), _route(kind, sample)):
            answer = gateway.put_route(route)
            if answer.status_code != 200:
                raise ProgramFailed(f"the route answered {answer.status_code}: {answer.text[:200]}")
            pair.append(
                play([Caller], gateway.data_url, callers=CALLERS, rate=RATE, during=partial(_watch, gateway, each))
            )
        gateway.put_route(_route())
        wait_for(lambda: _shadows_in_flight(gateway) == 0, "the shadows have ended", _SETTLE_SECONDS)
        if number:  # the first pair is the warm-up
            calm.append(pair[0])
            stormy.append(pair[1])
    for what, stretches in ((f"requests beside a shadow that {kind}", stormy), ("requests without it", calm)):
        mark_no_failure(scene, [one for stretch in stretches for one in stretch], what)
    ratios = [percentile(storm, 0.99) / percentile(peace, 0.99) for storm, peace in zip(stormy, calm, strict=True)]
    middle = statistics.median(ratios)
    words = f"p99 with ÷ without {middle:.3f} (at most {P99_RATIO}); pairs {min(ratios):.2f} to {max(ratios):.2f}"
    scene.mark(middle <= P99_RATIO, words)


def _watch(gateway: Pointsman, seconds: float) -> None:
    """Let the callers call for so long, and break off when a worker takes too much memory."""
    (worker,) = gateway.workers()
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        sleep(min(0.25, left))
        if (taken := resident_bytes(worker.pid)) > MOST_BYTES:
            raise ProgramFailed(f"a worker has {taken / 2**30:.1f} GiB of memory (at most {MOST_BYTES / 2**30:.0f})")


def _shadows_in_flight(gateway: Pointsman) -> float:
    return sum(value for name, value in gateway.metrics().items() if name.startswith("pointsman_shadows_in_flight"))


if __name__ == "__main__":
    perform(__doc__, scene, 180)
