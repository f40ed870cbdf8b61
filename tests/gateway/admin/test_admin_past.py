"""History, differences and explanations through the admin port, on the real control plane, archive and audit store."""

from collections.abc import Callable
from typing import Any

from gateway.record import Payload, Record
from routing import unit_digest
from tests.gateway.admin.test_admin_rules import problem

WithAdmin = Callable[..., None]
ROUTE = {"model": "fraud", "split": {"1": 9000, "2": 1000}}
PLACE = "/admin/v1/routes/fraud"
WEIGHTS = (9000, 8000, 7000, 6000)


async def with_history(at: Any) -> int:
    """Have a route that was changed three times; return the revision that made it."""
    await at.register("1", "2")
    async with at.worker():
        for index, weight in enumerate(WEIGHTS):
            route = {**ROUTE, "split": {"1": weight, "2": 10_000 - weight}}
            headers = {"x-actor": "ann", "x-comment": f"step {index}", **({"if-match": "*"} if index else {})}
            made = await at.http.put(PLACE, json=route, headers=headers)
            assert made.status_code in (200, 201), made.text
    return int(made.json()["revision"]) - 3


def test_history_is_listed_newest_first_with_who_when_why_and_what(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        first = await with_history(at)
        listed = (await at.http.get(f"{PLACE}/history")).json()
        assert (listed["model"], listed["next"]) == ("fraud", None)
        assert [one["revision"] for one in listed["revisions"]] == [*range(first + 3, 0, -1)]
        newest = listed["revisions"][0]
        assert (newest["actor"], newest["comment"], newest["preview"]) == ("ann", "step 3", None)
        assert newest["at"].endswith("Z")
        assert len(newest["operation_id"]) == 36
        assert newest["changes"] == [{"kind": "route", "name": "fraud", "outcome": "changed"}]
        assert listed["revisions"][-1]["changes"] == [{"kind": "version", "name": "fraud/1", "outcome": "made"}]
        problem(await at.http.get("/admin/v1/routes/other/history"), 404, "not_found")

    with_admin(test)


def test_pages_of_a_history_join_without_a_gap_when_changes_come_in_between(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        first = await with_history(at)
        for place in (f"{PLACE}/history", "/admin/v1/changes"):
            found, before = [], ""
            while True:
                page = (await at.http.get(f"{place}?limit=2{before}")).json()
                found += [one["revision"] for one in page["revisions"]]
                if page["next"] is None:
                    break
                before = f"&before={page['next']}"
                await at.http.put(f"/admin/v1/cohorts/c-{len(found)}-{place[-3:]}", json={"name": "x"})
            assert found[-first - 3 :] == [*range(first + 3, 0, -1)]
        assert (await at.http.get("/admin/v1/changes?before=1")).json() == {"revisions": [], "next": None}

    with_admin(test)


def test_one_change_is_shown_with_its_documents_before_and_after(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        first = await with_history(at)
        shown = (await at.http.get(f"/admin/v1/changes/{first + 1}")).json()
        assert (shown["revision"], shown["comment"]) == (first + 1, "step 1")
        (change,) = shown["changes"]
        assert (change["before"]["split"]["1"], change["after"]["split"]["1"]) == (9000, 8000)
        made = (await at.http.get(f"/admin/v1/changes/{first}")).json()
        assert made["changes"][0]["before"] is None
        problem(await at.http.get("/admin/v1/changes/999"), 404, "not_found")
        problem(await at.http.get("/admin/v1/changes/0"), 404, "not_found")

    with_admin(test)


def test_route_of_the_past_is_shown_under_the_revision_that_made_it(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        first = await with_history(at)
        await at.http.put("/admin/v1/cohorts/beta", json={"name": "beta", "keys": ["u-1"]})
        then = await at.http.get(f"{PLACE}?revision={first + 1}")
        assert (then.headers["etag"], then.json()["split"]["1"]) == (f'"{first + 1}"', 8000)
        now = await at.http.get(f"{PLACE}?revision={first + 4}")
        assert (now.headers["etag"], now.json()["split"]["1"]) == (f'"{first + 3}"', 6000)
        missing = problem(await at.http.get(f"{PLACE}?revision=999"), 404, "not_found")
        assert str(first + 4) in missing["detail"]
        problem(await at.http.get(f"{PLACE}?revision=1"), 404, "not_found")

    with_admin(test)


def test_difference_is_shown_field_by_field_between_revisions_and_to_now(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        first = await with_history(at)
        found = (await at.http.get(f"{PLACE}/diff?from={first}&to={first + 1}")).json()
        assert found == {
            "model": "fraud",
            "from": first,
            "to": first + 1,
            "differences": [
                {"path": 'split["1"]', "before": 9000, "after": 8000},
                {"path": 'split["2"]', "before": 1000, "after": 2000},
            ],
        }
        now = (await at.http.get(f"{PLACE}/diff?from={first}")).json()
        assert (now["to"], now["differences"][0]["after"]) == (None, 6000)
        pinned = {**ROUTE, "split": {"2": 10_000}}
        await at.http.put(PLACE, json=pinned, headers={"if-match": "*"})
        gone = (await at.http.get(f"{PLACE}/diff?from={first}")).json()["differences"]
        assert {"path": 'split["1"]', "before": 9000} in gone

    with_admin(test)


# ── explain ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_decision_of_the_past_is_explained_by_the_rules_of_that_revision_or_time(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        first = await with_history(at)
        await at.http.put(PLACE, json={**ROUTE, "split": {"2": 10_000}}, headers={"if-match": "*"})
        place = f"{PLACE}/explain"
        now = (await at.http.post(place, json={"key": "u-1"})).json()
        assert (now["decision"]["version"], now["moment"]) == ("2", "now")
        then = (await at.http.post(place, json={"key": "u-1", "at": first})).json()
        assert (then["revision"], then["rules_revision"], then["moment"]) == (first, first, "revision")
        assert set(then["scores"]) == {"1", "2"}
        made = (await at.http.get(f"/admin/v1/changes/{first + 1}")).json()["at"]
        timed = (await at.http.post(place, json={"key": "u-1", "at": made})).json()
        assert (timed["revision"], timed["moment"], timed["at"]) == (first + 1, "time", made)
        for wrong in (0, True, "yesterday", "2026-01-01T00:00:00", 1.5, [1]):
            refused = await at.http.post(place, json={"key": "u-1", "at": wrong})
            assert problem(refused, 422, "invalid_document")["path"] == "at", wrong
        missing = await at.http.post(place, json={"key": "u-1", "at": 999})
        assert problem(missing, 404, "not_found")

    with_admin(test)


def test_recorded_request_is_explained_by_its_own_facts_and_compared_with_its_record(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        first = await with_history(at)
        unit = unit_digest("u-1").hex()
        chosen = (await at.http.post(f"{PLACE}/explain", json={"key": "u-1", "at": first})).json()["decision"]
        empty = Payload(0)
        recorded = Record(
            record_id="r-1",
            request_id="order-1",
            role="primary",
            received_ns=1_764_000_000_000_000_000,
            model="fraud",
            protocol="oip-v2",
            outcome="served",
            status=200,
            request=empty,
            response=empty,
            intended=chosen["version"],
            served=chosen["version"],
            revision=first,
            rules_revision=first,
            reason="split",
            rule="split",
            unit=unit,
            keyed=True,
        )
        at.record(recorded)
        assert (await at.http.get("/admin/v1/audit/requests/order-1")).status_code == 200
        found = (await at.http.post(f"{PLACE}/explain", json={"request_id": "order-1"})).json()
        assert (found["decision"], found["agrees"], found["moment"]) == (chosen, True, "record")
        assert found["recorded"]["record_id"] == "r-1"
        assert found["at"] == "2025-11-24T16:00:00.000000Z"
        both = await at.http.post(f"{PLACE}/explain", json={"request_id": "order-1", "key": "u-1"})
        assert problem(both, 422, "invalid_document")["path"] == "request_id"
        problem(await at.http.post(f"{PLACE}/explain", json={"request_id": "nobody"}), 404, "not_found")

    with_admin(test)
