"""Routes, cohorts and versions through the admin port, on the real control plane and store."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.record import Attempt, Payload, Record

WithAdmin = Callable[..., None]
ROUTE = {"model": "fraud", "split": {"1": 9000, "2": 1000}}
PLACE = "/admin/v1/routes/fraud"


def problem(answer: Any, status: int, code: str) -> Any:
    """Return a problem after checking what every problem must have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    return document


def test_route_can_be_made_read_and_changed_with_its_revision_as_the_etag(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        async with at.worker():
            await at.register("1", "2")
            made = await at.http.put(PLACE, json=ROUTE)
            assert made.status_code == 201
            assert made.headers["etag"] == '"3"'
            assert made.json() == {
                "revision": 3,
                "changed": True,
                "in_force": True,
                "acknowledged": ["g/w0"],
                "laggards": {},
                "documents": [{"kind": "route", "name": "fraud", "outcome": "made", "was": None}],
                "preview": None,
                "confirm_within_ms": None,
                "dry_run": False,
            }
            read = await at.http.get(PLACE)
            assert read.headers["etag"] == '"3"'
            assert read.json()["split"] == ROUTE["split"]
            assert read.json()["salt"] == "fraud"
            changed = await at.http.put(
                PLACE, json={**read.json(), "split": {"1": 5000, "2": 5000}}, headers={"if-match": '"3"'}
            )
            assert changed.status_code == 200
            assert changed.json()["revision"] == 4
            same = await at.http.put(
                PLACE, json={**ROUTE, "split": {"2": 5000, "1": 5000}}, headers={"if-match": '"4"'}
            )
            assert (same.status_code, same.json()["changed"], same.json()["revision"]) == (200, False, 4)

    with_admin(test)


def test_head_answers_as_get_but_without_a_body(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        await at.http.put(PLACE, json=ROUTE)
        get, head = await at.http.get(PLACE), await at.http.head(PLACE)
        assert head.status_code == 200
        assert head.headers["etag"] == get.headers["etag"]
        assert head.headers["content-length"] == str(len(get.content))
        assert head.content == b""

    with_admin(test)


def test_write_to_an_existing_route_is_refused_when_it_names_no_revision_or_an_old_one(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        await at.http.put(PLACE, json=ROUTE)
        assert problem(await at.http.put(PLACE, json=ROUTE), 428, "revision_required")["revision"] == 3
        other = {**ROUTE, "timeout_ms": 5}
        stale = await at.http.put(PLACE, json=other, headers={"if-match": '"2"'})
        assert problem(stale, 412, "revision_conflict")["revision"] == 3
        new = await at.http.put(PLACE, json=other, headers={"if-none-match": "*"})
        assert problem(new, 412, "revision_conflict")["revision"] == 3
        assert (await at.http.get(PLACE)).headers["etag"] == '"3"'

    with_admin(test)


def test_route_is_changed_only_when_if_match_matches(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        await at.http.put(PLACE, json=ROUTE)
        revision = 3
        for match in ('"{}"', "*", '"2", "{}"', '"x" ,"{}"', 'W/"{}", "{}"'):
            tags = match.replace("{}", str(revision))
            changed = await at.http.put(PLACE, json={**ROUTE, "timeout_ms": revision}, headers={"if-match": tags})
            assert changed.json()["revision"] == revision + 1, match
            revision += 1
        refused = ['"9"', f'W/"{revision}"', '"abc"', f'"{revision}x"', '"1", "2"', '""', '"99999999999999999999999"']
        for match in refused:
            answer = await at.http.put(PLACE, json=ROUTE, headers={"if-match": match})
            assert problem(answer, 412, "revision_conflict")["revision"] == revision, match

    with_admin(test)


def test_route_is_not_made_when_if_match_wants_one(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        for match in ("*", '"7"', '"7", "8"'):
            refused = await at.http.put(PLACE, json=ROUTE, headers={"if-match": match})
            assert problem(refused, 412, "revision_conflict")["revision"] == 0

    with_admin(test)


def test_precondition_that_cannot_be_read_is_refused(with_admin: WithAdmin) -> None:
    unreadable = (
        {"if-match": "3"},
        {"if-match": '"3'},
        {"if-match": '"3" "4"'},
        {"if-match": '*, "3"'},
        {"if-none-match": '"3"'},
        {"if-none-match": "*", "if-match": "*"},
    )

    async def test(at: Any) -> None:
        for headers in unreadable:
            refused = await at.http.put(PLACE, json=ROUTE, headers=headers)
            assert "Match: " in problem(refused, 400, "invalid_input")["detail"]

    with_admin(test)


def test_change_answers_202_with_the_laggards_when_a_worker_does_not_have_it(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        await at.acknowledge({"fraud": "version 2 cannot be prepared"}, revision=99)
        answer = await at.http.put(PLACE, json=ROUTE)
        assert answer.status_code == 202
        assert answer.json()["laggards"] == {"g/w0": "version 2 cannot be prepared"}
        assert answer.json()["in_force"] is False
        assert answer.headers["etag"] == '"3"'

    with_admin(test)


def test_change_answers_202_when_no_worker_is_alive(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        answer = await at.http.put(PLACE, json=ROUTE)
        assert (answer.status_code, answer.json()["acknowledged"]) == (202, [])

    with_admin(test)


def test_change_is_made_once_when_it_is_sent_twice_under_one_key(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        async with at.worker():
            await at.register("1", "2")
            headers = {"idempotency-key": "op-1"}
            first = await at.http.put(PLACE, json=ROUTE, headers=headers)
            again = await at.http.put(PLACE, json=ROUTE, headers={"idempotency-key": '"op-1"'})
            assert (first.status_code, first.json()) == (again.status_code, again.json())
            change = {**ROUTE, "timeout_ms": 5}
            for _ in range(2):
                listed = await at.http.put(
                    PLACE, json=change, headers={"idempotency-key": "op-2", "if-match": '"2", "3"'}
                )
                assert (listed.status_code, listed.json()["revision"]) == (200, 4)
            other = await at.http.put(PLACE, json={**ROUTE, "timeout_ms": 6}, headers={**headers, "if-match": '"4"'})
            assert problem(other, 422, "invalid_document")["path"] == "operation_id"
            assert (await at.http.get(PLACE)).headers["etag"] == '"4"'

    with_admin(test)


def test_change_keeps_who_made_it_and_why(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        headers = {"x-actor": "Åsa".encode(), "x-comment": "första steget".encode(), "idempotency-key": "op-2"}
        await at.http.put(PLACE, json=ROUTE, headers=headers)
        revision = await at.control.revision(3)
        assert (revision.actor, revision.comment, revision.operation_id) == ("Åsa", "första steget", "op-2")
        unnamed = await at.control.revision(2)
        assert unnamed.actor == "unnamed"
        assert len(unnamed.operation_id) == 36

    with_admin(test)


def test_header_of_a_change_is_refused_by_name_when_it_does_not_fit(with_admin: WithAdmin) -> None:
    unfit = (
        ("X-Actor", b"a" * 257),
        ("X-Comment", b"a" * 1025),
        ("X-Comment", b"a\tb"),
        ("X-Actor", b"\xff"),
        ("X-Actor", "\u202e".encode()),
        ("Idempotency-Key", b"a" * 129),
        ("Idempotency-Key", b"two words"),
        ("Idempotency-Key", b'""'),
    )

    async def test(at: Any) -> None:
        for header, value in unfit:
            refused = await at.http.put(PLACE, json=ROUTE, headers={header: value})
            assert problem(refused, 400, "invalid_input")["detail"].startswith(f"{header}: ")

    with_admin(test)


def test_route_that_does_not_fit_is_refused_with_the_path_of_the_field(with_admin: WithAdmin) -> None:
    unfit = (
        (b'{"model": "fraud", "split": {"1": 1}}', "split"),
        (b'{"model": "fraud", "split": {"9": 10000}}', 'split["9"]'),
        (b'{"model": "other", "split": {"1": 10000}}', "model"),
        (b'{"model": "fraud", "split": {"1": 10000}, "wieghts": 1}', "wieghts"),
        (b'{"model": "fraud", "split": {"1": 10000}, "pins": [{"cohort": "no", "version": "1"}]}', "pins[0].cohort"),
    )

    async def test(at: Any) -> None:
        await at.register("1")
        for document, path in unfit:
            assert problem(await at.http.put(PLACE, content=document), 422, "invalid_document")["path"] == path
        problem(await at.http.get(PLACE), 404, "not_found")

    with_admin(test)


def test_body_that_is_no_json_object_is_refused(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        for document in (b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000):
            assert "path" not in problem(await at.http.put(PLACE, content=document), 422, "invalid_document")

    with_admin(test)


def test_body_beyond_the_limit_is_refused_whether_it_says_its_size_or_not(with_admin: WithAdmin) -> None:
    async def chunks() -> Any:
        for _ in range(17):
            yield b" " * 2**20

    async def test(at: Any) -> None:
        problem(await at.http.put(PLACE, content=b" " * (17 * 2**20)), 413, "body_too_large")
        problem(await at.http.put(PLACE, content=chunks()), 413, "body_too_large")

    with_admin(test)


def test_compressed_body_is_refused(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        refused = await at.http.put(PLACE, content=b"x", headers={"content-encoding": "gzip"})
        problem(refused, 415, "unsupported_encoding")

    with_admin(test)


# ── cohorts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cohort_can_be_made_listed_changed_and_deleted(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        async with at.worker():
            place, beta = "/admin/v1/cohorts/beta", {"name": "beta", "keys": ["u-17"]}
            assert (await at.http.get("/admin/v1/cohorts")).json() == {"cohorts": []}
            assert (await at.http.put(place, json=beta)).status_code == 201
            assert (await at.http.get("/admin/v1/cohorts")).json() == {
                "cohorts": [{"name": "beta", "keys": ["u-17"], "match": [], "revision": 1}]
            }
            changed = await at.http.put(place, json={**beta, "keys": []}, headers={"if-match": '"1"'})
            assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
            read = await at.http.get(place)
            assert (read.json()["keys"], read.headers["etag"]) == ([], '"2"')
            problem(await at.http.delete(place), 428, "revision_required")
            problem(await at.http.delete(place, headers={"if-match": '"1"'}), 412, "revision_conflict")
            deleted = await at.http.delete(place, headers={"if-match": '"2"'})
            assert (deleted.status_code, deleted.json()["revision"]) == (200, 3)
            assert "etag" not in deleted.headers
            problem(await at.http.get(place), 404, "not_found")
            problem(await at.http.delete(place, headers={"if-match": '"2"'}), 404, "not_found")

    with_admin(test)


def test_cohort_that_a_route_pins_is_not_deleted(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        await at.http.put("/admin/v1/cohorts/beta", json={"name": "beta", "keys": ["u-17"]})
        await at.http.put(PLACE, json={**ROUTE, "pins": [{"cohort": "beta", "version": "2"}]})
        refused = await at.http.delete("/admin/v1/cohorts/beta", headers={"if-match": "*"})
        assert "fraud" in problem(refused, 409, "cohort_in_use")["detail"]

    with_admin(test)


# ── versions and models ──────────────────────────────────────────────────────────────────────────────────────────


def test_version_can_be_registered_once_and_read_with_its_place(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        async with at.worker():
            place, document = "/admin/v1/models/fraud/versions", at.manifest("2")
            made = await at.http.post(place, json=document)
            assert (made.status_code, made.headers["location"]) == (201, f"{place}/2")
            again = await at.http.post(place, json=document)
            assert (again.status_code, again.json()["changed"]) == (200, False)
            read = await at.http.get(f"{place}/2")
            assert read.json()["owner"] == "risk"
            assert (read.json()["incomplete"], read.json()["revision"], read.headers["etag"]) == ([], 1, '"1"')
            other = await at.http.post(place, json={**document, "owner": "somebody else"})
            assert "owner" in problem(other, 409, "version_exists")["detail"]

    with_admin(test)


def test_incomplete_version_is_refused_unless_allowed_and_then_every_listing_says_so(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        place = "/admin/v1/models/fraud/versions"
        document = {**at.manifest("2", owner=None), "metrics": {}}
        refused = problem(await at.http.post(place, json=document), 422, "incomplete_manifest")
        assert refused["path"] == "metrics, owner"
        wrong = await at.http.post(place + "?allow_incomplete=yes", json=document)
        assert "allow_incomplete" in problem(wrong, 400, "invalid_input")["detail"]
        assert (await at.http.post(place + "?allow_incomplete=true", json=document)).status_code == 202
        gaps = ["metrics", "owner"]
        assert (await at.http.get(f"{place}/2")).json()["incomplete"] == gaps
        assert (await at.http.get("/admin/v1/models/fraud")).json()["versions"][0]["incomplete"] == gaps
        assert (await at.http.get("/admin/v1/models")).json()["models"][0]["versions"][0]["incomplete"] == gaps

    with_admin(test)


def test_version_without_its_artifact_is_refused(with_admin: WithAdmin, tmp_path: Path) -> None:
    async def test(at: Any) -> None:
        place = "/admin/v1/models/fraud/versions"
        path, digest = tmp_path / "model.onnx", "0" * 64
        document = at.manifest("2", backend={"onnx": {"path": str(path), "sha256": digest}})
        problem(await at.http.post(place, json=document), 422, "artifact_missing")
        path.write_bytes(b"another model")
        assert digest in problem(await at.http.post(place, json=document), 422, "digest_mismatch")["detail"]
        relative = at.manifest("2", backend={"onnx": {"path": "model.onnx", "sha256": digest}})
        refused = problem(await at.http.post(place, json=relative), 422, "invalid_document")
        assert refused["path"] == "backend.onnx.path"

    with_admin(test)


def test_hyperparameter_too_large_for_a_float_is_shown_as_it_is(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        huge = 2**70 + 1
        await at.register("2", hyperparameters={"seed": huge})
        for place in ("/admin/v1/models/fraud/versions/2", "/admin/v1/models/fraud"):
            assert f'"seed":{huge}' in (await at.http.get(place)).text

    with_admin(test)


def served(number: int, version: str, role: str = "primary", outcome: str = "served") -> Record:
    return Record(
        record_id=f"r-{number}",
        request_id=f"r-{number}",
        role="shadow" if role == "shadow" else "primary",
        received_ns=1_700_000_000_000_000_000,
        model="fraud",
        protocol="oip-v2",
        outcome="served" if outcome == "served" else "failed",
        status=200,
        request=Payload(2),
        response=Payload(2),
        intended=version,
        served=version,
        attempts=(Attempt(version, "onnx", 900),),
        total_us=4_000,
    )


def test_models_are_listed_with_versions_route_and_figures(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        await at.register("7", model="alpha")
        await at.http.put(PLACE, json=ROUTE)
        at.record(*(served(number, "1") for number in range(8)))
        at.record(served(8, "1", outcome="failed"), served(9, "2", role="shadow"))
        assert (await at.http.get("/admin/v1/audit/requests/r-9")).status_code == 200  # counted by now

        listed = (await at.http.get("/admin/v1/models")).json()["models"]
        assert [entry["model"] for entry in listed] == ["alpha", "fraud"]
        assert listed[0]["route"] is None
        assert listed[1]["route"]["revision"] == 4
        assert [version["version"] for version in listed[1]["versions"]] == ["1", "2"]
        one, two = (version["figures"] for version in listed[1]["versions"])
        assert one["requests"] == {"served": 8, "failed": 1}
        assert one["latency_ms"]["mean"] == pytest.approx(4.0)
        assert 2.5 <= one["latency_ms"]["p50"] <= one["latency_ms"]["p99"] <= 5.0
        assert two == {"shadow_requests": {"served": 1}}

        shown = (await at.http.get("/admin/v1/models/fraud")).json()
        assert shown["route"]["split"] == ROUTE["split"]
        assert [version["figures"] for version in shown["versions"]] == [one, two]
        assert shown["versions"][0]["backend"]["http"]["urls"] == ["http://127.0.0.1:1"]
        problem(await at.http.get("/admin/v1/models/beta"), 404, "not_found")

    with_admin(test)


def test_what_does_not_exist_is_not_found(with_admin: WithAdmin) -> None:
    places = ("routes/fraud", "cohorts/beta", "models/fraud", "models/fraud/versions/2", "routes/a%00b", "models/%ff")

    async def test(at: Any) -> None:
        for place in places:
            problem(await at.http.get(f"/admin/v1/{place}"), 404, "not_found")

    with_admin(test)


# ── explain ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_explain_says_rule_by_rule_which_version_serves(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await at.register("1", "2")
        await at.http.put("/admin/v1/cohorts/beta", json={"name": "beta", "keys": ["u-17"]})
        await at.http.put(PLACE, json={**ROUTE, "pins": [{"cohort": "beta", "version": "2"}]})
        place = f"{PLACE}/explain"
        pinned = (await at.http.post(place, json={"key": "u-17"})).json()
        assert pinned["decision"] == {
            "version": "2",
            "reason": "pin",
            "rule": "pins[0]",
            "cohort": "beta",
            "instead_of": None,
        }
        assert (pinned["model"], pinned["revision"]) == ("fraud", 4)
        assert [step["rule"] for step in pinned["steps"]] == ["client_versions", "pins[0]"]
        by_header = (await at.http.post(place, json={"headers": {"X-Routing-Key": "u-17"}})).json()
        assert by_header["decision"] == pinned["decision"]
        split = (await at.http.post(place, content=b"")).json()
        assert split["decision"]["reason"] == "split"
        assert set(split["scores"]) == {"1", "2"}
        asked = (await at.http.post(place, json={"version": "1"})).json()
        assert asked["decision"]["reason"] == "explicit"
        record = [(await at.http.post(place, json={"record_id": "r-1"})).json()["scores"] for _ in range(2)]
        assert record[0] == record[1]
        problem(await at.http.post("/admin/v1/routes/other/explain", json={}), 404, "not_found")

    with_admin(test)


def test_question_that_does_not_fit_is_refused_with_the_path_of_the_field(with_admin: WithAdmin) -> None:
    questions = (
        ({"kee": "u-17"}, "kee"),
        ({"key": 17}, "key"),
        ({"headers": {"x": 1}}, 'headers["x"]'),
        ({"version": "-"}, "version"),
    )

    async def test(at: Any) -> None:
        for question, path in questions:
            refused = await at.http.post(f"{PLACE}/explain", content=json.dumps(question))
            assert problem(refused, 422, "invalid_document")["path"] == path

    with_admin(test)


# ── without Redis ────────────────────────────────────────────────────────────────────────────────────────────────


def test_rules_are_unavailable_and_probes_still_answer_when_redis_is_down(
    with_admin: WithAdmin, start_valkey: Callable[[], Any]
) -> None:
    private = start_valkey()

    async def test(at: Any) -> None:
        await at.register("1", "2")
        private.kill()
        problem(await at.http.get(PLACE), 503, "rules_unavailable")
        problem(await at.http.put(PLACE, json=ROUTE, headers={"if-match": "*"}), 503, "rules_unavailable")
        assert (await at.http.get("/healthz")).json() == {"live": True}
        assert (await at.http.get("/metrics")).status_code == 200

    with_admin(test, private.url)
