"""Three backends of one version that come and go: one after the other is killed and comes back, then one answers 503.

    .venv-load/bin/python -m loadtests.scenarios.backend_flaps [--seconds 60]

A request that a backend has begun to work on when it dies may fail; a gateway may need 5 failures to see that a
backend is bad. Pass marks, from that: for each kill, and for the backend that turns bad, no more failures than there
are callers (each has one request at most) plus 5, and none that was sent more than a second after it; in calm, none;
every answer is the one of its request.
"""

import time
from contextlib import ExitStack

from loadtests.bench.moody import Moody, answer_to
from loadtests.bench.pointsman import Pointsman, forwarded
from loadtests.bench.scene import Scene, perform
from loadtests.scenarios.stage import Caller, Seen, failures, listening, percentile, play, sleep

BACKENDS = 3
RATE, CALLERS = 200, 20
NOTICED = 5  # failures in a row after which a backend is known to be bad
GRACE_SECONDS = 1.0
_CYCLES = 6


class Checking(Caller):
    """Calls with an id that must come back in the answer."""

    def complaint(self, key: str, content: bytes) -> str:
        """Return what is wrong with the body."""
        return "" if content == answer_to(key) else f"the answer of another request: {content[:200]!r}"


class _Flaps:
    """Kills and brings back, and keeps when."""

    def __init__(self, backends: list[Moody], seconds: float) -> None:
        self.backends, self._pause = backends, seconds / (_CYCLES + 1) / 2
        self.troubles: list[tuple[str, float, float]] = []

    def run(self) -> None:
        sleep(self._pause)
        for number in range(_CYCLES):
            self._replaced(number % BACKENDS, "killed", None)
        self._replaced(0, "answering 503", "fails")

    def _replaced(self, index: int, what: str, kind: str | None) -> None:
        """Have a backend gone, or another kind in its place, for a while."""
        backend = self.backends[index]
        began = time.monotonic()
        backend.kill()
        if kind is not None:
            self.backends[index] = self._started(Moody(kind, backend.folder, backend.core, backend.port))
            began = time.monotonic()
        sleep(self._pause)
        if kind is not None:
            self.backends[index].kill()
        self.backends[index] = self._started(Moody("echo", backend.folder, backend.core, backend.port))
        self.troubles.append((what, began, time.monotonic()))
        sleep(self._pause)

    def end(self) -> None:
        """End every backend that is there."""
        for backend in self.backends:
            backend.stop()

    @staticmethod
    def _started(backend: Moody) -> Moody:
        backend.wait_until(listening(backend.url), "it listens", 20)
        return backend


def scene(scene: Scene) -> None:
    """Play it."""
    with ExitStack() as stack:
        flaps = _Flaps([Moody("echo", scene.folder, scene.cores[1]) for _ in range(BACKENDS)], scene.seconds)
        stack.callback(flaps.end)
        for backend in flaps.backends:
            backend.wait_until(listening(backend.url), "it listens", 20)
        gateway = stack.enter_context(Pointsman(scene.folder / "gateway", cores=[scene.cores[0]]))
        version = forwarded("fraud", "1", [backend.url for backend in flaps.backends])
        gateway.change([version, {"model": "fraud", "split": {"1": 10_000}, "timeout_ms": 2_000}])
        seen = play([Checking], gateway.data_url, callers=CALLERS, rate=RATE, during=flaps.run)
    scene.note(f"{len(seen)} requests, p50 {percentile(seen, 0.5):.1f} ms, p99 {percentile(seen, 0.99):.1f} ms")
    for what, began, ended in flaps.troubles:
        _judge(scene, what, [one for one in seen if began - GRACE_SECONDS <= one.at < ended], began)
    troubled = [(began - GRACE_SECONDS, ended) for _, began, ended in flaps.troubles]
    calm = [one for one in seen if not any(began <= one.at < ended for began, ended in troubled)]
    scene.mark(
        bool(calm) and not failures(calm), f"{len(failures(calm))} of {len(calm)} requests failed in calm (0 may)"
    )
    crossed = [one for one in seen if one.status == 200 and one.why]
    scene.mark(not crossed, f"{len(crossed)} answers of another request")


def _judge(scene: Scene, what: str, seen: list[Seen], began: float) -> None:
    failed = failures(seen)
    late = [one for one in failed if one.at > began + GRACE_SECONDS]
    words = f"a backend {what}: {len(failed)} of {len(seen)} requests failed (at most {CALLERS + NOTICED}), "
    scene.mark(len(failed) <= CALLERS + NOTICED and not late, words + f"{len(late)} sent more than 1 s later (0 may)")


if __name__ == "__main__":
    perform(__doc__, scene, 60)
