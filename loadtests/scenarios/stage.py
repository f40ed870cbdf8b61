"""What every scenario stands on: callers made with locust, what they saw, marks and the verdict.

Belongs here: calling and keeping what came. Never here: a trouble, or a bound.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, task
from locust.env import Environment
from msgspec import Struct

from loadtests.bench.programs import ProgramFailed, end_in_order, two_cores
from loadtests.checks.growth import allow_many_files


class Seen(Struct):
    """One request as its caller saw it: `at` when it was sent (monotonic s), `ms` until its answer; status 0 is none."""

    at: float
    ms: float
    status: int
    key: str
    version: str = ""
    revision: int = 0
    why: str = ""


class Caller(FastHttpUser):  # type: ignore[misc] # locust is not installed where types are checked
    """Sends one model's requests, one after another; `model`, `body`, `key` and `rate` are for scenarios to choose."""

    abstract = True
    model = "fraud"
    rate = 10.0
    network_timeout = connection_timeout = 30.0
    max_retries = 0
    seen: list[Seen]
    sent = 0

    def on_start(self) -> None:
        """Begin at a random moment of the interval, so that callers do not march in step."""
        self._due = time.monotonic() + random.random() / self.rate

    def wait_time(self) -> float:
        """Return the seconds until the next request is due; one that is late is sent at once, none is sent twice."""
        self._due = max(self._due + 1 / self.rate, time.monotonic() - 1.0)
        return max(0.0, self._due - time.monotonic())

    def key(self) -> str:
        """Return the routing key of the next request; a new one each time unless a scenario says otherwise."""
        type(self).sent += 1
        return f"caller-{type(self).sent}"

    def body(self, key: str) -> bytes:
        """Return the body of the next request."""
        return json.dumps({"id": key, "inputs": []}).encode()

    def complaint(self, key: str, content: bytes) -> str:  # noqa: ARG002 - for scenarios to override
        """Return what is wrong with the body of an answer of status 200."""
        return ""

    @task
    def call(self) -> None:
        """Send one request and keep what came of it."""
        key = self.key()
        headers = {"content-type": "application/json", "x-routing-key": key}
        at = time.monotonic()
        with self.client.post(
            f"/v2/models/{self.model}/infer", data=self.body(key), headers=headers, name=self.model, catch_response=True
        ) as answer:
            ms = (time.monotonic() - at) * 1000
            status = answer.status_code or 0
            found = answer.headers or {}
            content = answer.content or b""
            why = "" if status == 200 else f"{answer.error or content[:200].decode(errors='replace')}"
            why = why or self.complaint(key, content)
            if why:
                answer.failure(why)
            else:
                answer.success()
        version, revision = found.get("x-model-version", ""), int(found.get("x-route-revision") or 0)
        self.seen.append(Seen(at, ms, status, key, version, revision, why))


def play(
    kinds: Sequence[type[Caller]], url: str, *, callers: int, rate: float, during: Callable[[], None]
) -> list[Seen]:
    """Have `callers` call at `rate` a second in all while `during` runs, and return what they saw, in order of sending.

    Callers are spread over `kinds` evenly.
    """
    seen: list[Seen] = []
    each = rate / callers
    classes = [type(kind.__name__, (kind,), {"seen": seen, "rate": each, "abstract": False}) for kind in kinds]
    environment = Environment(user_classes=classes, host=url, catch_exceptions=True)
    runner = environment.create_local_runner()
    try:
        runner.start(callers, spawn_rate=callers)
        during()
    finally:
        runner.quit()
    return sorted(seen, key=lambda one: one.at)


def sleep(seconds: float) -> None:
    """Let the callers call."""
    gevent.sleep(seconds)


def percentile(seen: Iterable[Seen], share: float) -> float:
    """Return a percentile of the answers' times in ms; 0 when there are none."""
    ordered = sorted(one.ms for one in seen)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def failures(seen: Iterable[Seen]) -> list[Seen]:
    """Return the requests that got no answer of status 200, or a wrong one."""
    return [one for one in seen if one.status != 200 or one.why]


class Scene:
    """One performance: where its files are, its cores, how long, and the marks that it was held against."""

    def __init__(self, folder: Path, cores: tuple[int, int], seconds: float) -> None:
        self.folder, self.cores, self.seconds = folder, cores, seconds
        self._marks: list[tuple[bool, str]] = []

    def mark(self, passed: bool, words: str) -> None:
        """Hold one finding against its bound; `words` name both."""
        self._marks.append((passed, words))
        print(f"{'pass' if passed else 'FAIL'}  {words}", flush=True)

    def no_failure(self, seen: Sequence[Seen], what: str = "requests") -> None:
        """Mark that every request got its answer."""
        failed = failures(seen)
        first = f", the first: {failed[0].status} {failed[0].why[:200]}" if failed else ""
        self.mark(bool(seen) and not failed, f"{len(seen)} {what}, {len(failed)} failed (0 may){first}")

    def note(self, words: str) -> None:
        """Say something that is no mark."""
        print(f"      {words}", flush=True)

    @property
    def passed(self) -> bool:
        """Whether there was a mark and all are met."""
        return bool(self._marks) and all(passed for passed, _ in self._marks)


def perform(what: str | None, scene: Callable[[Scene], None], seconds: float) -> None:
    """Run a scenario from the command line: read its options, play it, print the verdict, exit with 1 if it missed."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=seconds, help="of the whole trouble")
    options = parser.parse_args()
    end_in_order()
    allow_many_files()
    cores = two_cores()
    os.sched_setaffinity(0, {cores[1]})
    with tempfile.TemporaryDirectory(prefix="scenario-") as name:
        performance = Scene(Path(name), cores, options.seconds)
        try:
            scene(performance)
        except ProgramFailed as error:
            performance.mark(False, f"broke off: {error}")
    print("passed" if performance.passed else "MISSED", flush=True)
    sys.exit(0 if performance.passed else 1)


def listening(url: str) -> Callable[[], bool]:
    """Return a condition: something accepts connections at a URL."""

    def condition() -> bool:
        host, _, port = url.removeprefix("http://").partition(":")
        try:
            gevent.socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            return False
        return True

    return condition


Documents = list[dict[str, Any]]
