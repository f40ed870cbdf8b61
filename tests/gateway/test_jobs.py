"""Jobs as real processes: what they answer, what nobody can see of them, and that each ends when it should."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.admin.job_runner import AT_ONCE, Job, JobRunner
from gateway.config import dump_settings, load_settings
from gateway.errors import AuditUnavailable, DocumentNotFound, InternalError, InvalidInput, Overloaded, Stopping
from gateway.evidence.asked import Asked, ExportAsked, RecomputeAsked, ReplayAsked
from gateway.ports import DocumentChange, Revision
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.revisions_sqlite import SqliteRevisions
from routing import Facts, parse_route, resolve, unit_digest
from tests.conftest import RunningValkey, until
from tests.records import ChainedJournal, batch, control_record, new_record

COMMAND = (sys.executable, "-m", "gateway.jobs")
PASSWORD = "canary-4711"
ROUTE = {"model": "fraud", "split": {"1": 5000, "2": 5000}}
MORE_THAN_A_PIPE = 300
"""Records whose export does not fit into the pipes between a job and a reader who does not read."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with some right records, one wrong one, and the revision that decided."""
    archive = SqliteRevisions(tmp_path / "revisions.db")
    document = json.dumps(ROUTE).encode()
    archive.keep("e", [Revision(1, "ann", "", "op-1", 1, (DocumentChange("route", "fraud", None, document),))])
    archive.close()
    route, chain, frames = parse_route(ROUTE), ChainedJournal(), []
    for number in range(MORE_THAN_A_PIPE):
        unit = unit_digest(f"caller-{number}")
        version = resolve(route, {}, Facts(unit, "", 0)).version
        if number == 17:
            version = "2" if version == "1" else "1"
        told = {"unit": unit.hex(), "intended": version, "served": version, "revision": 1, "attempts": ()}
        frames.append(chain.frame(new_record(number, **told), request=b"x" * 2_000))
    frames.append(chain.frame(control_record(MORE_THAN_A_PIPE, "audit.list")))
    store = SqliteAudit(tmp_path / "audit")
    store.write(batch(frames))
    store.close()
    return tmp_path


@pytest.fixture
def settings(folder: Path, valkey: RunningValkey) -> bytes:
    return dump_settings(load_settings({"data_dir": folder, "redis_url": valkey.url, "gateway": "gw-a"}))


Test = Callable[[JobRunner], Awaitable[None]]


def run(settings: bytes, test: Test, command: tuple[str, ...] = COMMAND) -> None:
    async def bounded() -> None:
        runner = JobRunner(command, settings)
        async with asyncio.timeout(30):
            try:
                await test(runner)
            finally:
                await runner.close()

    asyncio.run(bounded())


async def lines_of(runner: JobRunner, name: str, asked: Asked) -> list[dict[str, Any]]:
    job = await runner.start(name, asked)
    return [json.loads(line) for line in (await read(job)).splitlines()]


async def read(job: Job) -> bytes:
    return b"".join([chunk async for chunk in job.chunks()])


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody has asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# ── what they answer ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_recomputation_tells_how_far_it_is_and_in_the_end_what_differs(settings: bytes) -> None:
    async def test(runner: JobRunner) -> None:
        *told, last = await lines_of(runner, "recompute", RecomputeAsked())
        assert told[0] == {"progress": {"done": 0, "total": MORE_THAN_A_PIPE + 1}}
        assert told[-1] == {"progress": {"done": MORE_THAN_A_PIPE + 1, "total": MORE_THAN_A_PIPE + 1}}
        result = last["result"]
        assert (result["records"], result["checked"], result["differ"]) == (MORE_THAN_A_PIPE, MORE_THAN_A_PIPE, 1)
        assert result["differences"][0]["record_id"] == new_record(17).record_id
        assert result["archive"] == {"agreed": 0, "differences": []}

    run(settings, test)


def test_only_the_stretch_and_model_that_are_asked_for_count(settings: bytes) -> None:
    async def test(runner: JobRunner) -> None:
        since, until_ns = new_record(10).received_ns, new_record(20).received_ns
        last = (await lines_of(runner, "recompute", RecomputeAsked(since_ns=since, until_ns=until_ns)))[-1]
        assert (last["result"]["records"], last["result"]["differ"]) == (10, 1)
        first, *records, end = await lines_of(runner, "export", ExportAsked(since_ns=since, until_ns=until_ns))
        assert (first["export"]["records"], len(records), end) == (10, 10, {"end": {"records": 10}})
        assert (first["export"]["from"], first["export"]["to"]) == (
            records[0]["received"],
            "2026-11-25T12:00:00.020000Z",
        )
        last = (await lines_of(runner, "recompute", RecomputeAsked(model="other")))[-1]
        assert last["result"]["records"] == 0

    run(settings, test)


def test_what_a_job_finds_out_at_once_is_raised_and_not_streamed(settings: bytes) -> None:
    async def test(runner: JobRunner) -> None:
        with pytest.raises(DocumentNotFound, match="no record has that request id"):
            await runner.start("replay", ReplayAsked(any_id="nobody"))
        with pytest.raises(DocumentNotFound, match="no model of the records has a version 9"):
            await runner.start("replay", ReplayAsked(version="9", sample=10))

    run(settings, test)


def test_a_stretch_of_several_models_asks_which_one_is_meant(settings: bytes, folder: Path, valkey: Any) -> None:
    store = SqliteAudit(folder / "audit")
    store.write(batch(ChainedJournal("gw-a/w1.ba9876543210").frames(new_record(1, model="spam"))))
    store.close()
    for model in ("fraud", "spam", "unused"):
        valkey.command("HSET", "{pm}:versions", f"{model}/1", "1 {}")

    async def test(runner: JobRunner) -> None:
        with pytest.raises(InvalidInput, match="fraud, spam have a version 1; name one of them"):
            await runner.start("replay", ReplayAsked(version="1", sample=10))

    run(settings, test)


def test_without_its_stores_a_job_says_what_is_missing(settings: bytes, folder: Path) -> None:
    (folder / "revisions.db").rename(folder / "elsewhere.db")

    async def test(runner: JobRunner) -> None:
        with pytest.raises(AuditUnavailable, match=r"archive of revisions .* is not there"):
            await runner.start("recompute", RecomputeAsked())

    run(settings, test)


# ── what nobody can see of them ──────────────────────────────────────────────────────────────────────────────────


def test_settings_are_in_neither_the_arguments_nor_the_environment(folder: Path) -> None:
    secret = load_settings({"data_dir": folder, "redis_url": f"redis://:{PASSWORD}@127.0.0.1:1", "gateway": "gw-a"})

    async def test(runner: JobRunner) -> None:
        job = await runner.start("export", ExportAsked(model="fraud"))
        process = Path(f"/proc/{job.pid}")
        assert (process / "cmdline").read_bytes().split(b"\0")[-3:] == [b"gateway.jobs", b"export", b""]
        for name in ("cmdline", "environ"):
            assert PASSWORD.encode() not in (process / name).read_bytes()
        assert PASSWORD.encode() not in await read(job)

    run(dump_settings(secret), test)


def test_a_job_stands_back_behind_what_serves(settings: bytes) -> None:
    async def test(runner: JobRunner) -> None:
        job = await runner.start("export", ExportAsked())
        assert os.getpriority(os.PRIO_PROCESS, job.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 10

    run(settings, test)


# ── how they end ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_so_many_run_at_once_and_one_that_ended_makes_room(settings: bytes) -> None:
    async def test(runner: JobRunner) -> None:
        jobs = [await runner.start("export", ExportAsked()) for _ in range(AT_ONCE)]
        with pytest.raises(Overloaded, match="are running already"):
            await runner.start("export", ExportAsked())
        jobs[0].kill()
        assert await jobs[0].ended() == -signal.SIGKILL
        assert b'{"end":{"records":301}}' in await read(await runner.start("export", ExportAsked()))

    run(settings, test)


def test_a_job_ends_at_once_with_sigterm_and_its_last_line_says_so(settings: bytes) -> None:
    async def test(runner: JobRunner) -> None:
        job = await runner.start("export", ExportAsked())
        os.kill(job.pid, signal.SIGTERM)
        await until(lambda: not alive(job.pid), 2.0)
        last = json.loads((await read(job)).splitlines()[-1])
        assert last["error"]["code"] == "internal_error"
        assert "was ended by SIGTERM before it was done" in last["error"]["message"]

    run(settings, test)


def test_closing_ends_every_job_and_starts_no_more(settings: bytes) -> None:
    async def test(runner: JobRunner) -> None:
        job = await runner.start("export", ExportAsked())
        await runner.close()
        assert not alive(job.pid)
        with pytest.raises(Stopping):
            await runner.start("export", ExportAsked())

    run(settings, test)


@pytest.fixture
def parent(settings: bytes, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    path = tmp_path / "settings.json"
    path.write_bytes(settings)
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.gateway.job_parent", str(path)], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    yield started
    started.kill()
    started.communicate()


def test_a_job_ends_when_the_process_that_started_it_is_killed(parent: subprocess.Popen[bytes]) -> None:
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    asyncio.run(until(lambda: not alive(pid)))


def test_a_job_that_ends_without_a_word_is_told_with_its_exit_code(settings: bytes) -> None:
    async def test(runner: JobRunner) -> None:
        with pytest.raises(InternalError, match="ended with exit code 3"):
            await runner.start("export", ExportAsked())

    run(settings, test, (sys.executable, "-c", "raise SystemExit(3)"))
