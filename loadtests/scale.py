"""10 000 models of 5 versions each in the rules, beside one model: what a change, a start and a decision cost.

    .venv/bin/python -m loadtests.scale [--models 10000] [--changes 200]

Fills a rules store of its own through `RulesStore.apply`, starts a gateway of two workers on it, and prints: seconds
from start to ready, memory of a worker, and how long each of `--changes` changes of one model takes until it is in
force everywhere, then the same with one model. `resolve` is timed in this process on the same rules. Pass marks,
checked here: changes within 1.5× of those with one model (p50), `resolve` ≤ 10 µs, a start ≤ 5 s.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from gateway.catalog import encode_manifest, parse_manifest
from gateway.ports import ChangeSet, Write
from gateway.stores.rules_redis import RedisRules
from routing import Facts, encode_document, parse_route, resolve, unit_digest
from tests.e2e.own_redis import OwnRedis, settings_file
from tests.e2e.running_gateway import RunningGateway, manifest

VERSIONS = ("1", "2", "3", "4", "5")
_MODELS_AT_ONCE = 500


class Figures(msgspec.Struct):
    """What was measured with one number of models."""

    models: int
    start_s: float
    rss_mb: float
    change_ms: list[float]
    resolve_us: float

    def __str__(self) -> str:
        took = sorted(self.change_ms)
        return (
            f"{self.models:>6} models: start {self.start_s:.2f} s, worker {self.rss_mb:.0f} MB, "
            f"change in force everywhere p50 {statistics.median(took):.1f} ms, "
            f"p99 {took[int(len(took) * 0.99)]:.1f} ms, resolve {self.resolve_us:.1f} µs"
        )


def _route(model: str, timeout_ms: int = 30_000) -> dict[str, Any]:
    split = dict(zip(VERSIONS, (6000, 2500, 1000, 400, 100), strict=True))
    return {"model": model, "split": split, "timeout_ms": timeout_ms}


async def _fill(url: str, models: int) -> None:
    store = RedisRules(url)
    await store.initialise()
    for first in range(0, models, _MODELS_AT_ONCE):
        writes: list[Write] = []
        for model in (f"model-{n:05d}" for n in range(first, min(models, first + _MODELS_AT_ONCE))):
            for version in VERSIONS:
                backend = {"http": {"urls": ["http://127.0.0.1:9/"], "model": model, "version": version}}
                document = encode_manifest(parse_manifest(json.dumps(manifest(model, version, backend)).encode()))
                writes.append(Write("version", f"{model}/{version}", document, 0))
            writes.append(Write("route", model, encode_document(parse_route(_route(model))), 0))
        await store.apply(ChangeSet(f"fill-{first}", "loadtests", "", time.time_ns(), tuple(writes)))
    await store.close()


def measure(folder: Path, models: int, changes: int) -> Figures:
    """Fill a store with so many models, start a gateway on it and change one of them."""
    redis = OwnRedis(folder / "redis")
    asyncio.run(_fill(redis.url, models))
    config = settings_file(folder, redis.url)
    started = time.perf_counter()
    gateway = RunningGateway(folder / "gateway", "--config", str(config))
    took = time.perf_counter() - started
    try:
        url = f"{gateway.admin_url}/admin/v1/routes/model-00000"
        tag = gateway.http.get(url).headers["etag"]
        seconds: list[float] = []
        for number in range(changes):
            began = time.perf_counter()
            answer = gateway.http.put(url, json=_route("model-00000", 20_000 + number), headers={"if-match": tag})
            seconds.append(1000 * (time.perf_counter() - began))
            assert answer.status_code == 200, answer.text
            tag = answer.headers["etag"]
        status = Path(f"/proc/{gateway.child_pid('app worker 0')}/status").read_text()
        rss = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    finally:
        gateway.close()
        redis.stop()
    return Figures(models, took, rss / 1024, seconds, _resolve_us(models))


def _resolve_us(models: int) -> float:
    routes = {f"model-{n:05d}": parse_route(_route(f"model-{n:05d}")) for n in range(models)}
    names = list(routes)
    facts = [Facts(unit_digest(f"key-{n}"), "", 0) for n in range(20_000)]
    began = time.perf_counter()
    for number, fact in enumerate(facts):
        resolve(routes[names[number * 7919 % models]], {}, fact)
    return (time.perf_counter() - began) / len(facts) * 1e6


def main() -> None:
    """Measure one model and many, and exit with 1 when a pass mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        one = measure(Path(name) / "one", 1, options.changes)
        print(one, flush=True)
        many = measure(Path(name) / "many", options.models, options.changes)
        print(many)
    ratio = statistics.median(many.change_ms) / statistics.median(one.change_ms)
    print(f"a change with {options.models} models ÷ with one: {ratio:.2f}")
    sys.exit(0 if ratio <= 1.5 and many.resolve_us <= 10 and many.start_s <= 5 else 1)


if __name__ == "__main__":
    main()
