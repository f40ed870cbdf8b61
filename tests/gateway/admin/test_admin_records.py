"""Listing records over the admin port: filters, pages, and that whoever looks leaves a trace."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.record import Record
from tests.records import control_record, new_record, shadow_of

WithAdmin = Callable[..., None]
LIST = "/admin/v1/audit/records"


async def listed(at: Any, **params: str) -> list[str]:
    answer = await at.http.get(LIST, params=params)
    assert answer.status_code == 200, answer.text
    return [record["record_id"] for record in answer.json()["records"]]


def names(*records: Record) -> list[str]:
    """Return the ids of records as a listing has them, newest first."""
    ordered = sorted(records, key=lambda record: record.received_ns, reverse=True)
    return [record.record_id for record in ordered]


ONE = new_record(1)
TWO = new_record(2, model="digits", served="2", intended="2", status=502, outcome="failed", client="10.0.0.9")
PINNED = new_record(3, reason="pin", rule="pins[0]", cohort="beta")
COPY = shadow_of(new_record(4), 4)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"model": "digits"}, [TWO]),
        ({"version": "2"}, [TWO]),
        ({"version": "1", "role": "primary"}, [PINNED, ONE]),
        ({"status": "502"}, [TWO]),
        ({"outcome": "failed"}, [TWO]),
        ({"reason": "pin"}, [PINNED]),
        ({"role": "shadow"}, [COPY]),
        ({"caller": "10.0.0.9"}, [TWO]),
        ({"gateway": "gw-a", "role": "primary"}, [PINNED, TWO, ONE]),
        ({"gateway": "another"}, []),
        ({"model": "fraud", "reason": "pin", "status": "200"}, [PINNED]),
    ],
)
def test_only_records_that_fit_every_filter_are_listed(
    with_admin: WithAdmin, params: dict[str, str], expected: list[Record]
) -> None:
    async def test(at: Any) -> None:
        at.record(ONE, TWO, PINNED, COPY)
        assert await listed(at, **params) == names(*expected)

    with_admin(test)


def test_times_bound_a_listing_the_end_excluded(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        at.record(*(new_record(number) for number in range(5)))
        window = {"from": "2026-11-25T12:00:00.001Z", "to": "2026-11-25T14:00:00.003+02:00"}
        assert await listed(at, **window) == names(new_record(1), new_record(2))
        assert await listed(at, **{"from": "1s", "role": "primary"}) == []

    with_admin(test)


def test_pages_follow_each_other_and_what_comes_meanwhile_moves_none_of_them(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        records = [new_record(number) for number in range(25)]
        at.record(*records)
        seen: list[str] = []
        after: dict[str, str] = {}
        number = 100
        while True:
            page = (await at.http.get(LIST, params={"role": "primary", "limit": "4", **after})).json()
            seen += [record["record_id"] for record in page["records"]]
            at.record(new_record(number))
            number += 1
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert seen == names(*records)

    with_admin(test)


def test_look_ups_and_lists_leave_control_records_with_who_and_what(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        at.record(ONE)
        await at.http.get(LIST, params={"model": "fraud"}, headers={"x-actor": "ann"})
        await at.http.get("/admin/v1/audit/requests/unknown", headers={"x-actor": "bob"})
        found = (await at.http.get(LIST, params={"role": "control"})).json()["records"]
        told = [(one["action"], one["actor"], one["details"]) for one in found]
        assert ("audit.list", "ann", {"filter": {"model": "fraud"}, "found": 1}) in told
        assert ("audit.lookup", "bob", {"id": "unknown", "found": 0}) in told
        by_action = await at.http.get(LIST, params={"action": "audit.lookup"})
        assert [one["actor"] for one in by_action.json()["records"]] == ["bob"]

    with_admin(test)


def test_a_change_of_the_rules_leaves_a_control_record_with_the_digests_of_its_documents(
    with_admin: WithAdmin,
) -> None:
    async def test(at: Any) -> None:
        await at.register("1")
        await at.control.archivist.catch_up()
        [record] = (await at.http.get(LIST, params={"action": "rules.revision"})).json()["records"]
        assert record["details"]["revision"] == 1
        [document] = record["details"]["documents"]
        assert (document["kind"], document["name"]) == ("version", "fraud/1")
        assert len(document["sha256"]) == 64

    with_admin(test)


def test_a_control_record_is_found_by_its_own_id(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        done = control_record(1, "audit.export", comment="for the regulator")
        at.record(done)
        [record] = (await at.http.get(f"/admin/v1/audit/requests/{done.record_id}")).json()["records"]
        assert (record["role"], record["comment"]) == ("control", "for the regulator")
        assert record["decision"]["explained"] == "auditor did audit.export."

    with_admin(test)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"status": "abc"}, "status: expected a whole number of 100 to 599"),
        ({"limit": "0"}, "limit: expected a whole number of 1 to 1000"),
        ({"from": "yesterday"}, "from: expected a time with its zone"),
        ({"to": "2026-11-25T12:00:00"}, "to: expected a time with its zone"),
        ({"after": "nonsense"}, "after"),
        ({"model": ""}, "model: expected 1 to 1024 printable characters"),
        ({"colour": "red"}, "colour: unknown parameter"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(with_admin: WithAdmin, params: dict[str, str], said: str) -> None:
    async def test(at: Any) -> None:
        answer = await at.http.get(LIST, params=params)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
        assert said in answer.json()["detail"]

    with_admin(test)


def test_nothing_is_told_when_the_look_up_itself_cannot_be_recorded(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        at.record(replace(ONE, request_id="q-1"))
        at.own_journal.close()
        for place in (LIST, "/admin/v1/audit/requests/q-1"):
            answer = await at.http.get(place)
            assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")

    with_admin(test)
