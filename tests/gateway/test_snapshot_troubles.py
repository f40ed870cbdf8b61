"""Life without a store that can be trusted: dead, frozen, empty, restored from an old copy, or talking nonsense.

The rule behind every test: rules in force stay in force, nothing is guessed, and it is said aloud, once.
"""

import asyncio
import shutil
from collections.abc import MutableMapping
from time import monotonic, time_ns
from typing import Any

import pytest
import structlog

from gateway.metrics import Slot
from gateway.ports import Head
from gateway.snapshot import LastGood, lastgood_generation
from gateway.snapshot.arrears import Arrears
from gateway.snapshot.documents import Documents
from gateway.snapshot.inforce import InForce
from gateway.snapshot.lastgood_folder import bases, revision_of
from tests.conftest import until
from tests.gateway.conftest import Bench, RunBench, Worker, see_closed_connections

WHOLE = {"1": 10_000}


async def in_force(bench: Bench, changes: int = 3) -> Worker:
    """Return a worker that follows rules which were changed a few times."""
    await bench.write(bench.version("fraud", "1"), bench.route("fraud", WHOLE))
    for number in range(2, changes + 1):
        await bench.write(bench.route("fraud", WHOLE, timeout_ms=number))
    worker = await bench.worker().follow()
    assert worker.snapshot.head.revision == changes
    return worker


def alarms(lines: list[MutableMapping[str, Any]]) -> list[str]:
    return [line["why"] for line in lines if line["event"] == "rules_alarm"]


# ── a store that does not answer ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_rules_are_served_on_and_called_stale_when_the_store_is_silent(run_private_bench: RunBench, how: str) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        await bench.acknowledgement("w0", 3)
        assert not worker.rules.stale
        snapshot = worker.snapshot
        server = bench.valkey
        with structlog.testing.capture_logs() as lines:
            server.kill() if how == "killed" else server.freeze()
            await until(lambda: worker.rules.stale and bool(lines))
            checked = worker.board[Slot.RULES_CHECKED_NS]
            assert worker.snapshot is snapshot
            server.start() if how == "killed" else server.thaw()
            await until(lambda: not worker.rules.stale)
        assert worker.board[Slot.RULES_CHECKED_NS] > checked
        assert [line["event"] for line in lines] == ["rules_store_lost", "rules_store_back"]
        assert not worker.alarm
        await bench.write(bench.route("fraud", WHOLE, timeout_ms=99))
        await bench.healthy("w0", 4)
        assert worker.snapshot.routes["fraud"].route.timeout_ms == 99

    run_private_bench(scenario)


def test_cold_start_serves_the_last_good_file_when_the_store_is_down(run_private_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.acknowledgement((await in_force(bench)).name, 3)
        bench.valkey.kill()
        with structlog.testing.capture_logs() as lines:
            worker = await bench.worker("w1").follow()
        line = next(line for line in lines if line["event"] == "rules_from_last_good_file")
        assert line["revision"] == 3
        assert "does not answer" in line["why"]
        assert worker.snapshot.routes["fraud"].route.timeout_ms == 3
        assert worker.snapshot.versions["fraud", "1"].problem is None
        assert worker.rules.stale
        bench.valkey.start()
        await until(lambda: not worker.rules.stale)
        await bench.write(bench.route("fraud", WHOLE, timeout_ms=99))
        await bench.healthy("w1", 4)
        assert not worker.alarm

    run_private_bench(scenario)


def test_worker_without_store_and_without_file_is_not_ready_until_the_store_comes(run_private_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.route("fraud", WHOLE))
        bench.valkey.kill()
        with structlog.testing.capture_logs() as lines:
            worker = await bench.worker().follow()
            assert worker.rules.snapshot is None
            assert worker.rules.stale
            bench.valkey.start()
            await worker.reach(1)
        assert sum(line["event"] == "no_rules_yet" for line in lines) == 1

    run_private_bench(scenario)


def test_store_that_comes_and_goes_loses_no_change_and_gives_no_alarm(run_private_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        revision = 3
        for number, how in enumerate(("killed", "frozen", "killed", "frozen"), start=10):
            server = bench.valkey
            server.kill() if how == "killed" else server.freeze()
            await until(lambda: worker.rules.stale)
            server.start() if how == "killed" else server.thaw()
            await until(lambda: not worker.rules.stale)
            revision = await bench.write(bench.route("fraud", WHOLE, timeout_ms=number))
            await worker.reach(revision)
            assert worker.snapshot.routes["fraud"].route.timeout_ms == number
            assert not worker.alarm
            assert not worker.rules.behind
        await bench.healthy("w0", revision)

    run_private_bench(scenario)


@pytest.mark.parametrize("intact", [True, False], ids=["one generation intact", "none intact"])
def test_cold_start_on_damaged_files_serves_an_older_generation_or_is_not_ready(
    run_private_bench: RunBench, monkeypatch: pytest.MonkeyPatch, intact: bool
) -> None:
    monkeypatch.setattr(lastgood_generation, "_MOST_LINES", 2)

    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.route("fraud", WHOLE))
        worker = await bench.worker().follow()
        for number in range(2, 12):
            await bench.acknowledgement("w0", await bench.write(bench.route("fraud", WHOLE, timeout_ms=number)))
            if number % 3 == 1:  # a base is due, and what follows is to be in its log
                await until(lambda: revision_of(bases(bench.folder)[0]) == worker.snapshot.head.revision)
        await worker.stop()
        bench.valkey.kill()
        for base in bases(bench.folder)[:1] if intact else bases(bench.folder):
            base.write_bytes(base.read_bytes().replace(b"fraud", b"fraub", 1))
        with structlog.testing.capture_logs() as lines:
            restarted = await bench.worker("w1").follow()
        assert sum(line["event"] == "last_good_refused" for line in lines) == (1 if intact else 3)
        if intact:
            assert restarted.snapshot.routes["fraud"].route.timeout_ms == 10
        else:
            assert restarted.rules.snapshot is None
        bench.valkey.start()
        await restarted.reach(11)
        await bench.healthy("w1", 11)
        assert not restarted.alarm
        saved = LastGood(bench.folder).newest()
        assert saved is not None
        assert saved.head == restarted.snapshot.head

    run_private_bench(scenario)


def test_worker_is_ready_with_no_models_when_the_store_is_new(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await bench.worker().follow()
        assert worker.snapshot.routes == {}
        await bench.acknowledgement("w0", 0)
        assert not bench.folder.exists()  # no rules are nothing to keep

    run_bench(scenario)


# ── a store that has lost something ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("loss", "why"),
    [
        (("HSET", "{pm}:head", "revision", "2"), "went back to revision 2, while 3 is in force"),
        (("DEL", "{pm}:head"), "has no rules"),
        (("FLUSHALL",), "has no rules"),
        (("HSET", "{pm}:head", "epoch", "another", "revision", "9"), "emptied or replaced"),
    ],
    ids=["lower revision", "missing head", "emptied", "another epoch"],
)
def test_rules_in_force_stay_and_one_alarm_is_given(run_bench: RunBench, loss: tuple[str, ...], why: str) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        snapshot = worker.snapshot
        head = snapshot.head
        with structlog.testing.capture_logs() as lines:
            bench.valkey.command(*loss)
            await until(lambda: worker.alarm)
            await until(lambda: worker.rules.stale)  # the store no longer confirms what is in force
        assert len(alarms(lines)) == 1
        assert why in alarms(lines)[0]
        assert worker.snapshot is snapshot
        with structlog.testing.capture_logs() as lines:
            bench.valkey.command("HSET", "{pm}:head", "epoch", head.epoch, "revision", "3")
            await until(lambda: not worker.alarm)
        assert not worker.rules.stale
        assert any(line["event"] == "rules_alarm_over" for line in lines)

    run_bench(scenario)


def test_restarted_worker_does_not_take_an_emptied_store_for_new_rules(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.acknowledgement((await in_force(bench)).name, 3)
        bench.valkey.empty()
        await bench.store.initialise()  # another epoch, at revision 0
        with structlog.testing.capture_logs() as lines:
            worker = await bench.worker("w1").follow()
            await until(lambda: worker.alarm)
        assert worker.snapshot.routes["fraud"].route.timeout_ms == 3
        assert "emptied or replaced" in alarms(lines)[0]

    run_bench(scenario)


def test_new_epoch_is_taken_when_nothing_was_in_force_that_could_be_lost(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await bench.worker().follow()
        bench.valkey.empty()
        await bench.store.initialise()
        await bench.write(bench.version("fraud", "1"), bench.route("fraud", WHOLE))
        await bench.healthy("w0", 1)
        assert worker.snapshot.routes.keys() == {"fraud"}
        assert not worker.alarm

    run_bench(scenario)


@pytest.mark.parametrize("changes", [1, 5], ids=["same revision", "higher revision"])
@pytest.mark.parametrize("restarted", [False, True], ids=["worker kept running", "worker restarted"])
def test_history_that_went_another_way_is_not_followed(
    run_private_bench: RunBench, restarted: bool, changes: int
) -> None:
    """A store restored from an old copy and then changed has the same numbers with another content."""

    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench, changes=2)
        data, copy = bench.valkey.prepared.folder / "appendonlydir", bench.folder.with_name("copy")
        bench.valkey.stop()
        shutil.copytree(data, copy)
        bench.valkey.start()
        await see_closed_connections()
        lost = await bench.write(bench.version("spam", "1"), bench.route("fraud", WHOLE, timeout_ms=333))
        await bench.acknowledgement("w0", lost)
        await (worker.stop() if restarted else worker.pause())
        bench.valkey.stop()
        shutil.rmtree(data)
        copy.rename(data)
        bench.valkey.start()
        await see_closed_connections()
        for number in range(changes):
            await bench.write(bench.cohort("beta", keys=[str(number)]))
        if restarted:
            worker = await bench.worker("w1").follow()
        else:
            await until(lambda: worker.rules.stale)
            worker.run()
        await until(lambda: worker.alarm)
        await until(lambda: worker.rules.stale)
        assert worker.snapshot.head.revision == lost
        assert worker.snapshot.routes["fraud"].route.timeout_ms == 333
        assert worker.snapshot.cohorts == {}

    run_private_bench(scenario)


# ── a worker that cannot catch up ────────────────────────────────────────────────────────────────────────────────


def test_worker_that_cannot_get_what_changed_says_that_it_is_behind_and_recovers(run_private_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.route("fraud", WHOLE))
        worker = await bench.worker(behind_ms=50).follow()
        await bench.healthy("w0", 1)
        bench.valkey.command("ACL", "SETUSER", "default", "-xrange", "-hscan")  # the head is still answered
        await bench.write(bench.route("fraud", WHOLE, timeout_ms=2))
        await until(lambda: worker.rules.behind)
        assert worker.snapshot.head.revision == 1
        assert worker.alarm
        assert not worker.rules.stale
        await bench.acknowledgement("w0", 1, alarm="behind")
        bench.valkey.command("ACL", "SETUSER", "default", "+xrange", "+hscan")
        await bench.healthy("w0", 2)
        await until(lambda: not worker.rules.behind and not worker.alarm)

    run_private_bench(scenario)


def test_worker_that_follows_one_change_after_another_is_never_behind(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.route("fraud", WHOLE))
        worker = await bench.worker(poll_ms=1, behind_ms=200).follow()
        began = monotonic()
        number = 1
        while monotonic() - began < 0.6:  # three times as long as it may be behind
            await bench.write(bench.route("fraud", WHOLE, timeout_ms=(number := number + 1)))
            assert not worker.rules.behind
        await worker.reach(number)

    run_bench(scenario)


def test_worker_is_not_behind_while_the_store_is_silent_or_in_doubt_or_a_version_is_being_prepared(
    run_private_bench: RunBench,
) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2"), bench.route("fraud", WHOLE))
        worker = await bench.worker(behind_ms=1).follow()
        bench.adding.artifact("fraud", "2").with_suffix(".hold").touch()
        revision = await bench.write(bench.route("fraud", {"2": 10_000}))
        await worker.reach(revision)
        before = worker.board[Slot.RULES_CHECKED_NS]
        await until(lambda: worker.board[Slot.RULES_CHECKED_NS] > before + 50_000_000)
        assert worker.snapshot.routes["fraud"].revision == 1
        assert not worker.rules.behind
        bench.valkey.freeze()
        await until(lambda: worker.rules.stale)
        assert not worker.rules.behind
        bench.valkey.thaw()
        await until(lambda: not worker.rules.stale)
        bench.valkey.command("HSET", "{pm}:head", "revision", "1")
        await until(lambda: worker.alarm and worker.rules.stale)
        assert not worker.rules.behind

    run_private_bench(scenario)


def head(revision: int) -> Head:
    return Head("an epoch", revision)


def test_time_behind_counts_only_while_the_store_answers_and_nothing_moves() -> None:
    arrears = Arrears(100)
    for now, interrupted, ours, theirs, exceeded in (
        (0, False, 1, 2, False),
        (90, False, 1, 2, False),
        (110, False, 2, 3, False),  # it moved
        (200, False, 2, 3, False),
        (5_000, True, 2, 3, False),  # silent in between
        (5_010, False, 2, 4, False),  # 100 so far
        (5_011, False, 2, 4, True),
        (5_012, False, 4, 4, False),
    ):
        if interrupted:
            arrears.interrupt()
            assert not arrears.exceeded
        arrears.look(head(ours), head(theirs), now)
        assert arrears.exceeded is exceeded, now


def test_silence_ends_being_behind_until_the_store_answers_again() -> None:
    arrears = Arrears(100)
    seen = []
    for now, silent in ((0, False), (1, False), (200, False), (300, True), (10_000, False)):
        arrears.interrupt() if silent else arrears.look(head(1), head(2), now)
        seen.append(arrears.exceeded)
    assert seen == [False, False, True, False, True]


# ── what a worker says of itself ─────────────────────────────────────────────────────────────────────────────────


def test_acknowledgement_says_since_when_the_rules_are_in_force_and_what_is_wrong(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        began = time_ns() // 1_000_000
        worker = await in_force(bench)
        said = await bench.acknowledgement("w0", 3)
        assert began <= said.since_ms <= time_ns() // 1_000_000
        assert said.since_ms == worker.board[Slot.RULES_SINCE_NS] // 1_000_000
        assert (said.alarms, said.ready) == ({}, False)
        worker.board[Slot.READY] = 1
        await bench.write(bench.route("fraud", WHOLE, timeout_ms=4), ("cohort", "beta", b"not json"))
        said = await bench.acknowledgement("w0", 4, alarm="documents")
        assert "cohort beta does not parse" in said.alarms["documents"]
        assert said.ready
        assert said.since_ms == worker.board[Slot.RULES_SINCE_NS] // 1_000_000
        await bench.write(bench.route("fraud", WHOLE, timeout_ms=5))
        assert (await bench.acknowledgement("w0", 5)).since_ms >= said.since_ms

    run_bench(scenario)


# ── documents that do not parse ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("route", "fraud", b'{"model":"fraud","split":{"1":9999}}'),
        ("route", "fraud", b'{"model":"spam","split":{"1":10000}}'),
        ("route", "fraud", b"\xff\xfe"),
        ("cohort", "beta", b'{"name":"beta","surprise":1}'),
        ("version", "fraud/1", b'{"model":"fraud","version":"7"}'),
        ("version", "fraud/1", b"not json"),
    ],
)
def test_last_good_document_stays_in_force_when_a_new_one_does_not_parse(
    run_bench: RunBench, kind: Any, name: str, text: bytes
) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("spam", "1"), bench.cohort("beta", keys=["u-1"]))
        pins = [{"cohort": "beta", "version": "1"}]
        await bench.write(bench.route("fraud", WHOLE, pins=pins), bench.route("spam", WHOLE))
        worker = await bench.worker().follow()
        before = worker.snapshot
        with structlog.testing.capture_logs() as lines:
            await bench.write((kind, name, text), bench.route("spam", WHOLE, timeout_ms=5))
            await worker.reach(3)
        assert worker.alarm
        assert f"{kind} {name} does not parse" in alarms(lines)[0]
        assert worker.snapshot.routes["spam"].route.timeout_ms == 5
        assert worker.snapshot.routes["fraud"] == before.routes["fraud"]
        assert worker.snapshot.cohorts == before.cohorts
        assert worker.snapshot.versions == before.versions
        told = f"{kind} {name} does not parse"
        await bench.acknowledgement(
            "w0", 3, lambda problems: problems.keys() == {"fraud"} and told in problems["fraud"]
        )
        await bench.write(bench.version("fraud", "1"), bench.cohort("beta"), bench.route("fraud", WHOLE, pins=pins))
        await bench.healthy("w0", 4)
        assert not worker.alarm

    run_bench(scenario)


def test_cold_start_serves_the_other_models_when_one_document_does_not_parse(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("spam", "1"), bench.route("spam", WHOLE), ("route", "fraud", b"{}"))
        worker = await bench.worker().follow()
        assert worker.snapshot.routes.keys() == {"spam"}
        assert worker.alarm
        await bench.acknowledgement("w0", 1, lambda problems: problems.keys() == {"fraud"})

    run_bench(scenario)


def test_cold_start_takes_the_last_good_document_from_the_file_when_that_of_the_store_does_not_parse(
    run_bench: RunBench,
) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        await bench.healthy("w0", 3)
        await worker.stop()
        await bench.write(("route", "fraud", b"{}"), bench.cohort("beta"))
        restarted = await bench.worker("w1").follow()
        assert restarted.snapshot.routes["fraud"].route.timeout_ms == 3
        assert restarted.snapshot.cohorts.keys() == {"beta"}
        await bench.acknowledgement("w1", 4, lambda problems: problems.keys() == {"fraud"}, alarm="documents")

    run_bench(scenario)


def test_manifest_that_is_no_version_is_found_when_a_route_names_it(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        stub = b'{"model":"fraud","version":"2","backend":{}}'
        await bench.write(bench.version("fraud", "1"), ("version", "fraud/2", stub), bench.route("fraud", WHOLE))
        worker = await bench.worker().follow()
        assert not worker.alarm
        await bench.write(bench.route("fraud", {"1": 5000, "2": 5000}))
        told = "version fraud/2 does not parse: backend"
        await bench.acknowledgement("w0", 2, lambda problems: told in problems.get("fraud", ""))
        assert worker.snapshot.routes["fraud"].revision == 1
        assert worker.alarm

    run_bench(scenario)


# ── our own defects, and our own disk ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", [(Documents, "take"), (InForce, "_place"), (InForce, "_commit")])
def test_defect_of_ours_is_an_alarm_and_not_the_end_of_following(
    run_bench: RunBench, monkeypatch: pytest.MonkeyPatch, place: tuple[type, str]
) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        sound = getattr(*place)
        broken = asyncio.Event()

        def defective(*arguments: Any) -> Any:
            if not broken.is_set():
                broken.set()
                raise ZeroDivisionError
            return sound(*arguments)

        monkeypatch.setattr(*place, defective)
        with structlog.testing.capture_logs() as lines:
            await bench.write(bench.route("fraud", WHOLE, timeout_ms=99))
            await until(lambda: worker.alarm)
            await until(lambda: not worker.alarm)
        assert worker.snapshot.head.revision == 4
        assert worker.snapshot.routes["fraud"].route.timeout_ms == 99
        await bench.healthy("w0", 4)
        assert isinstance(
            next(line for line in lines if line["event"] == "rules_defect")["exc_info"], ZeroDivisionError
        )

    run_bench(scenario)


def test_rules_come_into_force_when_the_last_good_file_cannot_be_written(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        bench.folder.write_text("a file where the folder should be", encoding="utf-8")
        with structlog.testing.capture_logs() as lines:
            await in_force(bench)
            await bench.healthy("w0", 3)
        assert any(line["event"] == "last_good_not_written" for line in lines)

    run_bench(scenario)
