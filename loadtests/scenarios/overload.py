"""Three times more than can be served, for a minute: what is served stays as much and as fast, the rest is told so.

    .venv-load/bin/python -m loadtests.scenarios.overload [--seconds 120]

Twice, half of the time each: in front of a backend of fixed capacity (8 requests at once, 20 ms each), and with an ONNX
model of about 5 ms in process. Each time the gateway is first asked little (its unloaded time), then as much as 16
callers without a pause can (its peak), then three times that peak, by so many callers that none waits for another.

The route allows a slowdown of 2 (by default a version has no limit but its bounded queues). Pass marks: goodput ≥ 90 %
of the peak; p99 of what is served ≤ 3 × the unloaded; the rest is refused with 503 and says when to come back
(Retry-After), nothing else; health and admin answer within 100 ms. The load must really have been three times the peak,
or nothing is proved.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from loadtests.bench.moody import Moody
from loadtests.bench.pointsman import Pointsman, forwarded, manifest
from loadtests.bench.probing import Probing
from loadtests.bench.scene import Scene, perform
from loadtests.bench.slow_model import make_slow_model, slow_body
from loadtests.scenarios.stage import Caller, Seen, listening, percentile, play, sleep

FACTOR = 3
SLOWDOWN = 2  # of the route: requests are refused rather than made to wait as long again as they take
GOODPUT, P99_FACTOR, HEALTH_MS = 0.9, 3, 100
PEAK_CALLERS = 16
_LOW_RATE = 20
_NO_PAUSE = 100_000.0


class ToBackend(Caller):
    """Calls the model behind a backend."""


class InProcess(Caller):
    """Calls the slow model."""

    model = "slow"

    def body(self, key: str) -> bytes:
        """Return a request of it."""
        return slow_body(int(key.rpartition("-")[2]))


def scene(scene: Scene) -> None:
    """Play it."""
    with Moody("slots", scene.folder, scene.cores[1]) as backend:
        backend.wait_until(listening(backend.url), "it listens", 20)
        scene.note("in front of a backend of fixed capacity:")
        _overload(scene, "backend", ToBackend, forwarded("fraud", "1", [backend.url]))
    scene.note("with a model of about 5 ms in process:")
    _overload(scene, "process", InProcess, manifest("slow", "1", make_slow_model(scene.folder / "model")))


def _overload(scene: Scene, name: str, caller: type[Caller], version: Mapping[str, Any]) -> None:
    seconds = scene.seconds / 2
    with Pointsman(scene.folder / name, cores=[scene.cores[0]]) as gateway:
        route = {"model": caller.model, "split": {"1": 10_000}, "timeout_ms": 2_000, "slowdown": SLOWDOWN}
        gateway.change([version, route])
        calls: Callable[..., list[Seen]] = partial(play, [caller], gateway.data_url)
        calls(callers=4, rate=_LOW_RATE, during=lambda: sleep(2))  # connections are open, the model's pace is known
        low = calls(callers=4, rate=_LOW_RATE, during=lambda: sleep(max(5.0, seconds / 6)))
        peak_seconds = max(3.0, seconds / 10)
        peak = _good(calls(callers=PEAK_CALLERS, rate=_NO_PAUSE, during=lambda: sleep(peak_seconds)), peak_seconds)
        rate = FACTOR * peak
        urls = [
            f"{gateway.data_url}/v2/health/live",
            f"{gateway.data_url}/v2/health/ready",
            f"{gateway.admin_url}/healthz",
        ]
        with Probing(urls, scene.folder / name, scene.cores[1]) as probing:
            seen = calls(callers=max(PEAK_CALLERS, round(rate)), rate=rate, during=lambda: sleep(seconds))
            health = probing.answers()
    _judge(scene, low, peak, seen, seconds)
    slowest = max((ms for _, ms in health), default=0.0)
    good = bool(health) and all(status == 200 for status, _ in health)
    words = f"{len(health)} questions for health, the slowest answer {slowest:.0f} ms (at most {HEALTH_MS})"
    scene.mark(good and slowest <= HEALTH_MS, words)


def _judge(scene: Scene, low: list[Seen], peak: float, seen: list[Seen], seconds: float) -> None:
    served = [one for one in seen if one.status == 200]
    refused = [one for one in seen if one.status == 503]
    offered = len(seen) / seconds
    words = f"{offered:.0f} requests/s came, {FACTOR} × the peak of {peak:.0f} were to come"
    scene.mark(offered >= 0.95 * FACTOR * peak, words)
    goodput = _good(seen, seconds) / peak
    scene.mark(goodput >= GOODPUT, f"goodput {goodput:.2f} of the peak (at least {GOODPUT})")
    calm, loaded = percentile(low, 0.99), percentile(served, 0.99)
    scene.mark(loaded <= P99_FACTOR * calm, f"p99 {loaded:.1f} ms, unloaded {calm:.1f} ms (at most {P99_FACTOR} ×)")
    other = sorted({one.status for one in seen} - {200, 503})
    silent = sum(not one.retry_after for one in refused)
    words = (
        f"{len(refused)} refused with 503 (p50 {percentile(refused, 0.5):.1f} ms), {silent} of them without Retry-After"
    )
    scene.mark(not other and not silent, f"{words} (0 may); other statuses {other} (none may)")


def _good(seen: list[Seen], seconds: float) -> float:
    return sum(one.status == 200 for one in seen) / seconds


if __name__ == "__main__":
    perform(__doc__, scene, 120)
