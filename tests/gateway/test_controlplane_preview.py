"""Previews against truth: who a preview says will move is who does, when the change is made."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.controlplane import previewing
from gateway.controlplane.previewing import ModelPreview, Traffic
from gateway.controlplane.proposal import Proposed
from gateway.errors import AuditUnavailable, InvalidDocument
from gateway.stores.revisions_sqlite import SqliteRevisions
from routing import Facts, Move, PinMoves, RouteRules, VersionDenied, resolve, unit_digest
from tests.gateway.conftest import Document, RunBench
from tests.gateway.looking_back import SECOND, Looking, RunLooking, cohort, route, run_looking

KEY = "x-routing-key"
HALVES = {"1": 5_000, "2": 5_000}
PINNED = [{"cohort": "beta", "version": "2"}]


@pytest.fixture
def looking(run_bench: RunBench, tmp_path: Path) -> RunLooking:
    return run_looking(run_bench, tmp_path)


def proposed(*documents: Document) -> list[Proposed]:
    return [Proposed(kind, name, json) for kind, name, json in documents]


async def preview_of_one(at: Looking, *documents: Document, **traffic: Any) -> ModelPreview:
    found = await at.lookups.preview(proposed(*documents), Traffic(**traffic))
    (model,) = found.models
    assert (found.callers_moved, found.requests_moved) == (model.callers_moved, model.requests_moved)
    return model


# ── against truth ────────────────────────────────────────────────────────────────────────────────────────────────

callers = [f"u-{number}" for number in range(40)]
cohort_fields = st.fixed_dictionaries(
    {},
    optional={
        "keys": st.lists(st.sampled_from(callers), max_size=20, unique=True),
        "match": st.just([{"header": "x-tenant", "in": ["acme"]}]),
    },
)
route_fields = st.fixed_dictionaries(
    {
        "split": st.integers(0, 10_000).map(lambda weight: {"1": weight, "2": 10_000 - weight}),
        "pins": st.lists(
            st.fixed_dictionaries(
                {"cohort": st.just("beta"), "version": st.sampled_from(["1", "2", "3"])},
                optional={"expires": st.sampled_from(["2020-01-01T00:00:00Z", "2200-01-01T00:00:00Z"])},
            ),
            max_size=2,
        ),
        "salt": st.sampled_from(["fraud", "fraud-2"]),
        "client_versions": st.sampled_from(["allow", "deny"]),
    }
)
sent = st.tuples(st.none() | st.sampled_from(callers), st.none() | st.sampled_from(["acme", "other"]))
traffic = st.lists(sent, min_size=20, max_size=40)


def version_under(rules: RouteRules, facts: Facts) -> str | None:
    assert rules.route is not None
    try:
        return resolve(rules.route, rules.cohorts, facts).version
    except VersionDenied:
        return None


@settings(deadline=None, max_examples=8, suppress_health_check=list(HealthCheck))
@given(st.tuples(route_fields, cohort_fields), st.tuples(route_fields, cohort_fields), traffic)
def test_callers_that_a_preview_names_are_exactly_those_whose_version_changes(
    run_bench: RunBench,
    tmp_path_factory: pytest.TempPathFactory,
    old: tuple[dict[str, Any], dict[str, Any]],
    new: tuple[dict[str, Any], dict[str, Any]],
    requests: Sequence[tuple[str | None, str | None]],
) -> None:
    async def scenario(at: Looking) -> None:
        (old_route, old_cohort), (new_route, new_cohort) = old, new
        at.bench.valkey.empty()
        await at.store.initialise()
        # Every set of rules looks at the tenant, so that every record tells it.
        every = cohort("tenants", match=[{"header": "x-tenant", "in": ["nobody"]}])
        pins = {"pins": [*old_route["pins"], {"cohort": "tenants", "version": "1"}]}
        await at.change(every, cohort("beta", **old_cohort), route(**{**old_route, **pins}))
        served = []
        for number, (key, tenant) in enumerate(requests):
            headers = {**({KEY: key} if key else {}), **({"x-tenant": tenant} if tenant else {})}
            served.append(await at.serve(f"q-{number}", headers))
        change = (cohort("beta", **new_cohort), route(**new_route))
        model = await preview_of_one(at, *change)
        now_ns = time.time_ns()
        before, _, _ = await at.rules()
        await at.change(*change)
        after, _, _ = await at.rules()
        about = [
            Facts(bytes.fromhex(one.unit or ""), one.record_id, now_ns, one.keyed, None, one.headers) for one in served
        ]
        ways = [(version_under(before, one), version_under(after, one)) for one in about]
        newest = {one.unit.hex(): way for one, way in zip(about, ways, strict=True) if one.keyed}
        moving = {unit: way for unit, way in newest.items() if way[0] != way[1]}
        assert {one.unit: (one.before, one.after) for one in model.moved} == moving
        assert model.callers_moved == len(moving)
        assert model.requests_moved == sum(way[0] != way[1] for way in ways)
        assert (model.sample.callers, model.sample.requests) == (len(newest), len(requests))
        assert model.sample.undecidable_requests == 0

    run_looking(run_bench, tmp_path_factory.mktemp("preview"))(scenario)


# ── recorded requests ────────────────────────────────────────────────────────────────────────────────────────────


def test_preview_is_json_of_the_agreed_shape(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.serve("q-1", {KEY: "ann"})
        await at.serve("q-2", {KEY: "ann"})
        await at.serve("q-3")
        found = await at.lookups.preview(proposed(route({"2": 10_000})), Traffic())
        fields = msgspec.json.decode(msgspec.json.encode(found))
        since = fields["models"][0]["sample"].pop("since")
        assert since.endswith("Z")
        assert fields == {
            "callers_moved": 1,
            "requests_moved": 3,
            "models": [
                {
                    "model": "fraud",
                    "revision": 1,
                    "sample": {
                        "source": "records",
                        "requests": 3,
                        "keyed_requests": 2,
                        "callers": 1,
                        "limited": False,
                        "unknown_headers": [],
                        "undecidable_requests": 0,
                    },
                    "callers_moved": 1,
                    "requests_moved": 3,
                    "share_of_requests_moved": 1.0,
                    "moves": [{"before": "1", "after": "2", "callers": 1, "requests": 3}],
                    "pins": {"gained": 0, "lost": 0, "changed": 0},
                    "moved": [
                        {
                            "unit": unit_digest("ann").hex(),
                            "key": None,
                            "before": "1",
                            "after": "2",
                            "requests": 2,
                        }
                    ],
                    "moved_left_out": 0,
                }
            ],
        }

    looking(scenario)


def test_requests_of_the_window_are_looked_at_and_the_newest_when_there_are_too_many(
    looking: RunLooking, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        now_ns = time.time_ns()
        for age_s in (10, 100, 1_000):
            await at.serve(f"q-{age_s}", {KEY: f"u-{age_s}"}, received_ns=now_ns - age_s * SECOND)
        change = route({"2": 10_000})
        assert [(await preview_of_one(at, change, window_s=w)).sample.requests for w in (50, 500, 5_000)] == [1, 2, 3]
        monkeypatch.setattr("gateway.controlplane.foreseeing.MOST_REQUESTS", 2)
        limited = await preview_of_one(at, change)
        assert (limited.sample.requests, limited.sample.limited) == (2, True)
        assert {one.unit for one in limited.moved} == {unit_digest(f"u-{age}").hex() for age in (10, 100)}

    looking(scenario)


def test_requests_are_undecidable_that_were_recorded_when_no_rule_looked_at_a_header(looking: RunLooking) -> None:
    tenants = cohort("beta", match=[{"header": "X-Tenant", "in": ["acme"]}])

    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.serve("q-1", {KEY: "u-1", "x-tenant": "acme"})
        await at.serve("q-2", {KEY: "u-2"}, asked="1")
        first = await preview_of_one(at, tenants, route(pins=PINNED))
        assert (first.sample.undecidable_requests, first.sample.unknown_headers) == (1, ("x-tenant",))
        assert (first.callers_moved, first.requests_moved) == (0, 0)
        await at.change(tenants, route(pins=[{"cohort": "beta", "version": "1"}]))
        await at.serve("q-3", {KEY: "u-3", "x-tenant": "acme"})
        await at.serve("q-4", {KEY: "u-4"})
        then = await preview_of_one(at, route(pins=PINNED))
        # Those recorded since then tell it; by the archive, the ones before that do not.
        assert (then.sample.undecidable_requests, then.sample.unknown_headers) == (1, ("x-tenant",))
        assert [one.unit for one in then.moved] == [unit_digest("u-3").hex()]
        assert then.pins == PinMoves(changed=1)

    looking(scenario)


def test_requests_of_rules_that_nobody_knows_any_more_are_undecidable(looking: RunLooking, tmp_path: Path) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.serve("q-1", {KEY: "u-1"})
        await at.serve("q-2", {KEY: "u-2"}, revision=None)
        await at.change(route(timeout_ms=5))
        at.bench.valkey.command("XDEL", "{pm}:changes", "1-0")
        late = at.again(SqliteRevisions(tmp_path / "late.db"))
        (model,) = (await late.preview(proposed(route({"2": 10_000})), Traffic())).models
        assert (model.sample.undecidable_requests, model.sample.unknown_headers) == (2, (KEY,))

    looking(scenario)


def test_expiry_is_held_against_now_and_not_against_when_a_request_came(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        expired = [{"cohort": "beta", "version": "2", "expires": "2026-01-01T00:00:00Z"}]
        await at.change(cohort("beta", keys=["u-1"]), route(pins=expired))
        await at.serve("q-1", {KEY: "u-1"}, received_ns=1_700_000_000 * SECOND)
        model = await preview_of_one(at, route(), window_s=10 * 366 * 86_400)
        assert (model.sample.requests, model.callers_moved, model.pins) == (1, 0, PinMoves())

    looking(scenario)


# ── what a change touches ────────────────────────────────────────────────────────────────────────────────────────


def test_cohort_touches_every_model_that_pins_it_and_no_other(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(
            cohort("beta"),
            cohort("bet"),
            route(pins=PINNED),
            route(model="churn", pins=PINNED),
            route(model="other", pins=[{"cohort": "bet", "version": "2"}]),
            route(model="beta"),
        )
        for model in ("fraud", "churn", "other", "beta"):
            await at.serve(f"q-{model}", {KEY: "u-1"}, model=model)
        found = await at.lookups.preview(proposed(cohort("beta", keys=["u-1"])), Traffic())
        assert [(one.model, one.callers_moved, one.pins.gained) for one in found.models] == [
            ("churn", 1, 1),
            ("fraud", 1, 1),
        ]
        assert (found.callers_moved, found.requests_moved) == (2, 2)
        assert (await at.lookups.preview(proposed(cohort("beta")), Traffic())).models == ()
        gone = await at.lookups.preview([Proposed("cohort", "beta", None)], Traffic(keys=("u-1",)))
        assert [one.model for one in gone.models] == ["churn", "fraud"]

    looking(scenario)


def test_documents_of_one_change_are_previewed_together(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.serve("q-1", {KEY: "u-1"})
        both = (cohort("beta", keys=["u-1"]), route(pins=PINNED))
        assert (await preview_of_one(at, *both)).callers_moved == 1
        assert (await preview_of_one(at, both[1])).callers_moved == 0
        version: Document = at.bench.version("fraud", "7")
        assert (await at.lookups.preview(proposed(version), Traffic())).models == ()

    looking(scenario)


def test_model_without_a_route_now_or_then_has_no_version_there(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        new = await preview_of_one(at, route(HALVES), keys=("u-1", "u-2"))
        assert (new.revision, new.callers_moved) == (0, 2)
        assert {move.before for move in new.moves} == {None}
        await at.change(route())
        (gone,) = (await at.lookups.preview([Proposed("route", "fraud", None)], Traffic(keys=("u-1",)))).models
        assert gone.moves == (Move("1", None, 1, 1),)

    looking(scenario)


def test_stored_route_that_does_not_parse_decides_nothing_and_a_proposed_one_is_refused(looking: RunLooking) -> None:
    broken: Document = ("route", "fraud", b'{"split":{}}')

    async def scenario(at: Looking) -> None:
        await at.change(broken)
        assert {move.before for move in (await preview_of_one(at, route(), keys=("u-1",))).moves} == {None}
        with pytest.raises(InvalidDocument):
            await at.lookups.preview(proposed(broken), Traffic())

    looking(scenario)


# ── routing keys ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_given_keys_are_callers_that_send_nothing_else_and_are_named(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        await at.serve("q-1", {KEY: "recorded"})
        keys = tuple(f"u-{number}" for number in range(200))
        model = await preview_of_one(at, route(HALVES), keys=keys)
        sample = model.sample
        assert (sample.source, sample.requests, sample.callers, sample.since) == ("keys", 200, 200, None)
        await at.change(route(HALVES))
        after, _, _ = await at.rules()
        truth = {key for key in keys if version_under(after, Facts(unit_digest(key), "", 1)) != "1"}
        assert {one.key for one in model.moved} == truth
        assert {one.unit for one in model.moved} == {unit_digest(key).hex() for key in truth}
        assert 50 < len(truth) < 150

    looking(scenario)


def test_callers_beyond_a_thousand_are_counted_and_not_listed(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        keys = tuple(f"u-{number}" for number in range(previewing.MOST_LISTED + 50))
        model = await preview_of_one(at, route({"2": 10_000}), keys=keys)
        assert (model.callers_moved, len(model.moved), model.moved_left_out) == (1_050, 1_000, 50)

    looking(scenario)


def test_preview_says_so_when_the_records_cannot_be_read(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        at.audit.close()
        with pytest.raises(AuditUnavailable):
            await at.lookups.preview(proposed(route(HALVES)), Traffic())
        assert (await preview_of_one(at, route(HALVES), keys=("u-1",))).sample.callers == 1

    looking(scenario)


def test_share_of_requests_is_nothing_when_nothing_was_recorded(looking: RunLooking) -> None:
    async def scenario(at: Looking) -> None:
        await at.change(route())
        model = await preview_of_one(at, route(HALVES))
        assert (model.sample.requests, model.share_of_requests_moved, model.moves) == (0, 0.0, ())

    looking(scenario)
