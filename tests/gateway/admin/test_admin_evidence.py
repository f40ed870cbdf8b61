"""Evidence over the admin port: streams of real jobs, problems before they begin, and a control record of each call."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import apsw

from gateway.evidence.exported import encode_line
from gateway.record import Attempt
from routing import Facts, parse_route, resolve, unit_digest
from tests.conftest import until
from tests.records import NOON_NS, new_record

WithAdmin = Callable[..., None]
AUDIT = "/admin/v1/audit"
ROUTE = {"model": "fraud", "split": {"1": 5000, "2": 5000}}


async def serve(at: Any, count: int, **fields: Any) -> None:
    """Have records of requests that the route in force decided, but for what `fields` says."""
    stored = await at.control.route("fraud")
    route = parse_route(stored.json)
    for number in range(count):
        unit = unit_digest(f"caller-{number}")
        version = resolve(route, {}, Facts(unit, "", 0)).version
        told: dict[str, Any] = {"unit": unit.hex(), "intended": version, "served": version, "revision": stored.revision}
        told["protocol"] = "oip-v2-http"
        told["attempts"] = (Attempt(version, "http://127.0.0.1:1", 7, 200),)
        at.record(new_record(number, **(told | fields)), request=b"{}", response=b"[]")


async def with_route(at: Any) -> None:
    await at.register("1", "2")
    async with at.worker():
        assert (await at.http.put("/admin/v1/routes/fraud", json=ROUTE)).status_code == 201


def gone(pids: Collection[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def lines_of(answer: Any) -> list[Any]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_decisions_of_the_rules_in_the_archive_are_recomputed(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        await serve(at, 5)
        at.record(new_record(9, unit=unit_digest("caller-0").hex(), intended="9", served="9", revision=3))
        *told, last = lines_of(await at.http.post(f"{AUDIT}/recompute"))
        assert told[0]["progress"]["done"] == 0
        result = last["result"]
        assert (result["records"], result["checked"], result["differ"]) == (6, 6, 1)
        assert "the record says version 9 by split; the rules give version" in result["differences"][0]["why"]
        assert result["archive"] == {"agreed": 3, "differences": []}

    with_admin(test)


def test_records_of_a_revision_that_there_never_was_are_counted_as_unchecked(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        await serve(at, 2, revision=77)
        result = lines_of(await at.http.post(f"{AUDIT}/recompute"))[-1]["result"]
        assert (result["checked"], sum(result["unchecked"].values())) == (0, 2)
        assert "revision 77" in next(iter(result["unchecked"]))

    with_admin(test)


def test_an_archive_that_was_changed_is_found_by_the_log(with_admin: WithAdmin, tmp_path: Path) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        await serve(at, 1)
        lines_of(await at.http.post(f"{AUDIT}/recompute"))  # by then all of it is in the store
        connection = apsw.Connection(str(tmp_path / "revisions.db"))
        changed = "CAST(replace(CAST(changes AS TEXT), '5000', '4999') AS BLOB)"
        connection.execute(f"UPDATE revisions SET changes = {changed}")
        connection.close()
        result = lines_of(await at.http.post(f"{AUDIT}/recompute"))[-1]["result"]
        assert [one["revision"] for one in result["archive"]["differences"]] == [3]

    with_admin(test)


# ── verify ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def sealed(at: Any) -> None:
    """Have some records in the store, and a checkpoint over them."""
    await serve(at, 5)
    await at.http.get(f"{AUDIT}/records")  # which waits for the recorder
    await at.stop_recorder()


def test_a_log_that_nobody_touched_holds(with_admin: WithAdmin, tmp_path: Path) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        await sealed(at)
        outside = b"\n".join(encode_line(one) for one in at.audit.checkpoints()).decode()
        keys = (tmp_path / "keys" / "public-key.pem").read_text(encoding="ascii")
        for body in ({}, {"checkpoints": outside, "public_keys": keys}):
            verdict = lines_of(await at.http.post(f"{AUDIT}/verify", json=body))[-1]["result"]
            assert (verdict["holds"], verdict["findings"]) == (True, [])
            assert (verdict["records"] >= 5, verdict["checkpoints"] >= 1) == (True, True)

    with_admin(test)


def test_a_record_that_was_edited_is_named(with_admin: WithAdmin, tmp_path: Path) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        await sealed(at)
        [day] = (tmp_path / "audit").glob("2*.db")
        connection = apsw.Connection(str(day))
        connection.execute("UPDATE parts SET response = CAST(response || 'x' AS BLOB) WHERE number = 2")
        connection.close()
        verdict = lines_of(await at.http.post(f"{AUDIT}/verify"))[-1]["result"]
        assert not verdict["holds"]
        assert verdict["count"] >= 1

    with_admin(test)


def test_a_key_from_outside_that_is_none_is_refused(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        answer = await at.http.post(f"{AUDIT}/verify", json={"public_keys": "no key"})
        assert (answer.status_code, answer.json()["code"]) == (400, "key_unusable")
        answer = await at.http.post(f"{AUDIT}/verify", json={"keys": ""})
        assert (answer.status_code, answer.json()["path"]) == (422, "keys")

    with_admin(test)


def test_records_are_exported_with_those_of_the_moment(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        await serve(at, 5)
        first, *records, end = lines_of(await at.http.get(f"{AUDIT}/export", params={"model": "fraud"}))
        assert first["export"]["model"] == "fraud"
        primaries = [one for one in records if one["role"] == "primary"]
        assert [one["request_body"] for one in primaries] == ["{}"] * 5
        assert end == {"end": {"records": len(records)}}
        part = {"from": "2026-11-25T12:00:00.001Z", "to": "2026-11-25T12:00:00.003Z"}
        _, *records, end = lines_of(await at.http.get(f"{AUDIT}/export", params=part))
        assert [one["received_ns"] for one in records] == [NOON_NS + 1_000_000, NOON_NS + 2_000_000]
        assert end == {"end": {"records": 2}}

    with_admin(test)


def test_what_a_job_cannot_do_is_a_problem_and_no_stream(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        await serve(at, 1, request_id="hello-1")
        for params, status, code, words in (
            ({"id": "nobody"}, 404, "not_found", "no record has that request id"),
            ({"id": "hello-1"}, 409, "cannot_replay", "say --allow-backend"),
            ({"id": "hello-1", "version": "9"}, 409, "cannot_replay", "version 9 of model fraud is not registered"),
            ({"version": "9"}, 404, "not_found", "no model of the records has a version 9"),
        ):
            answer = await at.http.post(f"{AUDIT}/replay", params=params)
            assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert words in answer.json()["detail"]
        answer = await at.http.post(f"{AUDIT}/replay", params={"id": "hello-1", "allow_backend": "true"})
        replayed = lines_of(answer)[-1]["result"]
        assert (replayed["again"]["error_code"], replayed["agrees"]) == ("backend_unreachable", False)

    with_admin(test)


SENSELESS: tuple[tuple[str, dict[str, str], str], ...] = (
    ("recompute", {"from": "yesterday"}, "from: expected a time with its zone"),
    ("recompute", {"from": "1h", "to": "2h"}, "from: is not before `to`"),
    ("recompute", {"model": ""}, "model: expected 1 to 1024 printable characters"),
    ("recompute", {"since": "1h"}, "unknown parameter; known here: from, to, model"),
    ("replay", {}, "id: name a record to replay"),
    ("replay", {"id": "r", "sample": "5"}, "sample: is for a stretch"),
    ("replay", {"id": "r", "from": "1h"}, "from: is for a stretch"),
    ("replay", {"version": "2", "sample": "0"}, "sample: expected a whole number of 1 to 100000"),
    ("replay", {"version": "2", "allow_backend": "yes"}, "allow_backend: expected true or false"),
)


def test_a_question_that_makes_no_sense_is_refused_by_its_parameter(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        for call, params, words in SENSELESS:
            answer = await at.http.post(f"{AUDIT}/{call}", params=params)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_input")
            assert words in answer.json()["detail"]
        assert (await at.http.get(f"{AUDIT}/records")).json()["records"] == []  # and nothing was done

    with_admin(test)


def test_only_the_head_of_an_export_is_no_export(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        answer = await at.http.head(f"{AUDIT}/export")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert not at.jobs.running

    with_admin(test)


def test_each_call_leaves_a_control_record_of_who_asked_for_what(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        await serve(at, 1, request_id="hello-1")
        who = {"x-actor": "auditor", "x-comment": "yearly audit"}
        await at.http.post(f"{AUDIT}/recompute", params={"model": "fraud"}, headers=who)
        await at.http.post(f"{AUDIT}/replay", params={"id": "hello-1"}, headers=who)
        await at.http.get(f"{AUDIT}/export", params={"from": "2026-11-25T12:00:00Z"}, headers=who)
        listed = (await at.http.get(f"{AUDIT}/records", params={"role": "control"})).json()["records"]
        told = {one["action"]: one for one in listed if one["actor"] == "auditor"}
        assert set(told) == {"audit.recompute", "audit.replay", "audit.export"}
        assert all(one["comment"] == "yearly audit" for one in told.values())
        assert (told["audit.recompute"]["model"], told["audit.recompute"]["details"]) == ("fraud", {"model": "fraud"})
        assert told["audit.replay"]["details"] == {"any_id": "hello-1"}
        assert told["audit.export"]["details"] == {"since_ns": NOON_NS}

    with_admin(test)


def test_nothing_is_exported_when_that_cannot_be_recorded(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        at.own_journal.close()
        answer = await at.http.get(f"{AUDIT}/export")
        assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")

    with_admin(test)


def test_a_reader_who_goes_away_ends_the_job_and_makes_room(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        for number in range(400):
            at.record(new_record(number), request=b"x" * 60_000)
        async with at.http.stream("GET", f"{AUDIT}/export"), at.http.stream("GET", f"{AUDIT}/export"):
            pids = {job.pid for job in at.jobs.running}
            assert len(pids) == 2
            refused = await at.http.get(f"{AUDIT}/export")
            assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        await until(lambda: not at.jobs.running)
        assert gone(pids)
        answer = await at.http.get(f"{AUDIT}/export", params={"model": "fraud"})
        assert lines_of(answer)[-1]["end"]["records"] >= 400

    with_admin(test)


def test_the_gateway_ends_though_somebody_reads_for_ever(with_admin: WithAdmin) -> None:
    pids: list[int] = []

    async def test(at: Any) -> None:
        for number in range(400):
            at.record(new_record(number), request=b"x" * 60_000)
        reading = at.http.stream("GET", f"{AUDIT}/export")
        await reading.__aenter__()
        pids.extend(job.pid for job in at.jobs.running)

    with_admin(test)
    assert pids
    assert gone(pids)
