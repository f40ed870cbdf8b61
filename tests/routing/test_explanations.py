"""What a route says about itself and about one request: the steps of an explanation, and what a decision looks at."""

from typing import Any

import pytest

from routing import (
    Decision,
    Facts,
    Route,
    Step,
    consulted_headers,
    explain,
    named_versions,
    parse_cohort,
    parse_route,
    routing_key,
    unit_digest,
)

STAGED = [{"header": "X-Tenant", "in": ["acme"]}, {"header": "x-stage", "in": ["test"]}]
COHORTS = {
    "beta": parse_cohort({"name": "beta", "keys": ["u-17"]}),
    "acme": parse_cohort({"name": "acme", "match": STAGED}),
    "idle": parse_cohort({"name": "idle", "match": [{"header": "x-idle", "in": ["yes"]}]}),
}
RECORD = "018f3f6e-5b7a-7c31-9a55-0d2f6b1e4c11"


def route(**fields: Any) -> Route:
    return parse_route({"model": "fraud", "split": {"1": 9_000, "2": 1_000, "3": 0}, **fields})


def facts(key: str | None = "u-17", asked: str | None = None, **headers: str) -> Facts:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Facts(unit_digest(key or RECORD), RECORD, 10**18, key is not None, asked, named)


PINS = [
    {"cohort": "beta", "version": "7", "expires": "2001-09-09T01:46:40Z"},
    {"cohort": "gone", "version": "7"},
    {"cohort": "acme", "version": "8"},
    {"cohort": "beta", "version": "9"},
]


def test_an_explanation_says_of_every_rule_on_the_way_why_it_did_not_match() -> None:
    explained = explain(route(pins=PINS), COHORTS, facts("u-1"))
    assert explained.steps == (
        Step("client_versions", False, "the caller named no version"),
        Step("pins[0]", False, "expired at 2001-09-09T01:46:40+00:00"),
        Step("pins[1]", False, "cohort gone does not exist"),
        Step("pins[2]", False, "the caller is not in cohort acme"),
        Step("pins[3]", False, "the caller is not in cohort beta"),
        Step("split", True, "smallest rendezvous score of the routing key"),
    )


def test_an_explanation_ends_at_the_rule_that_decided() -> None:
    explained = explain(route(pins=PINS), COHORTS, facts())
    assert explained.decision == Decision("9", "pin", "pins[3]", "beta")
    assert explained.steps[-1] == Step("pins[3]", True, "cohort beta lists the routing key")
    by_header = explain(route(pins=PINS), COHORTS, facts(x_tenant="acme", x_stage="test"))
    assert by_header.steps[-1] == Step("pins[2]", True, "every clause of cohort acme holds")


def test_an_explanation_of_a_request_without_a_key_says_what_was_hashed_instead() -> None:
    explained = explain(route(), COHORTS, facts(None))
    assert explained.steps[-1].why == "smallest rendezvous score of the record id (the request has no routing key)"


def test_an_explanation_has_a_score_for_every_version_of_positive_weight_whatever_decided() -> None:
    assert explain(route(), COHORTS, facts(asked="9")).scores.keys() == {"1", "2"}


def test_an_explanation_of_a_named_version_says_whether_the_route_allows_it() -> None:
    allowed = explain(route(), COHORTS, facts(asked="2"))
    assert allowed.steps == (Step("client_versions", True, "the caller named version 2; the route allows that"),)
    refused = explain(route(client_versions="deny"), COHORTS, facts(asked="2"))
    assert refused.steps == (Step("client_versions", False, "the caller named version 2; the route denies that"),)


def test_a_refused_request_is_explained_with_no_shadows() -> None:
    shadows = [{"version": "5", "sample": 10_000}]
    assert explain(route(shadows=shadows), COHORTS, facts(asked="2")).shadows == ("5",)
    assert explain(route(shadows=shadows, client_versions="deny"), COHORTS, facts(asked="2")).shadows == ()


def test_a_route_consults_the_headers_of_its_cohorts_and_of_no_others() -> None:
    assert consulted_headers(route(pins=PINS), COHORTS) == ("x-stage", "x-tenant")
    assert consulted_headers(route(), COHORTS) == ()


def test_a_route_names_every_version_in_whatever_role() -> None:
    whole = route(pins=PINS, shadows=[{"version": "5", "sample": 1}], fallback=["1", "6"])
    assert named_versions(whole) == {"1", "2", "3", "5", "6", "7", "8", "9"}


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"x-session": "s"}, "s"),
        ({"x-user-id": "", "x-session": "s"}, "s"),
        ({"x-user-id": "u", "x-session": "s"}, "u"),
        ({"x-user-id": "", "x-session": ""}, None),
        ({"x-user-id": " "}, " "),
    ],
)
def test_the_first_key_header_that_is_present_and_not_empty_gives_the_key(
    headers: dict[str, str], key: str | None
) -> None:
    assert routing_key(route(key=[{"header": "X-User-Id"}, {"header": "x-session"}]), headers) == key


def test_any_text_has_a_unit_digest() -> None:
    assert len({unit_digest(text) for text in ("\ud800", "\ud801", "", "ü", "?")}) == 5
