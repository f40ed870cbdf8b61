"""Explanations of now and of the past: by the rules and the facts of then, and by no others."""

import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.controlplane.questions import Explained, Question
from gateway.errors import DocumentNotFound, InvalidDocument
from gateway.stores.revisions_sqlite import SqliteRevisions
from routing import Decision
from tests.gateway.conftest import RunBench
from tests.gateway.looking_back import SECOND, Looking, RunLooking, cohort, route, run_looking

PINNED = [{"cohort": "beta", "version": "2"}]
KEY = "x-routing-key"


@pytest.fixture
def looking(run_bench: RunBench, tmp_path: Path) -> RunLooking:
    return run_looking(run_bench, tmp_path)


async def refused(asked: Awaitable[Explained], kind: type[Exception] = DocumentNotFound) -> str:
    with pytest.raises(kind) as found:
        await asked
    return str(found.value)


def chosen(explained: Explained) -> str | None:
    decision = explained.explanation.decision
    return decision.version if decision is not None else None


# ── a caller ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rules_of_now_are_meant_when_nothing_else_is_said(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(cohort("beta", keys=["u-1"]), route(pins=PINNED))
        await at.change(cohort("other"))
        found = await at.lookups.explain("fraud", Question(key="u-1"))
        assert found.explanation.decision == Decision("2", "pin", "pins[0]", "beta")
        assert (found.model, found.revision, found.rules_revision) == ("fraud", 1, 2)
        assert (found.moment, found.recorded, found.agrees, found.unknown_headers) == ("now", None, None, ())
        assert abs(found.moment_ns - time.time_ns()) < 60 * SECOND
        by_header = await at.lookups.explain("fraud", Question(headers={"X-Routing-Key": "u-1"}))
        assert by_header.explanation.decision == found.explanation.decision
        asked = await at.lookups.explain("fraud", Question(key="u-1", version="9"))
        assert asked.explanation.decision == Decision("9", "explicit", "client_versions")
        one, other = [await at.lookups.explain("fraud", Question(record_id=record_id)) for record_id in ("r-1", "r-2")]
        assert one.explanation.scores != other.explanation.scores
        assert "no route of model nobody" in await refused(at.lookups.explain("nobody", Question()))

    looking(scenario)


def test_past_is_explained_by_the_route_and_the_cohorts_of_then(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(cohort("beta", keys=["u-1"]))
        await at.change(route(pins=PINNED), at_ns=5 * SECOND)
        await at.change(cohort("beta", keys=["u-2"]), at_ns=9 * SECOND)
        await at.change(route({"3": 10_000}), at_ns=20 * SECOND)
        found = [await at.lookups.explain("fraud", Question(key="u-1", revision=revision)) for revision in (2, 3, 4)]
        assert [chosen(one) for one in found] == ["2", "1", "3"]
        assert [(one.revision, one.rules_revision) for one in found] == [(2, 2), (2, 3), (4, 4)]
        assert [(one.moment, one.moment_ns) for one in found[:2]] == [
            ("revision", 5 * SECOND),
            ("revision", 9 * SECOND),
        ]
        then = await at.lookups.explain("fraud", Question(key="u-2", at_ns=15 * SECOND))
        assert (chosen(then), then.rules_revision, then.moment, then.moment_ns) == ("2", 3, "time", 15 * SECOND)
        assert "had no route at revision 1" in await refused(at.lookups.explain("fraud", Question(revision=1)))
        assert "no revision 5 yet" in await refused(at.lookups.explain("fraud", Question(revision=5)))

    looking(scenario)


def test_pin_counts_as_expired_or_not_by_the_moment_that_is_asked_about(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        expires = datetime.fromtimestamp(100, UTC).isoformat()
        pins = [{"cohort": "beta", "version": "2", "expires": expires}]
        await at.change(cohort("beta", keys=["u-1"]), route(pins=pins), at_ns=50 * SECOND)
        moments = [
            chosen(await at.lookups.explain("fraud", Question(key="u-1", **asked)))  # type: ignore[arg-type]
            for asked in ({"revision": 1}, {"at_ns": 99 * SECOND}, {"at_ns": 100 * SECOND}, {})
        ]
        assert moments == ["2", "2", "1", "1"]

    looking(scenario)


def test_time_before_all_that_is_known_and_time_to_come_are_refused(looking: RunLooking, tmp_path: Path) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route(), at_ns=50 * SECOND)
        assert "rules of that time are not known; the archive of revisions has every one from revision 1 on" in (
            await refused(at.lookups.explain("fraud", Question(at_ns=49 * SECOND)))
        )
        later = time.time_ns() + 3_600 * SECOND
        assert await refused(at.lookups.explain("fraud", Question(at_ns=later)), InvalidDocument) == (
            "at: that time is yet to come; leave it out to ask about the rules of now"
        )
        empty = at.again(SqliteRevisions(tmp_path / "empty.db"))
        at.bench.valkey.empty()
        assert "has none yet" in await refused(empty.explain("fraud", Question(at_ns=SECOND)))

    looking(scenario)


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (Question(request_id="q", key="u"), "request_id: a recorded request brings its own facts"),
        (Question(request_id="q", headers={"a": "b"}), "request_id: a recorded"),
        (Question(request_id="q", version="1"), "request_id: a recorded"),
        (Question(request_id="q", record_id="r"), "request_id: a recorded"),
        (Question(revision=1, at_ns=1), "at: name a revision or a time, not both"),
    ],
)
def test_question_about_two_things_at_once_is_refused(looking: RunLooking, question: Question, words: str) -> None:
    async def scenario(at: Looking) -> None:
        assert words in await refused(at.lookups.explain("fraud", question), InvalidDocument)

    looking(scenario)


# ── a recorded request ───────────────────────────────────────────────────────────────────────────────────────────

TENANTS: dict[str, Any] = {"match": [{"header": "x-tenant", "in": ["acme"]}]}


def test_recorded_request_is_explained_by_the_rules_that_decided_it(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(
            cohort("beta", **TENANTS), route({"1": 5_000, "2": 5_000}, pins=[{"cohort": "beta", "version": "3"}])
        )
        await at.change(cohort("unrelated"))
        served = [
            await at.serve("pinned", {KEY: "u-1", "x-tenant": "acme"}, received_ns=10**18),
            await at.serve("split", {KEY: "u-2"}),
            await at.serve("keyless"),
            await at.serve("explicit", {KEY: "u-3"}, asked="2"),
        ]
        await at.change(cohort("beta"))
        await at.change(route({"9": 10_000}))
        for record in served:
            found = await at.lookups.explain("fraud", Question(request_id=record.request_id))
            assert found.agrees is True
            assert chosen(found) == record.intended
            assert (found.revision, found.rules_revision) == (1, 2)
            assert (found.moment, found.moment_ns) == ("record", record.received_ns)
            assert found.recorded is not None
            assert (found.recorded.record_id, found.recorded.version) == (record.record_id, record.intended)
            now = await at.lookups.explain("fraud", Question(request_id=record.request_id, revision=4))
            assert chosen(now) == ("2" if record.asked_version else "9")
            assert now.agrees is (record.asked_version is not None)
            assert (now.moment, now.moment_ns) == ("record", record.received_ns)

    looking(scenario)


def test_explanation_disagrees_when_a_record_says_otherwise(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.serve("odd", {KEY: "u-1"}, intended="2")
        found = await at.lookups.explain("fraud", Question(request_id="odd"))
        assert (chosen(found), found.agrees) == ("1", False)

    looking(scenario)


def test_refused_requests_agree_with_the_rules_that_refused_them(looking: RunLooking) -> None:
    refusal: dict[str, Any] = {
        "reason": None,
        "rule": None,
        "intended": None,
        "served": None,
        "outcome": "refused",
        "status": 400,
    }

    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.serve("unknown", {KEY: "u-1"}, asked="9", error_code="unknown_version", **refusal)
        await at.serve("denied", {KEY: "u-1"}, error_code="version_not_allowed", **refusal)
        await at.serve("early", {KEY: "u-1"}, error="it is too large", **{**refusal, "unit": None})
        unknown = await at.lookups.explain("fraud", Question(request_id="unknown"))
        assert (chosen(unknown), unknown.agrees) == ("9", True)
        assert (await at.lookups.explain("fraud", Question(request_id="denied"))).agrees is False
        early = await refused(at.lookups.explain("fraud", Question(request_id="early")))
        assert "refused before anything was decided (it is too large)" in early
        await at.change(route(client_versions="deny"))
        denied = await at.lookups.explain("fraud", Question(request_id="unknown", revision=2))
        assert (chosen(denied), denied.agrees) == (None, True)

    looking(scenario)


def test_request_is_found_by_each_of_its_ids_and_the_newest_of_those_that_share_one(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        first = await at.serve("same", {KEY: "u-1"}, received_ns=1_000, oip_id="o")
        second = await at.serve("same", {KEY: "u-2"}, received_ns=2_000)
        await at.serve("same", {KEY: "u-2"}, received_ns=2_000, role="shadow", primary_id=second.record_id)
        other = await at.serve("other", {KEY: "u-2"}, model="fraud", received_ns=3_000)

        async def found(any_id: str) -> str:
            explained = await at.lookups.explain("fraud", Question(request_id=any_id))
            assert explained.recorded is not None
            return explained.recorded.record_id

        assert await found("same") == second.record_id
        assert await found(first.record_id) == first.record_id
        assert await found("o") == first.record_id
        assert await found("other") == other.record_id
        assert "no request of model fraud has the request id" in await refused(
            at.lookups.explain("fraud", Question(request_id="nobody"))
        )
        assert "the one of that id is of model fraud" in await refused(
            at.lookups.explain("churn", Question(request_id="other"))
        )

    looking(scenario)


def test_headers_that_the_record_cannot_tell_are_named(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.serve("before", {KEY: "u-1", "x-tenant": "acme"})
        await at.serve("explicit", {KEY: "u-1"}, asked="1")
        await at.change(cohort("beta", **TENANTS), route(pins=PINNED))
        await at.serve("after", {KEY: "u-1", "x-tenant": "acme"})

        async def unknown(request_id: str, revision: int) -> tuple[str, ...]:
            question = Question(request_id=request_id, revision=revision)
            return (await at.lookups.explain("fraud", question)).unknown_headers

        assert await unknown("before", 1) == ()
        assert await unknown("before", 2) == ("x-tenant",)
        assert await unknown("explicit", 2) == ()
        assert await unknown("after", 2) == ()
        assert await unknown("after", 1) == ()

    looking(scenario)


def test_past_that_nobody_knows_is_not_explained(looking: RunLooking, tmp_path: Path) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.serve("long-ago", {KEY: "u-1"})
        await at.change(route({"2": 10_000}))
        at.bench.valkey.command("XDEL", "{pm}:changes", "1-0")
        late = at.again(SqliteRevisions(tmp_path / "late.db"))
        assert "at revision 1 is not known" in await refused(late.explain("fraud", Question(request_id="long-ago")))
        now = await late.explain("fraud", Question(request_id="long-ago", revision=2))
        assert (chosen(now), now.agrees, now.unknown_headers) == ("2", False, (KEY,))

    looking(scenario)
