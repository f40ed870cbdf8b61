"""Decisions taken again: what follows from the rules, what does not, and what nobody can tell."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import DocumentNotFound, GatewayError
from gateway.evidence.reasons import MOST_REASONS, OTHERS
from gateway.evidence.recompute import MOST_LISTED, Recomputation, Recomputed, Wanted
from gateway.ports import Kept
from gateway.record import Attempt, Payload, Record, encode_record
from routing import (
    Cohort,
    Facts,
    Route,
    RouteRules,
    VersionDenied,
    parse_cohort,
    parse_route,
    resolve,
    shadow_hit,
    unit_digest,
)
from tests.records import DAY, ChainedJournal

RECEIVED_NS = 1_790_000_000_000_000_000
BRAKE = {"failures": 5, "of": 20}
BETA = parse_cohort({"name": "beta", "keys": ["u-17"], "match": [{"header": "x-tenant", "in": ["acme"]}]})


def route(**fields: Any) -> Route:
    return parse_route({"model": "fraud", "split": {"1": 5000, "2": 5000}} | fields)


def record(**fields: Any) -> Record:
    """A record of a caller `fred`, whom the split of `route()` gives version 1."""
    given: dict[str, Any] = {
        "record_id": "r-1",
        "request_id": "q-1",
        "role": "primary",
        "received_ns": RECEIVED_NS,
        "model": "fraud",
        "protocol": "oip-v2-http",
        "outcome": "served",
        "status": 200,
        "request": Payload(0),
        "response": Payload(0),
        "intended": "1",
        "served": "1",
        "reason": "split",
        "rule": "split",
        "revision": 7,
        "rules_revision": 7,
        "unit": unit_digest("fred").hex(),
        "keyed": True,
        "attempts": (Attempt("1", "onnx", 9, 200),),
    }
    return Record(**(given | fields))


def kept(records: Sequence[Record]) -> list[Kept]:
    chain = ChainedJournal()
    return [Kept(chain.sealed(encode_record(one)), DAY) for one in records]


def recompute(
    records: Sequence[Record], rules: Mapping[int, Route], cohorts: Mapping[str, Cohort] | None = None
) -> Recomputed:
    """Take records as a store yields them; the route is that of its revision."""

    async def then(wanted: Sequence[Wanted]) -> Mapping[Wanted, RouteRules | GatewayError]:
        return {
            one: RouteRules(rules[one[1]], cohorts or {})
            if one[1] in rules
            else DocumentNotFound(f"revision {one[1]} of {one[0]} is not kept")
            for one in wanted
        }

    async def run() -> Recomputed:
        recomputation = Recomputation(then)
        for at in range(0, len(records), 3):
            await recomputation.take(kept(records[at : at + 3]))
        return recomputation.result()

    return asyncio.run(run())


def why(one: Record, by: Route, *others: Record, cohorts: Mapping[str, Cohort] | None = None) -> str:
    """Return what is said of one record; nothing when its decision follows. `others` come before it."""
    found = recompute([*others, one], {7: by}, cohorts)
    assert found.checked == len(others) + 1
    assert found.differ == len(found.differences)
    return found.differences[0].why if found.differences else ""


def test_a_decision_that_the_rules_give_is_no_difference() -> None:
    assert why(record(), route()) == ""


def test_a_split_that_gives_another_version_is_a_difference_in_words() -> None:
    said = why(record(intended="2", served="2", attempts=(Attempt("2", "onnx", 9, 200),)), route())
    assert said == (
        "the record says version 2 by split; the rules give version 1 by split: "
        "smallest rendezvous score of the routing key"
    )


def test_a_difference_says_which_record_it_is_of() -> None:
    found = recompute([record(intended="2")], {7: route()})
    assert (found.records, found.checked, found.differ, found.left_out) == (1, 1, 1, 0)
    [one] = found.differences
    assert (one.record_id, one.request_id, one.role, one.model, one.revision, one.received_ns) == (
        "r-1",
        "q-1",
        "primary",
        "fraud",
        7,
        RECEIVED_NS,
    )


def test_the_rules_of_the_records_own_revision_count() -> None:
    found = recompute([record(), record(revision=8)], {7: route(), 8: route(split={"2": 10_000})})
    assert [one.revision for one in found.differences] == [8]


@pytest.mark.parametrize(
    ("fields", "holds"),
    [
        ({"unit": unit_digest("u-17").hex()}, True),
        ({"headers": {"x-tenant": "acme"}}, True),
        ({"headers": {"x-tenant": "other"}}, False),
        ({"record_id": "u-17", "unit": unit_digest("u-17").hex(), "keyed": False}, False),
        ({"unit": unit_digest("u-17").hex(), "received_ns": RECEIVED_NS + 10**9}, False),
    ],
)
def test_a_pin_is_held_against_the_facts_and_the_time_of_the_record(fields: dict[str, Any], holds: bool) -> None:
    pinned = route(pins=[{"cohort": "beta", "version": "3", "expires": "2026-09-21T14:13:21Z"}])
    one = record(
        intended="3",
        served="3",
        reason="pin",
        rule="pins[0]",
        cohort="beta",
        attempts=(Attempt("3", "onnx", 9, 200),),
        **fields,
    )
    said = why(one, pinned, cohorts={"beta": BETA})
    assert (said == "") is holds
    if not holds:
        assert said.startswith("the record says version 3 by pin, rule pins[0], cohort beta; the rules give version ")


def test_a_pin_that_was_passed_over_is_a_difference() -> None:
    one = record(unit=unit_digest("u-17").hex())
    said = why(one, route(pins=[{"cohort": "beta", "version": "3"}]), cohorts={"beta": BETA})
    assert said.endswith(
        "the rules give version 3 by pin, rule pins[0], cohort beta: cohort beta lists the routing key"
    )


def test_a_unit_that_is_not_the_record_ids_is_found_where_there_was_no_key() -> None:
    assert "should be the digest of its record id" in why(record(keyed=False), route())


@pytest.mark.parametrize("unit", ["", "zz" * 16, "ab" * 15])
def test_a_unit_that_is_no_digest_is_a_difference(unit: str) -> None:
    assert why(record(unit=unit), route()) == "its unit is no digest of 16 bytes, so no rule can have decided by it"


# ── versions that callers name, and refusals ─────────────────────────────────────────────────────────────────────


EXPLICIT: dict[str, Any] = {"asked_version": "2", "reason": "explicit", "rule": "client_versions", "intended": "2"}
REFUSED: dict[str, Any] = {
    "asked_version": "2",
    "outcome": "refused",
    "intended": None,
    "served": None,
    "reason": None,
    "rule": None,
    "attempts": (),
}


def test_a_version_named_by_the_caller_is_right_where_the_route_allows_and_names_it() -> None:
    served = record(**EXPLICIT, served="2", attempts=(Attempt("2", "onnx", 9, 200),))
    assert why(served, route()) == ""
    assert "the rules give a refusal" in why(served, route(client_versions="deny"))
    assert "which the route does not name, and was served" in why(served, route(split={"1": 10_000}))


def test_a_refusal_of_named_versions_is_right_only_where_the_route_denies_them() -> None:
    refused = record(**REFUSED, status=403, error_code="version_not_allowed")
    assert why(refused, route(client_versions="deny")) == ""
    assert why(refused, route()) == (
        "the record says a refusal (version_not_allowed); the rules give version 2 by explicit, rule client_versions: "
        "the caller named version 2; the route allows that"
    )


def test_a_refusal_of_an_unknown_version_is_right_where_the_route_does_not_name_it() -> None:
    refused = record(**REFUSED, status=404, error_code="unknown_version")
    assert why(refused, route(split={"1": 10_000})) == ""
    named = recompute([refused], {7: route()})
    assert named.checked == 0
    assert named.unchecked == {"it was refused for a version that is not registered, though the route names it": 1}
    assert "the record says a refusal (unknown_version)" in why(refused, route(client_versions="deny"))


def test_requests_without_a_decision_are_counted_by_why() -> None:
    unknown = record(revision=None, unit=None, error_code="unknown_model", outcome="refused")
    large = record(unit=None, error_code="body_too_large", outcome="refused")
    broken = record(**REFUSED | {"outcome": "failed"}, error_code="internal_error")
    found = recompute([unknown, large, broken, record()], {7: route()})
    assert (found.records, found.checked, found.differ) == (4, 1, 0)
    assert found.undecided == {
        "refused before anything was decided (unknown_model)": 1,
        "refused before anything was decided (body_too_large)": 1,
    }
    assert found.unchecked == {"it failed while it was being decided (internal_error)": 1}


def test_control_records_are_none_of_the_records() -> None:
    assert recompute([record(role="control", action="audit.list", revision=None)], {}).records == 0


# ── which versions were tried ────────────────────────────────────────────────────────────────────────────────────


def tried(*attempts: tuple[str, int | None, str | None], served: str | None, **fields: Any) -> Record:
    made = tuple(Attempt(version, "onnx", 9, status, error) for version, status, error in attempts)
    return record(**{"attempts": made, "served": served} | fields)


def test_a_fallback_has_to_be_in_the_routes_list_and_in_its_order() -> None:
    by = route(fallback=["2", "3"])
    failed = ("1", None, "model_failed")
    assert why(tried(failed, ("2", 200, None), served="2"), by) == ""
    assert why(tried(failed, ("3", 200, None), served="3"), by) == ""
    assert why(tried(failed, ("2", 502, None), ("3", 200, None), served="3"), by) == ""
    assert "version 4 was tried" in why(tried(failed, ("4", 200, None), served="4"), by)
    assert "version 2 was tried" in why(tried(failed, ("3", None, "x"), ("2", 200, None), served="2"), by)
    assert why(tried(failed, served="4"), by) == (
        "version 4 was tried, or served, out of turn: the route allows 1, then 2, then 3"
    )


def test_a_fallback_after_an_answer_is_a_difference() -> None:
    said = why(tried(("1", 200, None), ("2", 200, None), served="2"), route(fallback=["2"]))
    assert said == "version 2 was tried though version 1 had answered"


def test_a_version_named_by_the_caller_has_no_fallback() -> None:
    one = tried(("2", None, "model_failed"), ("1", 200, None), served="1", **EXPLICIT)
    assert "the route allows 2" in why(one, route(fallback=["1"]))


def test_a_request_that_no_version_answered_is_checked_all_the_same() -> None:
    assert why(tried(("1", None, "model_failed"), served=None, outcome="failed"), route()) == ""
    assert why(tried(served=None, outcome="failed"), route()) == ""


# ── shadows ──────────────────────────────────────────────────────────────────────────────────────────────────────


def copy_of(primary: str, version: str = "3", **fields: Any) -> Record:
    given: dict[str, Any] = {
        "record_id": "s-1",
        "role": "shadow",
        "primary_id": primary,
        "intended": version,
        "served": version,
        "reason": "shadow",
        "rule": "shadows",
    }
    return record(**(given | fields))


def test_a_shadow_is_right_when_the_sample_takes_its_primary() -> None:
    by = route(shadows=[{"version": "3", "sample": 5000}])
    taken = next(name for name in map(str, range(100)) if shadow_hit("fraud", name, "3", 5000))
    left = next(name for name in map(str, range(100)) if not shadow_hit("fraud", name, "3", 5000))
    assert why(copy_of(taken), by) == ""
    assert why(copy_of(left), by) == (f"it is a copy to version 3, whose sample of 50 % does not take request {left}")
    assert "which is no shadow of the route" in why(copy_of(taken, "4"), by)


def test_the_version_that_served_is_never_its_own_shadow() -> None:
    by = route(shadows=[{"version": "1", "sample": 10_000}])
    assert "which served the request itself" in why(copy_of("r-1", "1"), by, record())
    assert why(copy_of("r-0", "1"), by) == ""  # its primary lies outside the stretch, so nobody can tell


@pytest.mark.parametrize("fields", [{"primary_id": None}, {"intended": None}, {"reason": "split"}])
def test_a_shadow_that_does_not_say_what_it_copies_is_a_difference(fields: dict[str, Any]) -> None:
    assert "this one does not" in why(copy_of("r-1", **fields), route())


# ── diverted by the brake ────────────────────────────────────────────────────────────────────────────────────────

BRAKED: dict[str, Any] = {
    "reason": "brake",
    "rule": "brake",
    "intended": "1",
    "served": "2",
    "braked": ("1",),
    "attempts": (Attempt("2", "onnx", 9, 200),),
}


def test_a_diversion_that_follows_from_the_braked_versions_is_no_difference() -> None:
    assert why(record(**BRAKED), route(brake=BRAKE)) == ""


def test_a_diversion_on_a_route_without_a_brake_is_a_difference() -> None:
    assert "the rules give version 1 by split" in why(record(**BRAKED), route())


def test_a_diversion_from_a_version_that_was_not_braked_is_a_difference() -> None:
    assert "the rules give version 1 by split" in why(record(**BRAKED | {"braked": ("2",)}), route(brake=BRAKE))


def test_a_diversion_to_a_version_that_the_hashing_does_not_give_is_a_difference() -> None:
    said = why(record(**BRAKED | {"served": "1", "attempts": (Attempt("1", "onnx", 9, 200),)}), route(brake=BRAKE))
    assert said == "version 1 was tried, or served, out of turn: the route allows 2"


def test_a_request_that_was_served_by_a_braked_version_is_a_difference() -> None:
    assert "the rules give version 1 by brake" in why(record(braked=("1",)), route(brake=BRAKE))


# ── what nobody can tell, and long lists ─────────────────────────────────────────────────────────────────────────


def test_records_of_rules_that_nobody_knows_are_counted_with_the_reason() -> None:
    found = recompute([record(revision=3), record(revision=3), record()], {7: route()})
    assert (found.checked, found.differ) == (1, 0)
    assert found.unchecked == {"revision 3 of fraud is not kept": 2}


def test_reasons_are_told_apart_up_to_a_bound() -> None:
    found = recompute([record(revision=revision) for revision in range(100, 100 + MOST_REASONS + 5)], {})
    assert len(found.unchecked) == MOST_REASONS + 1
    assert found.unchecked[OTHERS] == 5
    assert sum(found.unchecked.values()) == found.records == MOST_REASONS + 5


def test_differences_are_listed_up_to_a_bound_and_all_counted() -> None:
    found = recompute([record(intended="2")] * (MOST_LISTED + 7), {7: route()})
    assert (found.differ, len(found.differences), found.left_out) == (MOST_LISTED + 7, MOST_LISTED, 7)


KEYS = st.text(min_size=1, max_size=8)


@given(
    key=KEYS,
    keyed=st.booleans(),
    tenant=st.sampled_from([None, "acme", "other"]),
    asked=st.sampled_from([None, "1", "2"]),
    deny=st.booleans(),
    later=st.booleans(),
    braked=st.lists(st.sampled_from(["1", "2"]), unique=True).map(sorted).map(tuple),
    brake=st.booleans(),
)
def test_every_decision_of_the_code_that_serves_is_found_right_and_no_other_is(  # noqa: PLR0917 - drawn one by one
    key: str,
    keyed: bool,
    tenant: str | None,
    asked: str | None,
    deny: bool,
    later: bool,
    braked: tuple[str, ...],
    brake: bool,
) -> None:
    by = route(
        pins=[{"cohort": "beta", "version": "2", "expires": "2026-09-21T14:13:21Z"}],
        client_versions="deny" if deny else "allow",
        brake=BRAKE if brake else None,
    )
    received_ns = RECEIVED_NS + (10**10 if later else 0)
    unit = unit_digest(key if keyed else "r-1")
    headers = {"x-tenant": tenant} if tenant is not None else {}
    facts = Facts(unit, "r-1", received_ns, keyed, asked, headers, braked)
    told: dict[str, Any] = {
        "unit": unit.hex(),
        "keyed": keyed,
        "headers": headers,
        "asked_version": asked,
        "received_ns": received_ns,
        "braked": braked,
    }
    try:
        decision = resolve(by, {"beta": BETA}, facts)
    except VersionDenied:
        told |= {**REFUSED, "asked_version": asked, "error_code": "version_not_allowed"}
    else:
        told |= msgspec.structs.asdict(decision) | {"intended": decision.intended, "served": decision.version}
        told |= {"attempts": (Attempt(decision.version, "onnx", 9, 200),)}
        del told["version"], told["instead_of"]
    right = record(**told)
    assert why(right, by, cohorts={"beta": BETA}) == ""
    if right.reason is not None:
        for field, value in (("intended", "9"), ("reason", "other"), ("rule", "pins[8]"), ("cohort", "other")):
            assert why(msgspec.structs.replace(right, **{field: value}), by, cohorts={"beta": BETA}) != "", field
