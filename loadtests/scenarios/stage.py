"""What every scenario stands on: callers made with locust, and what they saw.

Belongs here: calling and keeping what came. Never here: a trouble, or a bound.
"""

import gc
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence

import gevent
from locust import FastHttpUser, task
from locust.env import Environment
from msgspec import Struct

from loadtests.bench.scene import Scene

logging.getLogger("locust.runners").setLevel(logging.ERROR)  # it warns of callers who come all at once, as wanted here
_MAKING_S = 0.002  # for one caller
_LAST_SECONDS = 30.0  # what requests in flight have to end when the others have


class Seen(Struct):
    """One request as its caller saw it: `at` when it was sent (monotonic s), `ms` until its answer (status 0: none)."""

    at: float
    ms: float
    status: int
    key: str
    version: str = ""
    revision: int = 0
    why: str = ""
    retry_after: str = ""


class Caller(FastHttpUser):  # type: ignore[misc] # locust is not installed where types are checked
    """Sends one model's requests, one after another; what it sends is for scenarios to choose."""

    abstract = True
    model = "fraud"
    prefix = "caller"
    rate = 10.0
    network_timeout = connection_timeout = 30.0
    max_retries = 0
    seen: list[Seen]
    sent = 0
    begins = 0.0

    def on_start(self) -> None:
        """Begin at a random moment of the first interval, so that callers do not march in step."""
        now = time.monotonic()
        self._due = max(now, self.begins) + random.random() / self.rate
        gevent.sleep(self._due - now)

    def wait_time(self) -> float:
        """Return the seconds until the next request is due; one that is late is sent at once, none is sent twice."""
        self._due = max(self._due + 1 / self.rate, time.monotonic() - 1.0)
        return max(0.0, self._due - time.monotonic())

    def key(self) -> str:
        """Return the routing key of the next request; a new one each time unless a scenario says otherwise."""
        type(self).sent += 1
        return f"{self.prefix}-{type(self).sent}"

    def body(self, key: str) -> bytes:
        """Return the body of the next request."""
        return json.dumps({"id": key, "inputs": []}).encode()

    def complaint(self, key: str, content: bytes) -> str:  # noqa: ARG002 - for scenarios to override
        """Return what is wrong with the body of an answer of status 200."""
        return ""

    @task  # type: ignore[untyped-decorator] # as above
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
        self.seen.append(Seen(at, ms, status, key, version, revision, why, found.get("retry-after", "")))


def play(
    kinds: Sequence[type[Caller]], url: str, *, callers: int, rate: float, during: Callable[[], None]
) -> list[Seen]:
    """Have `callers` call at `rate` a second in all while `during` runs, and return what they saw, in order of sending.

    Callers are spread over `kinds` evenly. They begin once all of them are there: making a thousand holds locust up
    for half a second, and what it would time then is itself.
    """
    seen: list[Seen] = []
    making_s = callers * _MAKING_S
    how = {"seen": seen, "rate": rate / callers, "begins": time.monotonic() + making_s, "abstract": False}
    classes = [type(kind.__name__, (kind,), how) for kind in kinds]
    environment = Environment(user_classes=classes, host=url, stop_timeout=_LAST_SECONDS)
    runner = environment.create_local_runner()
    gc.collect()
    gc.disable()  # it looks at all that was seen, again and again, and callers would count that as waiting
    try:
        runner.start(callers, spawn_rate=callers)
        gevent.sleep(making_s)
        during()
    finally:
        runner.quit()
        gc.enable()
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


def mark_no_failure(scene: Scene, seen: Sequence[Seen], what: str = "requests") -> None:
    """Mark that every request got its answer."""
    failed = failures(seen)
    first = f", the first: {failed[0].status} {failed[0].why[:200]}" if failed else ""
    scene.mark(bool(seen) and not failed, f"{len(seen)} {what}, {len(failed)} failed (0 may){first}")


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
