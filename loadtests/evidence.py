"""Evidence at size: how many records a second are decided again, and exported.

    .venv/bin/python -m loadtests.evidence [--records 500000] [--models 50]

Fills a store in a temporary folder with records of keyed callers, each decided by the route of its model (a split of
five, and a pin), with bodies of 0.5 kB. Then it starts the very processes that the admin port starts, and takes the
time from their start to their end; beside it the processor time, which what else runs on the machine changes less.
Pass mark, checked here: 50 000 records/s recomputed.
"""

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from gateway.admin.job_runner import JobRunner
from gateway.config import dump_settings, load_settings
from gateway.evidence.asked import Asked, ExportAsked, RecomputeAsked
from gateway.ports import DocumentChange, Revision
from gateway.record import Attempt, Record
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.revisions_sqlite import SqliteRevisions
from routing import Cohort, Facts, Route, parse_cohort, parse_route, resolve, unit_digest
from tests.records import ChainedJournal, batch, new_record

LEAST_PER_SECOND = 50_000
_BATCH = 1_000
_BODY = b'{"inputs":[{"name":"x","shape":[1,200],"datatype":"FP32","data":[%s]}]}' % b",".join([b"0"] * 200)
_COHORT = {"name": "beta", "keys": [f"caller-{number}" for number in range(50)]}


def _route(model: str) -> dict[str, object]:
    split = {str(version): 2_000 for version in range(1, 6)}
    return {"model": model, "split": split, "pins": [{"cohort": "beta", "version": "2"}]}


def _archive(folder: Path, models: list[str]) -> None:
    documents = [("cohort", "beta", _COHORT), *(("route", model, _route(model)) for model in models)]
    changes = tuple(DocumentChange(kind, name, None, json.dumps(text).encode()) for kind, name, text in documents)  # type: ignore[arg-type]
    archive = SqliteRevisions(folder / "revisions.db")
    archive.keep("e", [Revision(1, "loadtest", "", "op-1", 1, changes)])
    archive.close()


def _records(count: int, models: list[str]) -> Iterator[Record]:
    cohorts: dict[str, Cohort] = {"beta": parse_cohort(_COHORT)}
    routes: list[Route] = [parse_route(_route(model)) for model in models]
    for number in range(count):
        route = routes[number % len(routes)]
        unit = unit_digest(f"caller-{number % 100_000}")
        decision = resolve(route, cohorts, Facts(unit, "", 0))
        yield new_record(
            number,
            model=route.model,
            unit=unit.hex(),
            intended=decision.version,
            served=decision.version,
            reason=decision.reason,
            rule=decision.rule,
            cohort=decision.cohort,
            revision=1,
            cohort_revision=1,
            rules_revision=1,
            digest="cd" * 32,
            trace_id="ab" * 16,
            attempts=(Attempt(decision.version, "onnx", 600, 200),),
        )


def _fill(folder: Path, count: int, models: list[str]) -> None:
    store, chain, waiting = SqliteAudit(folder / "audit"), ChainedJournal(), []
    for record in _records(count, models):
        waiting.append(chain.frame(record, request=_BODY))
        if len(waiting) == _BATCH:
            store.write(batch(waiting))
            waiting = []
    store.write(batch(waiting))
    store.close()


async def _timed(runner: JobRunner, name: str, asked: Asked) -> tuple[float, float, bytes]:
    """Return the seconds a job took, the seconds of processor it had, and its last line."""
    started, used = time.perf_counter(), _processor_seconds()
    job = await runner.start(name, asked)
    last = b""
    async for chunk in job.chunks():
        last = (last + chunk)[-4096:]
    return time.perf_counter() - started, _processor_seconds() - used, last.rstrip(b"\n").rpartition(b"\n")[2]


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _said(name: str, count: int, seconds: float, used: float) -> str:
    rate, share = count / seconds, used / count * 1e6
    return f"{name}: {count} records in {seconds:.1f} s, {rate:,.0f}/s; {share:.1f} µs of processor each"


def _resolve_alone(models: list[str]) -> float:
    """Return the µs of processor that one decision takes here and now, by itself: the least there is to recompute."""
    route, cohorts = parse_route(_route(models[0])), {"beta": parse_cohort(_COHORT)}
    facts = [Facts(unit_digest(f"caller-{number}"), "", 0) for number in range(20_000)]
    started = time.process_time()
    for one in facts:
        resolve(route, cohorts, one)
    return (time.process_time() - started) / len(facts) * 1e6


async def _measure(folder: Path, count: int) -> bool:
    # No rules store is asked: the archive has everything.
    settings = load_settings({"data_dir": folder, "redis_url": "unix:///nowhere", "gateway": "gw-a"})
    runner = JobRunner((sys.executable, "-m", "gateway.jobs"), dump_settings(settings))
    seconds, used, last = await _timed(runner, "recompute", RecomputeAsked())
    result = json.loads(last)["result"]
    assert (result["checked"], result["differ"]) == (count, 0), result
    per_second = count / seconds
    print(f"{_said('recompute', count, seconds, used)} (pass mark {LEAST_PER_SECOND:,}/s)")
    seconds, used, last = await _timed(runner, "export", ExportAsked())
    assert json.loads(last) == {"end": {"records": count}}, last
    print(_said("export", count, seconds, used))
    await runner.close()
    return per_second >= LEAST_PER_SECOND


def main() -> None:
    """Fill a store, run the jobs, print the figures; exit 1 below the pass mark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=500_000)
    parser.add_argument("--models", type=int, default=50)
    arguments = parser.parse_args()
    models = [f"model-{number}" for number in range(arguments.models)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _archive(folder, models)
        _fill(folder, arguments.records, models)
        print(f"a decision alone: {_resolve_alone(models):.1f} µs of processor")
        if not asyncio.run(_measure(folder, arguments.records)):
            sys.exit("below the pass mark")


if __name__ == "__main__":
    main()
