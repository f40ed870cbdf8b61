"""Previews, the status of everything, and the operator's word after the store lost rules, through the admin port."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from gateway.admin.troubles import troubles_of
from gateway.controlplane import Braked, Impaired, Status, StoreStatus, WorkerStatus
from gateway.ports import Head
from gateway.record import Payload, Record
from gateway.snapshot import LastGood, Saved
from routing import unit_digest
from tests.gateway.admin.test_admin_rules import problem

WithAdmin = Callable[..., None]
ROUTE = {"model": "fraud", "split": {"1": 9000, "2": 1000}}
HALVES = {"model": "fraud", "split": {"1": 5000, "2": 5000}}
PLACE = "/admin/v1/routes/fraud"
STATUS = "/admin/v1/status"
KEYS = [f"u-{number}" for number in range(200)]


async def with_route(at: Any) -> int:
    await at.register("1", "2")
    async with at.worker():
        made = await at.http.put(PLACE, json=ROUTE)
    return int(made.json()["revision"])


# ── preview ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_preview_of_keys_names_each_caller_that_would_move(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        found = (await at.http.post(f"{PLACE}/preview", json={"documents": [HALVES], "keys": KEYS})).json()
        (model,) = found["models"]
        assert (model["model"], model["sample"]["source"], model["sample"]["callers"]) == ("fraud", "keys", 200)
        moved = {one["key"] for one in model["moved"]}
        assert len(moved) == found["callers_moved"] > 0
        explain = [(await at.http.post(f"{PLACE}/explain", json={"key": key})).json() for key in sorted(moved)[:5]]
        assert {one["decision"]["version"] for one in explain} == {"1"}
        assert model["moves"][0]["before"] == "1"
        assert (await at.http.get(PLACE)).json()["split"] == ROUTE["split"]

    with_admin(test)


def test_preview_goes_by_the_recorded_requests_of_its_window_when_no_keys_are_given(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        revision = await with_route(at)
        now = (await at.http.post(f"{PLACE}/explain", json={})).json()["moment_ns"]
        empty = Payload(0)
        for number, age_s in enumerate((10, 20, 7200)):
            at.record(
                Record(
                    record_id=f"r-{number}",
                    request_id=f"r-{number}",
                    role="primary",
                    received_ns=now - age_s * 1_000_000_000,
                    model="fraud",
                    protocol="oip-v2",
                    outcome="served",
                    status=200,
                    request=empty,
                    response=empty,
                    intended="1",
                    served="1",
                    revision=revision,
                    rules_revision=revision,
                    reason="split",
                    rule="split",
                    unit=unit_digest(f"u-{number}").hex(),
                    keyed=True,
                )
            )
        assert (await at.http.get("/admin/v1/audit/requests/r-2")).status_code == 200
        body = {"documents": [{**ROUTE, "split": {"2": 10_000}}]}
        for window, seen in (({}, 2), ({"window_s": 15}, 1), ({"window_s": 10_000}, 3)):
            found = (await at.http.post(f"{PLACE}/preview", json={**body, **window})).json()
            assert found["models"][0]["sample"]["callers"] == seen
        many = (await at.http.post("/admin/v1/changes/preview", json=body)).json()
        assert many["models"][0]["sample"]["requests"] == 2

    with_admin(test)


def test_preview_is_refused_when_it_is_of_another_model_or_asks_for_two_kinds_of_traffic(
    with_admin: WithAdmin,
) -> None:
    async def test(at: Any) -> None:
        await with_route(at)
        other = {"documents": [{"name": "beta", "keys": ["u-1"]}, {**HALVES, "model": "other"}]}
        refused = problem(await at.http.post(f"{PLACE}/preview", json=other), 422, "invalid_document")
        assert refused["path"] == "documents[1].model"
        both = {"documents": [HALVES], "keys": KEYS, "window_s": 60}
        assert problem(await at.http.post(f"{PLACE}/preview", json=both), 422, "invalid_document")["path"] == "window_s"
        for body, path in (({}, "documents"), ({"documents": [HALVES], "keys": []}, "keys")):
            unfit = await at.http.post(f"{PLACE}/preview", json=body)
            assert problem(unfit, 422, "invalid_document")["path"] == path

    with_admin(test)


# ── status ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_status_is_ok_when_every_worker_has_the_newest_rules(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        async with at.worker():
            revision = await with_route(at)
            await at.http.put(f"{PLACE}?confirm_within_s=60", json=HALVES, headers={"if-match": f'"{revision}"'})
            status = (await at.http.get(STATUS)).json()
            assert (status["ok"], status["troubles"], status["gateway"]) == (True, [], "g")
            assert status["store"]["head"]["revision"] == revision + 1
            (worker,) = status["workers"]
            assert (worker["worker"], worker["ready"], worker["revision"]) == ("g/w0", True, revision + 1)
            assert worker["rules_age_ms"] < 1000
            (waiting,) = status["unconfirmed"]
            assert waiting["documents"] == [["route", "fraud"]]
            assert 0 < waiting["remaining_ms"] <= 60_000

    with_admin(test)


def test_status_says_what_is_wrong_when_a_worker_is_behind_or_lacks_a_version(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        revision = await with_route(at)
        await at.acknowledge(revision=revision - 1)
        behind = (await at.http.get(STATUS)).json()
        assert behind["ok"] is False
        assert behind["troubles"] == [f"g/w0: behind: it has revision {revision - 1}, the store {revision}"]
        await at.acknowledge({"fraud": "version 2 cannot be prepared"})
        (lacking,) = (await at.http.get(STATUS)).json()["troubles"]
        assert lacking == "g/w0: the newest route of fraud is not in force: version 2 cannot be prepared"

    with_admin(test)


def test_status_answers_soon_and_says_so_when_the_store_is_frozen(
    with_admin: WithAdmin, start_valkey: Callable[[], Any]
) -> None:
    private = start_valkey()

    async def test(at: Any) -> None:
        await with_route(at)
        await at.acknowledge()
        private.freeze()
        try:
            began = monotonic()
            status = (await at.http.get(STATUS)).json()
            assert monotonic() - began < 10.0  # not the time-out of a caller, by far
            assert (status["ok"], status["store"]["answering"]) == (False, False)
            assert "does not answer" in status["troubles"][0]
            assert status["workers"][0]["worker"] == "g/w0"
        finally:
            private.thaw()

    with_admin(test, private.url)


HEAD = Head("e", 7)
STORE = StoreStatus(answering=True, why=None, head=HEAD, known=HEAD, in_doubt=None)
WORKER = WorkerStatus("g/w0", True, True, True, 7, "e", 1, 10, 10)


def test_every_trouble_of_a_fleet_is_said_once_in_words() -> None:
    replace = msgspec.structs.replace

    def said(store: StoreStatus = STORE, *workers: WorkerStatus) -> list[str]:
        return troubles_of(Status("g", store, workers, ()))

    assert said(STORE, WORKER) == []
    assert said() == ["no worker is known; look at the gateway's log"]
    silent = replace(WORKER, alive=False, ready=False, revision=3, said_ms=12_345)
    assert said(STORE, silent) == ["g/w0: silent for 12 s; it may be frozen or gone, with the rules that it had"]
    assert said(STORE, replace(WORKER, ready=False)) == ["g/w0: not ready"]
    assert said(STORE, replace(WORKER, epoch="f")) == ["g/w0: behind: it has revision 7, the store 7"]
    assert said(STORE, replace(WORKER, alarms={"head": "lower"})) == ["g/w0: alarm: lower"]
    doubt = replace(STORE, head=Head("f", 2), in_doubt="it was emptied")
    (alone,) = said(doubt, WORKER)
    assert "pointsman rules republish" in alone
    assert "pointsman rules accept" in alone
    gone = replace(STORE, answering=False, why="no connection", head=None)
    assert said(gone, WORKER) == [
        "the rules store does not answer: no connection; the rules in force stay in force, changes are refused"
    ]


def test_a_braked_version_is_a_trouble_until_the_rules_say_so_and_others_in_trouble_are_none() -> None:
    slow = Impaired("fraud", "1", ejected={"g/w0": 1}, unhealthy={"g/w0": 1}, limited={"g/w0": 8})
    assert troubles_of(Status("g", STORE, (WORKER,), (), (slow,))) == []
    braked = Impaired("fraud", "2", braked={"g/w0": Braked(3, 9, 20), "g/w1": Braked(5, 8, 10)})
    (trouble,) = troubles_of(Status("g", STORE, (WORKER,), (), (slow, braked)))
    assert trouble.startswith("version 2 of fraud failed 5 of its last 8 requests in g/w1 and 1 more, which divert")


# ── after the store lost rules ───────────────────────────────────────────────────────────────────────────────────


def test_operator_decides_which_rules_are_right_when_the_store_was_emptied(
    with_admin: WithAdmin, start_valkey: Callable[[], Any], tmp_path: Path
) -> None:
    private = start_valkey()

    async def test(at: Any) -> None:
        revision = await with_route(at)
        await keep_last_good(at, tmp_path / "rules")
        early = await at.http.post("/admin/v1/rules/republish", json={})
        assert "not in doubt" in problem(early, 412, "revision_conflict")["detail"]
        await at.acknowledge()
        private.empty()
        await in_doubt(at, revision)
        missing = problem(await at.http.get(PLACE), 404, "not_found")
        assert "but note: the rules store" in missing["detail"]
        refused = await at.http.put(PLACE, json=HALVES, headers={"if-match": "*"})
        assert "pointsman rules republish" in problem(refused, 412, "revision_conflict")["detail"]
        assert (await at.http.get(STATUS)).json()["ok"] is False

        wrong = await at.http.post("/admin/v1/rules/accept", json={"dryrun": True})
        assert problem(wrong, 422, "invalid_document")["path"] == "dryrun"
        tried = (await at.http.post("/admin/v1/rules/republish", json={"dry_run": True})).json()
        assert (tried["head"], tried["published"]) == (None, None)
        names = {(one["kind"], one["name"]): one["outcome"] for one in tried["changes"]}
        assert names["route", "fraud"] == "made"
        made = await at.http.post("/admin/v1/rules/republish", json={}, headers={"idempotency-key": "op-1"})
        assert made.status_code == 202  # nobody follows here
        assert made.json()["head"]["revision"] > revision
        again = await at.http.post("/admin/v1/rules/republish", headers={"idempotency-key": "op-1"})
        assert again.json()["head"] == made.json()["head"]
        assert (await at.http.get(PLACE)).json()["split"] == ROUTE["split"]

    with_admin(test, private.url)


async def in_doubt(at: Any, revision: int) -> None:
    """Wait until changes are refused because the store lost rules."""
    deadline = monotonic() + 10.0
    while True:
        refused = await at.http.put(PLACE, json=HALVES, headers={"if-match": f'"{revision}"'})
        if refused.status_code == 503:
            problem(refused, 503, "rules_in_doubt")
            return
        assert monotonic() < deadline, refused.text
        await asyncio.sleep(0.02)


async def keep_last_good(at: Any, folder: Path) -> None:
    """Keep the rules of now as a worker does."""
    state = await at.store.load()
    made = await at.control.revision(state.head.revision)
    saved = Saved(state.head, made.operation_id, state.documents)
    await asyncio.to_thread(LastGood(folder).write, saved)
