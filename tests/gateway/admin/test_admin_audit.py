"""The look-up of requests, from real journals through the recorder and SQLite, beside the real rules."""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.admin.audit import families
from gateway.admin.shown import explained, shown_payload
from gateway.capture import capture
from gateway.ports import Kept
from gateway.record import Attempt, Payload, Record
from routing.types import Capture
from tests.records import ChainedJournal

WithAdmin = Callable[..., None]
LOOK_UP = "/admin/v1/audit/requests"
BODY = b'{"inputs": []}'
PRIMARY = Record(
    record_id="r-1",
    request_id="order 1/2",
    role="primary",
    received_ns=1_764_000_000_123_456_789,
    model="fraud",
    protocol="oip-v2",
    outcome="served",
    status=200,
    request=Payload(14),
    response=Payload(3),
    oip_id="é/..",
    intended="2",
    served="2",
    digest="c" * 64,
    revision=3,
    cohort_revision=None,
    rules_revision=3,
    reason="split",
    rule="split",
    unit="d" * 32,
    keyed=True,
    headers={"x-tenant": "acme"},
    attempts=(Attempt("2", "onnx", 900),),
    route_us=10,
    queue_us=20,
    infer_us=900,
    total_us=1_000,
    client="127.0.0.1",
    gateway="gateway",
    worker="w0",
    trace_id="e" * 32,
)
SHADOW = msgspec.structs.replace(
    PRIMARY,
    record_id="r-2",
    role="shadow",
    primary_id="r-1",
    intended="3",
    served="3",
    received_ns=PRIMARY.received_ns + 1,
)


async def look_up(at: Any, any_id: str) -> Any:
    answer = await at.http.get(f"{LOOK_UP}/{any_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def with_route(at: Any) -> None:
    await at.register("1", "2")
    await at.http.put("/admin/v1/routes/fraud", json={"model": "fraud", "split": {"1": 9000, "2": 1000}})


def test_record_is_shown_with_every_field_its_shadows_its_version_and_the_decision(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        at.record(PRIMARY, request=BODY, response=b"\xff\x00\x01")
        at.record(SHADOW)
        found = await look_up(at, "r-1")
        assert set(found) == {"id", "records"}
        assert found["id"] == "r-1"
        [record] = found["records"]
        beside = {"received", "shadows", "version", "decision", "journal", "sequence", "chain", "day", "erasure"}
        assert set(record) == {*PRIMARY.__struct_fields__, *beside}
        assert (record["journal"], record["sequence"], record["erasure"]) == (at.journal.name, 1, None)
        assert record["received"] == "2025-11-24T16:00:00.123456Z"
        commitment = record["request"].pop("commitment")
        assert len(bytes.fromhex(commitment)) == 32
        assert record["request"] == {
            "size": 14,
            "sha256": hashlib.sha256(BODY).hexdigest(),
            "body": '{"inputs": []}',
            "truncated": False,
            "redacted": False,
        }
        assert base64.b64decode(record["response"]["body"]) == b"\xff\x00\x01"
        assert (record["response"]["encoding"], record["response"]["truncated"]) == ("base64", False)
        assert record["attempts"] == [
            {"version": "2", "backend": "onnx", "infer_us": 900, "status": None, "error": None}
        ]
        assert record["headers"] == {"x-tenant": "acme"}
        assert (record["stale"], record["known_model"], record["total_us"]) == (False, True, 1_000)

        [shadow] = record["shadows"]
        assert (shadow["record_id"], shadow["served"], shadow["primary_id"]) == ("r-2", "3", "r-1")
        assert record["version"]["owner"] == "risk"
        assert record["version"]["version"] == "2"
        assert record["version"]["incomplete"] == []
        decision = record["decision"]
        assert (decision["reason"], decision["rule"], decision["revision"]) == ("split", "split", 3)
        assert decision["route"]["split"] == {"1": 9000, "2": 1000}
        assert "gave version 2" in decision["explained"]

    with_admin(test)


def test_record_is_found_by_each_of_its_ids_and_by_its_shadows(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        at.record(PRIMARY, SHADOW)
        for any_id in ("r-1", "r-2", "order%201%2F2", "order%201/2", "%C3%A9%2F.."):
            [record] = (await look_up(at, any_id))["records"]
            assert record["record_id"] == "r-1"
            assert [shadow["record_id"] for shadow in record["shadows"]] == ["r-2"]

    with_admin(test)


def test_every_attempt_under_one_request_id_is_shown_oldest_first_with_its_own_shadows(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        again = msgspec.structs.replace(PRIMARY, record_id="r-3", received_ns=PRIMARY.received_ns + 2)
        at.record(PRIMARY, SHADOW, again)
        records = (await look_up(at, "order%201%2F2"))["records"]
        assert [(record["record_id"], len(record["shadows"])) for record in records] == [("r-1", 1), ("r-3", 0)]

    with_admin(test)


def test_decision_is_shown_with_the_route_of_its_revision_when_the_route_has_changed_since(
    with_admin: WithAdmin,
) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        later = {"model": "fraud", "split": {"1": 10_000}}
        await at.http.put("/admin/v1/routes/fraud", json=later, headers={"if-match": '"3"'})
        at.record(PRIMARY, msgspec.structs.replace(PRIMARY, record_id="r-4", revision=4))
        old, new = (await look_up(at, "order%201%2F2"))["records"]
        assert old["decision"]["route"]["split"] == {"1": 9000, "2": 1000}
        assert new["decision"]["route"]["split"] == {"1": 10_000}

    with_admin(test)


def test_version_and_route_are_null_when_the_rules_do_not_know_them(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        at.record(PRIMARY)
        found = await look_up(at, "r-1")
        [record] = found["records"]
        assert (record["version"], record["decision"]["route"]) == (None, None)
        assert "notes" not in found

    with_admin(test)


def test_record_is_shown_with_its_version_and_route_from_the_archive_when_redis_is_down(
    with_admin: WithAdmin, start_valkey: Callable[[], Any]
) -> None:
    private = start_valkey()

    async def test(at: Any) -> None:
        await with_route(at)
        await at.control.archivist.catch_up()
        private.kill()
        at.record(PRIMARY, SHADOW)
        found = await look_up(at, "r-1")
        [record] = found["records"]
        assert record["served"] == "2"
        assert len(record["shadows"]) == 1
        assert record["version"]["owner"] == "risk"
        assert record["decision"]["route"]["split"] == {"1": 9000, "2": 1000}
        assert "notes" not in found

    with_admin(test, private.url)


def test_refused_request_is_shown_with_the_words_it_got(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        at.record(
            Record(
                record_id="r-9",
                request_id="r-9",
                role="primary",
                received_ns=1,
                model="nothing",
                protocol="oip-v2",
                outcome="refused",
                status=404,
                request=Payload(0),
                response=Payload(0),
                known_model=False,
                error_code="unknown_model",
                error="there is no model nothing",
            )
        )
        [record] = (await look_up(at, "r-9"))["records"]
        assert record["version"] is None
        assert record["received"] == "1970-01-01T00:00:00.000000Z"
        assert record["decision"]["explained"] == (
            "The request was refused before a version was chosen. No version answered: there is no model nothing"
        )
        assert record["request"]["body"] is None

    with_admin(test)


def test_id_that_nothing_has_is_not_found_and_named_in_words_fit_for_a_terminal(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        for any_id, shown in (
            ("nothing", "OIP id nothing"),
            ("%1B%5B31m", "'\\x1b[31m'"),
            ("a" * 1000, "aaa…"),
            ("%00", "'\\x00'"),
        ):
            answer = await at.http.get(f"{LOOK_UP}/{any_id}")
            assert answer.status_code == 404
            assert answer.json()["code"] == "not_found"
            assert shown in answer.json()["detail"]

    with_admin(test)


def test_look_up_says_that_newer_records_may_be_missing_when_the_recorder_is_behind(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        at.record(PRIMARY)
        await look_up(at, "r-1")
        await at.stop_recorder()
        at.record(SHADOW)
        found, missing = await asyncio.gather(look_up(at, "r-1"), at.http.get(f"{LOOK_UP}/r-2"))
        assert found["records"][0]["shadows"] == []
        assert "the recorder is behind" in found["notes"][0]
        assert missing.status_code == 404
        assert "the recorder is behind" in missing.json()["detail"]

    with_admin(test)


def test_look_up_is_a_problem_when_the_audit_store_fails(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.stop_recorder()
        at.audit.close()
        answer = await at.http.get(f"{LOOK_UP}/r-1")
        assert (answer.status_code, answer.json()["code"]) == (503, "audit_unavailable")

    with_admin(test)


def test_shadow_without_its_primary_is_not_hidden() -> None:
    primary, shadow = (Kept(frame, "2026-11-25") for frame in ChainedJournal().frames(PRIMARY, SHADOW))
    assert families([shadow]) == [(shadow, [])]
    assert families([primary, shadow]) == [(primary, [shadow])]


def test_text_that_is_cut_within_a_character_is_shown_in_base64() -> None:
    whole = shown_payload(*capture("é".encode(), "full", Capture()), None)
    assert whole["body"] == "é"
    assert "encoding" not in whole
    cut = shown_payload(*capture("é".encode(), "full", Capture(max_bytes=1)), None)
    assert (cut["body"], cut["encoding"], cut["truncated"]) == ("ww==", "base64", True)


def test_explanation_says_in_words_why_a_version_answered() -> None:
    def words(**changes: Any) -> str:
        return explained(msgspec.structs.replace(PRIMARY, **changes))

    assert "routing key gave version 2" in words()
    assert "brought no routing key) gave version 2" in words(keyed=False)
    assert words(reason="explicit", rule="client_versions").startswith("The caller named version 2")
    assert words(reason="pin", rule="pins[0]", cohort="beta") == (
        "The caller is in cohort beta, which pins[0] sends to version 2."
    )
    assert words(reason="shadow", role="shadow", primary_id="r-0").startswith("A copy of request r-0, which")
    assert words(served="1").endswith("Version 1 served in its place, because it failed.")
    assert words(served=None, error="it broke").endswith("No version answered: it broke")
    assert "last known ones" in words(stale=True)
