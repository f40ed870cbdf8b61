"""Who moves when rules change: exactly those whose decision differs, and none that nobody can tell about."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routing import (
    Decision,
    Facts,
    Looked,
    Move,
    MovedCaller,
    PinMoves,
    RouteRules,
    Seen,
    VersionDenied,
    compare,
    looked_at,
    parse_cohort,
    parse_route,
    resolve,
    unanswered,
    unit_digest,
)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no defect
WHOLE, OTHER = {"1": 10_000}, {"2": 10_000}


def rules(
    split: Mapping[str, int] | None = None, cohorts: Sequence[Mapping[str, Any]] = (), **fields: Any
) -> RouteRules:
    parsed = [parse_cohort(cohort) for cohort in cohorts]
    route = parse_route({"model": "fraud", "split": split or WHOLE, **fields})
    return RouteRules(route, {cohort.name: cohort for cohort in parsed})


def facts(key: str, asked: str | None = None, keyed: bool = True, received_ns: int = 1, **headers: str) -> Facts:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Facts(unit_digest(key), key, received_ns, keyed, asked, sent)


def seen(key: str, looked: Looked | None = None, **fields: Any) -> Seen:
    return Seen(facts(key, **fields), looked)


# ── against truth ────────────────────────────────────────────────────────────────────────────────────────────────

keys = st.sampled_from([f"u-{number}" for number in range(6)])
values = st.sampled_from(["acme", "test"])
cohorts = st.fixed_dictionaries(
    {"name": st.sampled_from(["beta", "staff"])},
    optional={
        "keys": st.lists(keys, max_size=3, unique=True),
        "match": st.lists(
            st.fixed_dictionaries({"header": st.just("x-tenant"), "in": st.lists(values, min_size=1, unique=True)}),
            max_size=1,
        ),
    },
)
routes = st.fixed_dictionaries(
    {
        "split": st.integers(0, 10_000).map(lambda weight: {"1": weight, "2": 10_000 - weight}),
        "salt": st.sampled_from(["fraud", "other"]),
        "client_versions": st.sampled_from(["allow", "deny"]),
        "pins": st.lists(
            st.fixed_dictionaries(
                {"cohort": st.sampled_from(["beta", "staff"]), "version": st.sampled_from(["1", "2", "3"])},
                optional={"expires": st.just("1970-01-01T00:00:01Z")},
            ),
            max_size=3,
        ),
    }
)
all_rules = st.none() | st.tuples(routes, st.lists(cohorts, max_size=2, unique_by=lambda cohort: cohort["name"]))
requests = st.builds(
    lambda key, asked, keyed, received, tenant: facts(
        key, asked, keyed, received, **({"x_tenant": tenant} if tenant else {})
    ),
    keys,
    st.none() | st.sampled_from(["1", "9"]),
    st.booleans(),
    st.sampled_from([1, 2_000_000_000]),
    st.none() | values,
)


def built(found: tuple[dict[str, Any], list[dict[str, Any]]] | None) -> RouteRules:
    return RouteRules() if found is None else rules(cohorts=found[1], **found[0])


def truth(under: RouteRules, about: Facts) -> Decision | None:
    try:
        return resolve(under.route, under.cohorts, about) if under.route is not None else None
    except VersionDenied:
        return None


def version(decision: Decision | None) -> str | None:
    return decision.version if decision is not None else None


@unhurried
@given(all_rules, all_rules, st.lists(requests, max_size=12))
def test_those_who_move_are_exactly_those_whose_decision_differs(before: Any, after: Any, about: list[Facts]) -> None:
    present, proposed = built(before), built(after)
    found = compare([Seen(one) for one in about], present, proposed)
    ways = [(version(truth(present, one)), version(truth(proposed, one))) for one in about]
    moving = [way for way in ways if way[0] != way[1]]
    newest = {one.unit: way for one, way in reversed([*zip(about, ways, strict=True)]) if one.keyed}
    assert found.requests == len(about)
    assert found.keyed_requests == sum(one.keyed for one in about)
    assert found.callers == len(newest)
    assert found.requests_moved == len(moving) == sum(row.requests for row in found.moves)
    assert {one.unit: (one.before, one.after) for one in found.moved} == {
        unit: way for unit, way in newest.items() if way[0] != way[1]
    }
    assert sum(row.callers for row in found.moves) == len(found.moved)
    assert {(row.before, row.after) for row in found.moves} == set(moving)
    assert found.undecidable_requests == 0


@unhurried
@given(all_rules, st.lists(requests, max_size=12))
def test_nobody_moves_when_nothing_changes(same: Any, about: list[Facts]) -> None:
    found = compare([Seen(one) for one in about], built(same), built(same))
    assert (found.requests_moved, found.moved, found.moves, found.pins) == (0, (), (), PinMoves())


# ── what is counted ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_caller_counts_by_its_first_request_and_with_those_of_its_requests_that_move() -> None:
    staff = {"name": "staff", "match": [{"header": "x-tenant", "in": ["acme"]}]}
    present, proposed = rules(), rules(cohorts=[staff], pins=[{"cohort": "staff", "version": "2"}])
    ann = [seen("ann", x_tenant="acme"), seen("ann"), seen("ann", x_tenant="acme")]
    bob = [seen("bob"), seen("bob", x_tenant="acme")]
    nobody = [seen("r-1", keyed=False, x_tenant="acme")]
    found = compare([*ann, *bob, *nobody], present, proposed)
    assert found.moved == (MovedCaller(unit_digest("ann"), "1", "2", 2),)
    assert found.moves == (Move("1", "2", callers=1, requests=4),)
    assert (found.requests, found.keyed_requests, found.callers, found.requests_moved) == (6, 5, 2, 4)
    assert found.pins == PinMoves(gained=1)


def test_a_request_without_a_routing_key_moves_as_a_request_and_as_no_caller() -> None:
    moves = compare([seen("some record", keyed=False)], rules(), rules(OTHER))
    assert (moves.requests, moves.keyed_requests, moves.callers) == (1, 0, 0)
    assert (moves.requests_moved, moves.moved) == (1, ())
    assert moves.moves == (Move("1", "2", 0, 1),)


def test_requests_collected_alike_are_judged_alike() -> None:
    looked = looked_at(rules())
    moves = compare([seen("ann", looked), seen("bob", looked)], rules(), rules(OTHER))
    assert (moves.undecidable_requests, len(moves.moved)) == (0, 2)


def test_callers_of_most_requests_and_moves_of_most_callers_come_first() -> None:
    tenants = [{"name": name, "keys": [f"{name}-{n}" for n in range(3)]} for name in ("a", "b")]
    pins = [{"cohort": "a", "version": "2"}, {"cohort": "b", "version": "3"}]
    about = [seen(key) for key in ("b-0", "a-0", "b-1", "b-1", "b-1", "c-0")]
    found = compare(about, rules(), rules(cohorts=tenants, pins=pins))
    assert [one.requests for one in found.moved] == [3, 1, 1]
    assert found.moved[0].unit == unit_digest("b-1")
    assert [(row.after, row.callers, row.requests) for row in found.moves] == [("3", 2, 4), ("2", 1, 1)]


def test_pins_are_told_apart_by_cohort_and_version_and_not_by_their_place() -> None:
    named = [{"name": name, "keys": [name]} for name in ("stays", "goes", "other", "comes")]
    before = [{"cohort": name, "version": "1"} for name in ("stays", "goes", "other")]
    after = [
        {"cohort": "comes", "version": "1"},
        {"cohort": "other", "version": "2"},
        {"cohort": "stays", "version": "1"},
    ]
    about = [seen(name) for name in ("stays", "goes", "other", "comes")]
    found = compare(about, rules(cohorts=named, pins=before), rules(cohorts=named, pins=after))
    assert found.pins == PinMoves(gained=1, lost=1, changed=1)
    assert [one.unit for one in found.moved] == [unit_digest("other")]  # the others keep their version, pinned or not


def test_who_is_refused_goes_to_no_version_and_who_has_no_route_comes_from_none() -> None:
    asking = [seen("ann", asked="1")]
    refused = compare(asking, rules(), rules(client_versions="deny"))
    assert refused.moves == (Move("1", None, 1, 1),)
    assert compare(asking, RouteRules(), rules()).moves == (Move(None, "1", 1, 1),)
    assert compare(asking, rules(), rules(OTHER)).moves == ()  # who names a version keeps it


# ── what cannot be told ──────────────────────────────────────────────────────────────────────────────────────────

TENANT = {"name": "staff", "match": [{"header": "X-Tenant", "in": ["acme"]}]}
PINNED = [{"cohort": "staff", "version": "2"}]


def test_requests_are_undecidable_when_the_new_rules_look_at_a_header_that_the_old_ones_did_not() -> None:
    present, proposed = rules(), rules(cohorts=[TENANT], pins=PINNED)
    looked = looked_at(present)
    about = [seen("ann", looked), seen("bob", looked, asked="1"), seen("r-1", looked, keyed=False)]
    found = compare(about, present, proposed)
    assert (found.undecidable_requests, found.unknown_headers) == (2, ("x-tenant",))
    assert (found.requests, found.callers, found.requests_moved, found.moved) == (3, 2, 0, ())
    back = compare([seen("ann", looked_at(proposed), x_tenant="acme")], proposed, present)
    assert (back.undecidable_requests, back.requests_moved) == (0, 1)


def test_a_caller_whose_newest_request_is_undecidable_does_not_move_though_an_older_request_does() -> None:
    present, proposed = rules(), rules(cohorts=[TENANT], pins=PINNED)
    about = [seen("ann", looked_at(present)), seen("ann", looked_at(proposed), x_tenant="acme")]
    found = compare(about, present, proposed)
    assert (found.moved, found.requests_moved, found.undecidable_requests) == ((), 1, 1)


def test_nothing_is_known_of_facts_that_were_collected_nobody_knows_how() -> None:
    found = compare([seen("ann", Looked())], rules(), rules(OTHER))
    assert (found.undecidable_requests, found.unknown_headers) == (1, ("x-routing-key",))


def test_nothing_is_asked_of_facts_when_the_model_has_no_route() -> None:
    assert looked_at(RouteRules()) == Looked()
    assert compare([seen("ann", Looked())], RouteRules(), RouteRules()).undecidable_requests == 0


@pytest.mark.parametrize(
    ("recorded", "wanted", "keyed", "lacking"),
    [
        (["a", "b"], ["a", "b"], True, set()),
        (["a", "b"], ["a", "b"], False, set()),
        (["a"], ["a", "b"], True, set()),  # whoever had a key had it from the first source
        (["a"], ["a", "b"], False, {"b"}),
        (["a", "b"], ["b", "a"], True, {"a", "b"}),
        (["a", "b"], ["b", "a"], False, set()),
        (["a", "b"], ["a"], True, {"a"}),
        (["a", "b"], ["a"], False, set()),
        (["a"], ["b"], False, {"b"}),
    ],
)
def test_a_routing_key_is_known_only_when_its_sources_were_tried_first(
    recorded: list[str], wanted: list[str], keyed: bool, lacking: set[str]
) -> None:
    def sources(names: list[str]) -> Looked:
        return looked_at(rules(key=[{"header": name.upper()} for name in names]))

    assert unanswered(sources(wanted), sources(recorded), keyed) == lacking


# ── how many move ────────────────────────────────────────────────────────────────────────────────────────────────

CALLERS = [Seen(facts(f"caller-{number}")) for number in range(20_000)]


def test_a_tenth_more_for_one_version_moves_at_most_twelve_in_a_hundred() -> None:
    before, after = rules({"1": 8_000, "2": 1_000, "3": 1_000}), rules({"1": 7_000, "2": 1_000, "3": 2_000})
    found = compare(CALLERS, before, after)
    assert 0.10 * found.callers <= len(found.moved) <= 0.12 * found.callers
    assert {(row.before, row.after) for row in found.moves} <= {("1", "3"), ("2", "3"), ("1", "2")}


def test_from_ninety_ten_to_halves_nobody_goes_back() -> None:
    found = compare(CALLERS, rules({"1": 9_000, "2": 1_000}), rules({"1": 5_000, "2": 5_000}))
    assert [(row.before, row.after) for row in found.moves] == [("1", "2")]


@unhurried
@given(all_rules, all_rules, st.lists(requests, max_size=12))
def test_a_rollback_takes_everybody_back_to_where_they_came_from(before: Any, after: Any, about: list[Facts]) -> None:
    there = compare([Seen(one) for one in about], built(before), built(after))
    back = compare([Seen(one) for one in about], built(after), built(before))
    assert {(one.unit, one.before, one.after) for one in there.moved} == {
        (one.unit, one.after, one.before) for one in back.moved
    }
