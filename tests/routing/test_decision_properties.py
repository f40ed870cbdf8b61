"""What holds of every decision, whatever the route, the cohorts and the request: Hypothesis looks for exceptions."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from routing import (
    BASIS_POINTS,
    Decision,
    DocumentError,
    Facts,
    Route,
    VersionDenied,
    consulted_headers,
    encode_document,
    explain,
    named_versions,
    parse_cohort,
    parse_route,
    resolve,
    shadows_for,
    unit_digest,
)
from routing.hashing import scores, smallest, winner
from routing.resolve import draw

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no defect

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
versions = st.sampled_from(["1", "2", "10", "v3", "2026-10.a"]) | names
headers = st.sampled_from(["x-tenant", "x-stage", "X-User-Id", "x-routing-key"])
keys = st.text(min_size=1, max_size=12) | st.sampled_from(["u-1", "u-2", "ü"])
texts = st.text(max_size=12) | st.sampled_from(["acme", "test"])
moments = st.datetimes(
    min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.timezones() | st.just(UTC)
)


@st.composite
def splits(draw_from: st.DrawFn, least: int = 1) -> dict[str, int]:
    chosen = draw_from(st.lists(versions, min_size=least, max_size=5, unique=True))
    cuts = sorted(draw_from(st.lists(st.integers(0, BASIS_POINTS), min_size=len(chosen) - 1, max_size=len(chosen) - 1)))
    return {v: high - low for v, low, high in zip(chosen, [0, *cuts], [*cuts, BASIS_POINTS], strict=True)}


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


def unique_by(field: str, entries: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(entries, max_size=4, unique_by=lambda entry: entry[field].lower())


cohort_names = st.sampled_from(["beta", "acme", "Staff", "absent"])
clauses = st.builds(
    lambda header, accepted: {"header": header, "in": accepted},
    headers,
    st.lists(texts, min_size=1, max_size=3, unique=True),
)
cohort_documents = st.builds(
    lambda name, rest: {"name": name, **rest},
    st.sampled_from(["beta", "acme", "Staff"]),
    optional(keys=st.lists(keys, max_size=4, unique=True), match=st.lists(clauses, max_size=2)),
)
pin_documents = st.builds(
    lambda cohort, version, rest: {"cohort": cohort, "version": version, **rest},
    cohort_names,
    versions,
    optional(expires=moments.map(datetime.isoformat), owner=texts, reason=texts),
)
shadow_documents = st.fixed_dictionaries({"version": versions, "sample": st.integers(0, BASIS_POINTS)})
captures = optional(
    request=st.sampled_from(["full", "digest", "none"]),
    max_bytes=st.integers(0, 16 * 2**20),
    redact=st.just(["/a/~1b/0", "/é"]),
)
brakes = st.none() | st.integers(1, 10_000).flatmap(
    lambda of: st.fixed_dictionaries({"failures": st.integers(1, of), "of": st.just(of)})
)
route_documents = st.builds(
    lambda model, split, rest: {"model": model, "split": split, **rest},
    names,
    splits(),
    optional(
        salt=st.text(min_size=1, max_size=20),
        key=unique_by("header", st.fixed_dictionaries({"header": headers})).filter(bool),
        pins=st.lists(pin_documents, max_size=4),
        shadows=unique_by("version", shadow_documents),
        fallback=st.lists(versions, max_size=3, unique=True),
        client_versions=st.sampled_from(["allow", "deny"]),
        timeout_ms=st.integers(1, 3_600_000),
        idempotent=st.booleans(),
        retries=st.integers(0, 3),
        capture=captures,
        brake=brakes,
        slowdown=st.none() | st.integers(2, 1_000),
    ),
)
routes = route_documents.map(parse_route)
cohorts = st.lists(cohort_documents.map(parse_cohort), max_size=3).map(lambda found: {c.name: c for c in found})
facts = st.builds(
    Facts,
    unit=keys.map(unit_digest),
    record_id=st.uuids().map(str),
    received_ns=st.integers(0, 2**62),
    keyed=st.booleans(),
    asked_version=st.none() | versions,
    headers=st.dictionaries(headers.map(str.lower), texts, max_size=3),
)
unasked = facts.map(lambda found: Facts(found.unit, found.record_id, found.received_ns, found.keyed, None))


def after(pin: dict[str, Any], route: dict[str, Any]) -> Route:
    """The route with one more pin, before all others."""
    return parse_route({**route, "pins": [pin, *route.get("pins", [])]})


def nanoseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


@unhurried
@given(routes, cohorts, facts, versions)
def test_a_version_named_by_the_caller_beats_everything_the_route_says(
    route: Route, found: dict[str, Any], about: Facts, asked: str
) -> None:
    assume(route.client_versions == "allow")
    named = Facts(about.unit, about.record_id, about.received_ns, about.keyed, asked, about.headers)
    assert resolve(route, found, named) == Decision(asked, "explicit", "client_versions")


@unhurried
@given(routes, cohorts, facts)
def test_a_named_version_is_refused_exactly_when_the_route_denies_them(
    route: Route, found: dict[str, Any], about: Facts
) -> None:
    try:
        resolve(route, found, about)
        refused = False
    except VersionDenied:
        refused = True
    assert refused is (about.asked_version is not None and route.client_versions == "deny")


@unhurried
@given(route_documents, unasked, versions, st.none() | moments)
def test_a_pin_that_holds_the_caller_always_wins_over_the_split(
    document: dict[str, Any], about: Facts, version: str, expires: datetime | None
) -> None:
    end = expires or EPOCH + timedelta(days=365 * 200)
    caller = Facts(unit_digest("u-9"), about.record_id, min(about.received_ns, nanoseconds(end) - 1))
    pin = {"cohort": "mine", "version": version, **({"expires": expires.isoformat()} if expires else {})}
    found = {"mine": parse_cohort({"name": "mine", "keys": ["u-9"]})}
    assert resolve(after(pin, document), found, caller) == Decision(version, "pin", "pins[0]", "mine")


@unhurried
@given(route_documents, cohorts, unasked, moments, st.integers(0, 2**60))
def test_an_expired_pin_never_decides(
    document: dict[str, Any], found: dict[str, Any], about: Facts, expires: datetime, later: int
) -> None:
    caller = Facts(unit_digest("u-9"), about.record_id, nanoseconds(expires) + later)
    found["mine"] = parse_cohort({"name": "mine", "keys": ["u-9"]})
    pin = {"cohort": "mine", "version": "never", "expires": expires.isoformat()}
    without = resolve(parse_route(document), found, caller)
    decided = resolve(after(pin, document), found, caller)
    assert (decided.version, decided.reason, decided.cohort) == (without.version, without.reason, without.cohort)


@unhurried
@given(routes, cohorts, facts)
def test_explain_agrees_with_resolve_always(route: Route, found: dict[str, Any], about: Facts) -> None:
    explained = explain(route, found, about)
    matched = [step.rule for step in explained.steps if step.matched]
    try:
        decision = resolve(route, found, about)
    except VersionDenied:
        assert (explained.decision, matched, explained.shadows) == (None, [], ())
    else:
        assert explained.decision == decision
        assert matched == [decision.rule] == [explained.steps[-1].rule]
        taken = shadows_for(route, about.record_id, decision.version)
        assert explained.shadows == tuple(shadow.version for shadow in taken)
    assert explained.scores.keys() == {version for version, weight in route.split.items() if weight > 0}
    assert min(explained.scores, key=lambda v: (explained.scores[v], v)) == draw(route, about.unit)


@unhurried
@given(routes, cohorts, facts)
def test_a_decision_needs_no_header_but_the_consulted_ones(route: Route, found: dict[str, Any], about: Facts) -> None:
    kept = {name: value for name, value in about.headers.items() if name in consulted_headers(route, found)}
    less = Facts(about.unit, about.record_id, about.received_ns, about.keyed, about.asked_version, kept)
    assert explain(route, found, less) == explain(route, found, about)


@unhurried
@given(routes, facts, st.none() | versions)
def test_a_shadow_never_equals_the_version_that_served(route: Route, about: Facts, served: str | None) -> None:
    taken = [shadow.version for shadow in shadows_for(route, about.record_id, served)]
    assert served not in taken
    assert [shadow.version for shadow in route.shadows if shadow.version in taken] == taken


@unhurried
@given(routes, cohorts, unasked)
def test_a_decision_names_a_version_that_the_route_names(route: Route, found: dict[str, Any], about: Facts) -> None:
    assert resolve(route, found, about).version in named_versions(route)


@unhurried
@given(splits(least=2), st.data(), st.lists(keys, min_size=20, max_size=40))
def test_a_caller_moves_only_to_the_raised_version_while_the_others_keep_their_ratio(
    split: dict[str, int], data: st.DataObject, callers: list[str]
) -> None:
    raised = data.draw(st.sampled_from(sorted(split)))
    # Halving the weights of all others keeps their ratio when each of them is even.
    others = {version: weight // 4 * 2 for version, weight in split.items() if version != raised}
    before = {**others, raised: BASIS_POINTS - sum(others.values())}
    halved = {version: weight // 2 for version, weight in others.items()}
    later = {**halved, raised: BASIS_POINTS - sum(halved.values())}
    old, new = (parse_route({"model": "m", "split": weights}) for weights in (before, later))
    for caller in callers:
        unit = unit_digest(caller)
        assert draw(new, unit) in {draw(old, unit), raised}


@unhurried
@given(route_documents)
def test_a_route_comes_back_from_its_canonical_json(document: dict[str, Any]) -> None:
    route = parse_route(document)
    encoded = encode_document(route)
    assert parse_route(encoded) == parse_route(json.loads(encoded)) == route
    assert encode_document(parse_route(encoded)) == encoded
    shuffled = {**dict(reversed(document.items())), "split": dict(reversed(document["split"].items()))}
    assert encode_document(parse_route(json.dumps(shuffled, indent=3).encode())) == encoded


@unhurried
@given(cohort_documents)
def test_a_cohort_comes_back_from_its_canonical_json(document: dict[str, Any]) -> None:
    cohort = parse_cohort(document)
    assert parse_cohort(encode_document(cohort)) == cohort
    assert cohort.digests == {unit_digest(key) for key in document.get("keys", [])}


@unhurried
@given(route_documents, st.data())
def test_a_split_whose_sum_is_off_is_refused(document: dict[str, Any], data: st.DataObject) -> None:
    version = data.draw(st.sampled_from(sorted(document["split"])))
    weight = data.draw(st.integers(0, BASIS_POINTS).filter(lambda w: w != document["split"][version]))
    document["split"][version] = weight
    with pytest.raises(DocumentError) as refused:
        parse_route(document)
    assert refused.value.path == "split"


@unhurried
@given(texts, keys, splits(2))
def test_the_winner_is_the_version_of_the_smallest_score(salt: str, key: str, split: dict[str, int]) -> None:
    unit = unit_digest(key)
    assert winner(salt, unit, split) == smallest(scores(salt, unit, split))


@pytest.mark.parametrize("split", [{}, {"1": 0, "2": 0}])
def test_no_split_without_a_weight_has_a_winner(split: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="weight above 0"):
        winner("fraud", unit_digest("u-17"), split)
