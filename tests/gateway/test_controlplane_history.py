"""What the rules were: every revision stays known, whatever becomes of the store, and nothing is guessed."""

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.controlplane.archiving import Archivist
from gateway.controlplane.past import Past
from gateway.errors import AuditUnavailable, DocumentNotFound
from gateway.ports import Head, StoredDocument
from gateway.stores.revisions_sqlite import SqliteRevisions
from gateway.stores.rules_redis import RedisRules
from tests.conftest import until
from tests.gateway.conftest import RunBench
from tests.gateway.looking_back import Copy, Looking, RunLooking, cohort, route, run_looking


@pytest.fixture
def looking(run_bench: RunBench, tmp_path: Path) -> RunLooking:
    return run_looking(run_bench, tmp_path)


@pytest.fixture
def looking_privately(run_private_bench: RunBench, tmp_path: Path) -> RunLooking:
    return run_looking(run_private_bench, tmp_path)


async def refused(look_up: Awaitable[Any]) -> str:
    with pytest.raises(DocumentNotFound) as found:
        await look_up
    return found.value.message


# ── looking back ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_route_is_shown_as_it_was_at_any_revision_since_it_was_made(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        other = await at.change(cohort("beta"))
        first = await at.change(route({"1": 10_000}))
        between = await at.change(cohort("beta", keys=["u-1"]))
        last = await at.change(route({"2": 10_000}))
        assert await at.lookups.route_at("fraud", between) == StoredDocument(first, route({"1": 10_000})[2] or b"")
        assert (await at.lookups.route_at("fraud", last)).revision == last
        assert "had no route at revision 1; the rules are at revision 4" in await refused(
            at.lookups.route_at("fraud", other)
        )
        assert "model nobody had no route" in await refused(at.lookups.route_at("nobody", last))
        assert "no route" in await refused(at.lookups.route_at("\ud800", last))

    looking(scenario)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (3, "there is no revision 3 yet; the rules are at revision 2 now"),
        (0, "there never was a revision 0; the rules are at revision 2 now"),
        (-1, "there never was a revision -1"),
        (2**70, "yet; the rules are at revision 2 now"),
    ],
)
def test_number_that_was_never_made_is_refused_with_the_present_revision(
    looking: RunLooking, number: int, words: str
) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.change(route({"2": 10_000}))
        assert words in await refused(at.lookups.route_at("fraud", number))
        assert words in await refused(at.lookups.diff("fraud", number, None))
        assert await at.lookups.revision(number) is None

    looking(scenario)


def test_many_rules_are_read_as_each_of_them_would_be_and_those_that_cannot_be_are_missing(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        made = await at.change(cohort("beta"))
        pinned = await at.change(route(pins=[{"cohort": "beta", "version": "2"}]), route(model="spam"))
        keyed = await at.change(cohort("beta", keys=["u-1"]))
        alone = await at.change(route({"2": 10_000}))
        await at.lookups.archivist.catch_up()
        past = Past(at.store, at.archive, None)
        there = [("fraud", pinned, made), ("fraud", pinned, keyed), ("spam", pinned, None), ("fraud", alone, None)]
        found = await past.rules_of([*there, ("fraud", made, None), ("nobody", pinned, None), ("fraud", 99, None)])
        assert found == {one: await past.rules_at(*one) for one in there}
        assert found["fraud", pinned, made].cohorts != found["fraud", pinned, keyed].cohorts

    looking(scenario)


def test_history_is_of_the_route_its_versions_and_the_cohorts_it_pins_and_goes_on_page_by_page(
    looking: RunLooking,
) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(cohort("beta"))
        await at.change(cohort("other"))
        await at.change(at.bench.version("fraud", "1"))
        await at.change(at.bench.version("fraud-2", "1"))
        await at.change(route(pins=[{"cohort": "beta", "version": "1"}]))
        await at.change(route(model="churn"))
        await at.change(cohort("beta", keys=["u-1"]))
        found = await at.lookups.history("fraud", None, 10)
        assert [one.revision for one in found] == [7, 5, 3, 1]
        assert [one.revision for one in await at.lookups.history("fraud", 5, 1)] == [3]
        assert [one.revision for one in await at.lookups.all_history(None, 3)] == [7, 6, 5]
        assert list(await at.lookups.history("fraud", 1, 10)) == []
        assert "no model nobody" in await refused(at.lookups.history("nobody", None, 10))
        assert "no model" in await refused(at.lookups.history("\ud800", None, 10))

    looking(scenario)


def test_difference_of_two_revisions_is_told_field_by_field_with_that_of_the_cohorts_pinned_in_both(
    looking: RunLooking,
) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(cohort("beta", keys=["u-1"]), cohort("gone", keys=["u-2"]))
        both = [{"cohort": "gone", "version": "1"}, {"cohort": "beta", "version": "1"}]
        older = await at.change(route(pins=both))
        await at.change(cohort("beta", keys=["u-3"]))
        newer = await at.change(route({"1": 9_000, "2": 1_000}, pins=both[1:], timeout_ms=5))
        found = await at.lookups.diff("fraud", older, newer)
        assert {one.path for one in found} == {
            'split["1"]',
            'split["2"]',
            "pins[0]",
            "timeout_ms",
            'cohorts["beta"].keys["u-1"]',
            'cohorts["beta"].keys["u-3"]',
        }
        assert await at.lookups.diff("fraud", older, None) == found
        assert list(await at.lookups.diff("fraud", newer, None)) == []

    looking(scenario)


# ── the archive outlives the store ───────────────────────────────────────────────────────────────────────────────


def test_history_stays_when_the_store_has_dropped_it(looking: RunLooking, tmp_path: Path) -> None:
    async def scenario(at: Looking) -> None:
        short = RedisRules(at.bench.valkey.url, history_kept=3)
        at.store = short
        try:
            for weight in range(10):
                await at.change(route({"1": 10_000 - weight, "2": weight}))
                await at.lookups.archivist.catch_up()
            assert await short.revisions(0, 1) is None
            stored = await at.lookups.route_at("fraud", 2)
            assert json.loads(stored.json)["split"] == {"1": 9_999, "2": 1}
            late = at.again(SqliteRevisions(tmp_path / "late.db"))
            words = await refused(late.route_at("fraud", 2))
            assert "revision 2 is not kept; the archive of revisions has every one from revision 8 on" in words
            assert (await late.route_at("fraud", 8)).revision == 8
            assert await late.revision(2) is None
        finally:
            await short.close()

    looking(scenario)


def test_archive_that_began_later_knows_what_has_not_changed_since_and_says_what_it_does_not_know(
    looking: RunLooking, tmp_path: Path
) -> None:
    async def scenario(at: Looking) -> None:
        short = RedisRules(at.bench.valkey.url, history_kept=2)
        at.store = short
        try:
            await at.change(route())
            await at.change(route(model="churn"))
            for number in range(4):
                await at.change(cohort("beta", keys=[f"u-{number}"]))
            late = at.again(SqliteRevisions(tmp_path / "late.db"))
            await late.archivist.catch_up()
            await at.change(route({"2": 10_000}, model="churn"))
            assert (await late.route_at("fraud", 6)).revision == 1
            assert "route of model churn was at revision 6 is not known" in await refused(late.route_at("churn", 6))
            assert "from revision 5 on" in await refused(late.route_at("churn", 6))
            assert (await late.route_at("churn", 7)).revision == 7
        finally:
            await short.close()

    looking(scenario)


def test_past_is_looked_up_while_the_store_is_down(looking_privately: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.change(route({"2": 10_000}))
        await at.lookups.archivist.catch_up()
        at.bench.valkey.kill()
        assert (await at.lookups.route_at("fraud", 1)).revision == 1
        assert [one.revision for one in await at.lookups.all_history(None, 10)] == [2, 1]
        assert [one.path for one in await at.lookups.diff("fraud", 1, 2)] == ['split["2"]', 'split["1"]']
        revision = await at.lookups.revision(2)
        assert revision is not None
        assert revision.comment == "why"
        assert "the rules are at revision 2 now" in await refused(at.lookups.route_at("fraud", 3))
        assert [one.revision for one in await at.lookups.history("fraud", None, 10)] == [2, 1]
        assert "no model spam" in await refused(at.lookups.history("spam", None, 10))
        assert at.lookups.archivist.lag() is None

    looking_privately(scenario)


def test_revision_comes_from_the_store_when_the_archive_fails(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        at.archive.close()
        revision = await at.lookups.revision(1)
        assert revision is not None
        assert revision.operation_id == "op-1"
        with pytest.raises(AuditUnavailable):
            await at.lookups.revision(2)
        with pytest.raises(AuditUnavailable):
            await at.lookups.route_at("fraud", 1)

    looking(scenario)


# ── stores that lost changes ─────────────────────────────────────────────────────────────────────────────────────


def test_changes_that_the_store_lost_are_kept_and_are_not_the_past_of_its_new_life(
    looking: RunLooking,
) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route({"1": 10_000}))
        await at.lookups.archivist.catch_up()
        backup = Copy(at.bench.valkey)
        await at.change(route({"2": 10_000}))
        await at.change(cohort("beta"))
        await at.lookups.archivist.catch_up()
        backup.restore()
        head = await at.resettle(3)
        assert head.revision == 4
        assert (await at.lookups.route_at("fraud", 4)).revision == 1
        assert (await at.lookups.route_at("fraud", 3)).revision == 2  # in force once, and never denied
        assert [one.revision for one in await at.lookups.all_history(None, 10)] == [4, 3, 2, 1]
        assert at.archive.unbroken_since(4) == 1

    looking(scenario)


def test_other_revisions_of_the_same_numbers_are_kept_too(looking: RunLooking) -> None:
    """Nobody noticed that the store went back, and it went on to the number that the archive had."""

    async def scenario(at: Looking) -> None:
        await at.change(route({"1": 10_000}))
        backup = Copy(at.bench.valkey)
        await at.change(route({"2": 10_000}))
        await at.lookups.archivist.catch_up()
        backup.restore()
        assert await at.change(route({"3": 10_000})) == 2
        late = at.again(at.archive)
        await late.archivist.catch_up()
        assert b'"3"' in (await late.route_at("fraud", 2)).json
        assert await at.change(cohort("beta")) == 3
        assert b'"3"' in (await late.route_at("fraud", 3)).json

    looking(scenario)


# ── the archivist ────────────────────────────────────────────────────────────────────────────────────────────────


def test_archivist_keeps_up_by_itself_and_says_its_lag(looking: RunLooking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.controlplane.archiving._LOOK_SECONDS", 0.01)

    async def scenario(at: Looking) -> None:
        archivist = Archivist(at.store, at.archive)
        assert archivist.lag() is None
        async with running(archivist):
            for weight in range(130):  # more than one page of history
                await at.change(route({"1": 10_000 - weight, "2": weight}))
            await until(lambda: at.archive.kept() is not None and at.archive.kept().revision == 130)  # type: ignore[union-attr]
            await until(lambda: archivist.lag() == 0)
        assert at.archive.unbroken_since(130) == 1

    looking(scenario)


def test_archivist_outlives_outages_and_logs_each_once(
    looking_privately: RunLooking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.controlplane.archiving._LOOK_SECONDS", 0.01)

    async def scenario(at: Looking) -> None:
        archivist = Archivist(at.store, at.archive)
        await at.change(route())
        with capture_logs() as logs:
            async with running(archivist):
                await until(lambda: archivist.lag() == 0)
                at.bench.valkey.kill()
                await until(lambda: archivist.trouble)
                assert archivist.lag() is None
                at.bench.valkey.start()
                await until(lambda: not archivist.trouble)
                await at.change(route({"2": 10_000}))
                await until(lambda: at.archive.revision(2) is not None)
        assert [line["event"] for line in logs] == ["archive_behind", "archive_up_to_date"]

    looking_privately(scenario)


def test_archivist_goes_on_when_the_archive_works_again(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        writer = at.archive._file._writer
        assert writer is not None
        writer.set_busy_timeout(1)
        writer.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON main.revisions BEGIN SELECT RAISE(FAIL, 'full'); END")
        with pytest.raises(AuditUnavailable, match="full"):
            await at.lookups.archivist.catch_up()
        assert at.lookups.archivist.lag() is None
        writer.execute("DROP TRIGGER full")
        await at.lookups.archivist.catch_up()
        assert at.archive.kept() == await at.store.head()

    looking(scenario)


def test_archivist_keeps_nothing_of_a_store_without_a_head(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.lookups.archivist.catch_up()
        at.bench.valkey.empty()
        await at.lookups.archivist.catch_up()
        assert at.lookups.archivist.lag() is None
        kept = at.archive.kept()
        assert isinstance(kept, Head)
        assert kept.revision == 1

    looking(scenario)


class running:  # noqa: N801 - reads as what it is in `async with running(archivist)`
    """The archivist's task, for as long as the block."""

    def __init__(self, archivist: Archivist) -> None:
        self._archivist = archivist

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._archivist.run(), name="archivist")

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self._task
