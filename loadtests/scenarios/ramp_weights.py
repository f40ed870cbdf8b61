"""A rollout under load: the weights of a model move in ten steps from version 1 to version 2.

    .venv-load/bin/python -m loadtests.scenarios.ramp_weights [--seconds 60]

Pass marks: no failed request; every change in force in every worker within 250 ms; no answer by a version that has no
weight in the revision which the answer itself names; no caller that goes back from version 2 to version 1; every caller
on version 2 after the last step.
"""

import time

from loadtests.bench.moody import Moody
from loadtests.bench.pointsman import Pointsman, forwarded
from loadtests.bench.scene import Scene, perform
from loadtests.scenarios.stage import Caller, Seen, listening, mark_no_failure, percentile, play, sleep

STEPS = 10
RATE, CALLERS = 200, 20
KEYS = 500
IN_FORCE_MS = 250


class Sticky(Caller):
    """Calls as one of a few hundred callers that come again and again."""

    def key(self) -> str:
        """Return a caller who has called before, from the second round on."""
        return f"caller-{int(super().key().rpartition('-')[2]) % KEYS}"


class _Ramp:
    """Makes the changes and keeps what each revision allows, and how long it took to be in force."""

    def __init__(self, gateway: Pointsman, seconds: float) -> None:
        self._gateway, self._seconds = gateway, seconds
        self.allowed: dict[int, set[str]] = {}
        self.took_ms: list[float] = []
        self.refused: list[str] = []

    def run(self) -> None:
        for step in range(1, STEPS + 1):
            share = step * 10_000 // STEPS
            began = time.monotonic()
            answer = self._gateway.put_route({"model": "fraud", "split": {"1": 10_000 - share, "2": share}})
            self.took_ms.append((time.monotonic() - began) * 1000)
            if answer.status_code != 200:
                self.refused.append(f"{answer.status_code} {answer.text[:200]}")
            served = {version for version, weight in (("1", 10_000 - share), ("2", share)) if weight}
            self.allowed[int(answer.headers.get("etag", '"0"').strip('"'))] = served
            self.last = time.monotonic()
            sleep(self._seconds / STEPS)


def scene(scene: Scene) -> None:
    """Play it."""
    with (
        Moody("echo", scene.folder, scene.cores[1]) as backend,
        Pointsman(scene.folder / "gateway", cores=[scene.cores[0]]) as gateway,
    ):
        backend.wait_until(listening(backend.url), "it listens", 20)
        versions = [forwarded("fraud", version, [backend.url]) for version in ("1", "2")]
        gateway.change([*versions, {"model": "fraud", "split": {"1": 10_000, "2": 0}}])
        ramp = _Ramp(gateway, scene.seconds)
        seen = play([Sticky], gateway.data_url, callers=CALLERS, rate=RATE, during=ramp.run)
    mark_no_failure(scene, seen)
    scene.note(f"p50 {percentile(seen, 0.5):.1f} ms, p99 {percentile(seen, 0.99):.1f} ms")
    words = f"{len(ramp.took_ms)} changes, in force everywhere after at most {max(ramp.took_ms):.0f} ms"
    scene.mark(max(ramp.took_ms) <= IN_FORCE_MS and not ramp.refused, f"{words} ({IN_FORCE_MS}) {ramp.refused or ''}")
    known = [one for one in seen if one.revision in ramp.allowed]
    illegal = [one for one in known if one.version not in ramp.allowed[one.revision]]
    scene.mark(bool(known) and not illegal, f"{len(illegal)} of {len(known)} answers illegal under their own revision")
    back = _gone_back(seen)
    scene.mark(not back, f"{len(back)} callers went back to version 1")
    after = [one for one in seen if one.at > ramp.last]
    left = [one for one in after if one.version != "2"]
    scene.mark(bool(after) and not left, f"{len(left)} of {len(after)} requests after the last step not on version 2")


def _gone_back(seen: list[Seen]) -> set[str]:
    moved: set[str] = set()
    back: set[str] = set()
    for one in sorted(seen, key=lambda one: (one.revision, one.at)):
        if one.version == "2":
            moved.add(one.key)
        elif one.version == "1" and one.key in moved:
            back.add(one.key)
    return back


if __name__ == "__main__":
    perform(__doc__, scene, 60)
