"""Changes of many documents, terms, going back and confirming through the admin port, on the real control plane."""

import asyncio
import json
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from gateway.admin.bodies import MANY_BYTES
from tests.gateway.admin.test_admin_rules import problem

WithAdmin = Callable[..., None]
ROUTE = {"model": "fraud", "split": {"1": 9000, "2": 1000}}
PLACE = "/admin/v1/routes/fraud"
CHANGES = "/admin/v1/changes"


async def with_route(at: Any) -> int:
    """Have versions 1 and 2 and a route of 90/10; return its revision."""
    await at.register("1", "2")
    async with at.worker():
        made = await at.http.put(PLACE, json=ROUTE)
    return int(made.json()["revision"])


def split(first: int) -> dict[str, Any]:
    return {**ROUTE, "split": {"1": first, "2": 10_000 - first}}


# ── many documents ───────────────────────────────────────────────────────────────────────────────────────────────


def test_documents_of_every_kind_come_into_force_together_as_one_revision(with_admin: WithAdmin) -> None:
    documents = [
        {"name": "beta", "keys": ["u-17"]},
        {**ROUTE, "pins": [{"cohort": "beta", "version": "2"}]},
    ]

    async def test(at: Any) -> None:
        async with at.worker():
            versions = [at.manifest("1"), at.manifest("2", hyperparameters={"seed": 2**70 + 1})]
            made = await at.http.post(CHANGES, json={"documents": [*documents, *versions]})
            assert (made.status_code, made.json()["revision"]) == (200, 1), made.text
            assert [(one["kind"], one["name"], one["outcome"]) for one in made.json()["documents"]] == [
                ("cohort", "beta", "made"),
                ("route", "fraud", "made"),
                ("version", "fraud/1", "made"),
                ("version", "fraud/2", "made"),
            ]
            assert (await at.http.get(PLACE)).headers["etag"] == '"1"'
            assert f'"seed":{2**70 + 1}' in (await at.http.get("/admin/v1/models/fraud/versions/2")).text
            again = await at.http.post(CHANGES, json={"documents": [*documents, *versions]})
            assert (again.json()["changed"], again.json()["revision"]) == (False, 1)

    with_admin(test)


def test_nothing_is_applied_when_one_of_the_documents_does_not_fit(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        unfit = {**ROUTE, "shadows": [{"version": "nine", "sample": 1}]}
        refused = await at.http.post(CHANGES, json={"documents": [{"name": "beta", "keys": ["u-1"]}, unfit]})
        detail = problem(refused, 422, "invalid_document")
        assert detail["path"] == "shadows[0].version"
        assert detail["detail"].startswith("route fraud: shadows[0].version")
        assert detail["revision"] == 0
        problem(await at.http.get("/admin/v1/cohorts/beta"), 404, "not_found")

    with_admin(test)


def test_dry_run_says_what_would_change_with_the_revisions_to_expect_and_changes_nothing(
    with_admin: WithAdmin,
) -> None:
    async def test(at: Any) -> None:
        revision = await with_route(at)
        body = {"documents": [split(5000), {"name": "beta", "keys": ["u-1"]}]}
        tried = await at.http.post(CHANGES, json={**body, "dry_run": True})
        assert (tried.status_code, tried.json()["dry_run"], tried.json()["changed"]) == (200, True, True)
        assert "etag" not in tried.headers
        assert tried.json()["documents"] == [
            {"kind": "route", "name": "fraud", "outcome": "changed", "was": revision},
            {"kind": "cohort", "name": "beta", "outcome": "made", "was": None},
        ]
        assert (await at.http.get(PLACE)).json()["split"] == ROUTE["split"]
        required = problem(await at.http.post(CHANGES, json=body), 428, "revision_required")
        assert required["revision"] == revision
        stale = await at.http.post(CHANGES, json={**body, "expect": {"route/fraud": revision - 1}})
        assert problem(stale, 412, "revision_conflict")["revision"] == revision
        made = await at.http.post(CHANGES, json={**body, "expect": {"route/fraud": revision}})
        assert made.json()["revision"] == revision + 1

    with_admin(test)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{}", "documents"),
        (b'{"documents": []}', "documents"),
        (b'{"documents": [1]}', "documents[0]"),
        (b'{"documents": [{}], "dryrun": true}', "dryrun"),
        (b'{"documents": [{}], "dry_run": 1}', "dry_run"),
        (b'{"documents": [{}], "max_moves": -1}', "max_moves"),
        (b'{"documents": [{}], "confirm_within_s": 0}', "confirm_within_s"),
        (b'{"documents": [{}], "confirm_within_s": 604801}', "confirm_within_s"),
        (b'{"documents": [{}], "expect": {"route/fraud": "7"}}', 'expect["route/fraud"]'),
        (b'{"documents": [{}], "documents": [{}]}', "documents"),
        (b'{"documents": [{"split": {"1": 1, "1": 2}}]}', "documents[0].split.1"),
        (b"[]", ""),
        (b"{", ""),
    ],
)
def test_body_of_a_change_is_refused_with_the_path_of_the_field(with_admin: WithAdmin, body: bytes, path: str) -> None:
    async def test(at: Any) -> None:
        refused = problem(await at.http.post(CHANGES, content=body), 422, "invalid_document")
        assert refused.get("path", "").replace('["1"]', ".1") == path

    with_admin(test)


def test_many_documents_may_be_larger_together_than_one_and_no_larger_than_their_limit(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        large = {"documents": [{"name": f"c-{n}", "keys": ["k" * 1000 + str(n)]} for n in range(400)]}
        padded = json.dumps(large).encode() + b" " * (17 * 2**20)
        assert (await at.http.post(CHANGES, content=padded)).json()["revision"] == 1
        refused = await at.http.post(CHANGES, content=b" " * (MANY_BYTES + 1))
        assert "send fewer" in problem(refused, 413, "body_too_large")["detail"]

    with_admin(test)


# ── terms ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_route_and_cohort_are_only_tried_when_it_is_a_dry_run(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        revision = await with_route(at)
        tried = await at.http.put(f"{PLACE}?dry_run=true", json=split(5000), headers={"if-match": f'"{revision}"'})
        assert (tried.status_code, tried.json()["changed"], tried.json()["dry_run"]) == (200, True, True)
        assert (await at.http.get(PLACE)).headers["etag"] == f'"{revision}"'
        cohort = await at.http.put("/admin/v1/cohorts/beta?dry_run=true", json={"name": "beta", "keys": ["u-1"]})
        assert cohort.json()["documents"][0]["outcome"] == "made"
        problem(await at.http.get("/admin/v1/cohorts/beta"), 404, "not_found")

    with_admin(test)


def test_parameter_that_nobody_knows_or_that_does_not_fit_is_refused_by_name(with_admin: WithAdmin) -> None:
    unfit = (
        ("PUT", f"{PLACE}?dryrun=true", "dryrun: unknown parameter; known here: dry_run, preview"),
        ("PUT", f"{PLACE}?dry_run=yes", "dry_run: expected true or false"),
        ("PUT", f"{PLACE}?dry_run=true&dry_run=false", "dry_run: the parameter stands twice"),
        ("PUT", f"{PLACE}?max_moves=-1", "max_moves: expected a whole number of 0 or more"),
        ("PUT", f"{PLACE}?max_moves=%D9%A1", "max_moves: expected"),
        ("PUT", f"{PLACE}?confirm_within_s=604801", "confirm_within_s: expected a whole number of 1 to 604800"),
        ("GET", f"{PLACE}?revision=0", "revision: expected"),
        ("GET", f"{PLACE}/history?limit=501", "limit: expected a whole number of 1 to 500"),
        ("GET", f"{PLACE}/history?befor=7", "befor: unknown parameter; known here: before, limit"),
        ("GET", f"{PLACE}/diff?to=7", "from: name the revision"),
        ("GET", "/admin/v1/models?limit=1", "limit: unknown parameter; this call takes none"),
        ("GET", "/admin/v1/changes/newest", "revision: expected the number of a revision"),
        ("POST", "/admin/v1/models/fraud/versions?allow_incomplete=1", "allow_incomplete: expected true or false"),
    )

    async def test(at: Any) -> None:
        for method, place, detail in unfit:
            refused = problem(await at.http.request(method, place, json=ROUTE), 400, "invalid_input")
            assert refused["detail"].startswith(detail), place
        assert (await at.http.get("/metrics?name[]=a")).status_code == 200

    with_admin(test)


def test_change_is_refused_when_more_callers_would_move_than_allowed_and_made_with_its_preview_when_not(
    with_admin: WithAdmin,
) -> None:
    async def test(at: Any) -> None:
        revision = await with_route(at)
        headers = {"if-match": f'"{revision}"'}
        keys = [f"u-{number}" for number in range(100)]
        seen = await at.http.post(f"{PLACE}/preview", json={"documents": [split(5000)], "keys": keys})
        assert 20 < seen.json()["callers_moved"] < 60
        # Nobody was recorded, so nobody is seen to move.
        made = await at.http.put(f"{PLACE}?max_moves=0", json=split(5000), headers=headers)
        assert made.json()["preview"]["models"][0]["sample"]["requests"] == 0
        kept = (await at.http.get(f"{CHANGES}/{made.json()['revision']}")).json()["preview"]
        assert kept["callers_moved"] == 0

    with_admin(test)


# ── going back ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_route_comes_back_as_a_new_revision_when_it_is_rolled_back(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        first = await with_route(at)
        for weight in (8000, 7000):
            await at.http.put(PLACE, json=split(weight), headers={"if-match": "*"})
        back = await at.http.post(f"{PLACE}/rollback", content=b"")
        assert back.json()["revision"] == first + 3
        assert (await at.http.get(PLACE)).json()["split"] == split(8000)["split"]
        tried = await at.http.post(f"{PLACE}/rollback", json={"to": first, "dry_run": True})
        assert tried.json()["documents"][0]["outcome"] == "changed"
        stale = await at.http.post(f"{PLACE}/rollback", json={"to": first}, headers={"if-match": f'"{first}"'})
        assert problem(stale, 412, "revision_conflict")["revision"] == first + 3
        await at.http.post(f"{PLACE}/rollback", json={"to": first}, headers={"if-match": f'"{first + 3}"'})
        assert (await at.http.get(PLACE)).json()["split"] == ROUTE["split"]
        missing = problem(await at.http.post(f"{PLACE}/rollback", json={"to": 999}), 404, "not_found")
        assert str(first + 4) in missing["detail"]
        wrong = await at.http.post(f"{PLACE}/rollback", json={"cohorts": "drop"})
        assert problem(wrong, 422, "invalid_document")["path"] == "cohorts"

    with_admin(test)


def test_unconfirmed_change_refuses_others_until_it_is_confirmed(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        revision = await with_route(at)
        made = await at.http.put(
            f"{PLACE}?confirm_within_s=60", json=split(5000), headers={"if-match": f'"{revision}"'}
        )
        assert made.json()["confirm_within_ms"] == 60_000
        refused = await at.http.put(PLACE, json=split(4000), headers={"if-match": "*"})
        assert problem(refused, 409, "unconfirmed_change")["revision"] == revision + 1
        unknown = await at.http.post(f"{PLACE}/confirm", json={"revision": 7})
        assert problem(unknown, 422, "invalid_document")["path"] == "revision"
        confirmed = await at.http.post(f"{PLACE}/confirm")
        assert confirmed.json() == {"model": "fraud", "revision": revision + 1, "confirmed": True}
        problem(await at.http.post(f"{PLACE}/confirm"), 404, "not_found")
        changed = await at.http.put(PLACE, json=split(4000), headers={"if-match": "*"})
        assert changed.json()["revision"] == revision + 2

    with_admin(test)


def test_unconfirmed_change_is_taken_back_when_nobody_confirms_it(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        revision = await with_route(at)
        body = {"documents": [split(5000)], "expect": {"route/fraud": revision}, "confirm_within_s": 1}
        assert (await at.http.post(CHANGES, json=body)).json()["confirm_within_ms"] == 1000
        made = revision + 1

        deadline = monotonic() + 10.0
        while (await at.http.get(CHANGES)).json()["revisions"][0]["revision"] == made:
            assert monotonic() < deadline, "the change was not taken back"
            await asyncio.sleep(0.02)
        assert (await at.http.get(PLACE)).json()["split"] == ROUTE["split"]
        (last, *_) = (await at.http.get(f"{PLACE}/history")).json()["revisions"]
        assert (last["actor"], last["revision"]) == ("pointsman", made + 1)

    with_admin(test)
