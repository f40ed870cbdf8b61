"""The guards on the path of a request, with real parts in one process: brakes, limits of versions, shed requests."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from time import monotonic_ns
from typing import Any

import pytest

from gateway.errors import BackendUnreachable, DeadlineExceeded, InvalidInput, ModelFailed, Overloaded, ServingError
from gateway.evidence.decisions import judge_primary, then_of
from gateway.messages import Answer, Result, Work
from gateway.metrics import Slot
from gateway.ports import InferProtocol
from gateway.protocols.oip_v2 import passed_on, reply_lines
from gateway.record import Record
from gateway.snapshot import Rules
from routing import RouteRules
from tests.conftest import RunningValkey
from tests.gateway.test_dataplane import HeldExecutor, OnOnnx, Serving, Test, serving

BRAKE = {"failures": 3, "of": 5}
ROUTE: dict[str, Any] = {"model": "digits", "split": {"1": 5000, "2": 5000, "3": 0}, "brake": BRAKE}
Run = Callable[..., None]


class MoodyExecutor(OnOnnx):
    """Versions 2 and 3 fail as they are told to, and else run like any other."""

    fails: ServingError | InvalidInput | None = None

    async def execute(self, work: Work, protocol: InferProtocol) -> Result:
        if self.fails is not None and self.version in {"2", "3"}:
            raise self.fails
        return await super().execute(work, protocol)


@pytest.fixture
def run(valkey: RunningValkey, tmp_path: Path) -> Run:
    def run_test(test: Test, route: dict[str, Any], executor: type[OnOnnx] = MoodyExecutor, **more: Any) -> None:
        async def main() -> None:
            MoodyExecutor.fails = None
            async with serving(valkey, tmp_path, route, executor=executor, **more) as (made, rules):
                await test(made, rules)

        asyncio.run(main())

    return run_test


async def callers(made: Serving, count: int, begin: int = 0, version: str | None = None) -> list[Record]:
    """Have so many callers ask once and return their records."""
    for number in range(begin, begin + count):
        await made.infer(headers={"x-routing-key": f"c-{number}"}, version=version)
    return made.kept.records[-count:]


def headers_of(answer: Answer) -> dict[str, str]:
    """Return the headers with which an answer leaves."""
    lines = reply_lines(answer).splitlines()
    return dict(line.split(": ", 1) for line in lines) | dict(passed_on(answer.rendered.headers))


def follows(record: Record, rules: Rules) -> bool:
    """Tell whether an auditor finds the record's decision right."""
    snapshot = rules.snapshot
    assert snapshot is not None
    then = then_of(RouteRules(snapshot.routes["digits"].route, snapshot.cohorts))
    assert then is not None
    return judge_primary(record, then) is None


# ── brakes ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_version_that_fails_too_often_loses_its_callers_at_once(run: Run) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        before = {record.unit: record.intended for record in await callers(made, 40)}
        MoodyExecutor.fails = ModelFailed("it failed", "onnx")
        during = await callers(made, 40)
        failed = [record for record in during if record.outcome == "failed"]
        assert [record.intended for record in failed] == ["2"] * 3
        after = during[during.index(failed[-1]) + 1 :]
        assert {record.served for record in after} == {"1"}
        assert {record.reason for record in after} == {"split", "brake"}
        for record in after:
            assert record.intended == before[record.unit]
            assert (record.reason == "brake") == (record.intended == "2")
            assert record.braked == ("2",)
        assert all(follows(record, rules) for record in during)
        assert made.board[Slot.VERSIONS_BRAKED] == 1

    run(test, ROUTE)


def test_an_answer_after_a_diversion_names_the_brake(run: Run) -> None:
    async def test(made: Serving, _: Rules) -> None:
        MoodyExecutor.fails = ModelFailed("it failed", "onnx")
        await callers(made, 40)
        key = next(f"c-{n}" for n, record in enumerate(made.kept.records) if record.intended == "2")
        headers = headers_of(await made.infer(headers={"x-routing-key": key}))
        assert (headers["x-route-reason"], headers["x-model-version"]) == ("brake", "1")

    run(test, ROUTE)


@pytest.mark.parametrize("harmless", [None, InvalidInput("inputs[0]: wrong"), Overloaded("a queue is full")])
def test_what_is_not_the_versions_own_failure_brakes_nothing(run: Run, harmless: ServingError | None) -> None:
    async def test(made: Serving, _: Rules) -> None:
        MoodyExecutor.fails = harmless
        await callers(made, 60)
        assert made.board[Slot.VERSIONS_BRAKED] == 0

    run(test, ROUTE)


@pytest.mark.parametrize("failure", [BackendUnreachable("gone", "http://127.0.0.1:1"), DeadlineExceeded("late")])
def test_failures_of_a_backend_are_the_versions_own(run: Run, failure: ServingError) -> None:
    async def test(made: Serving, _: Rules) -> None:
        MoodyExecutor.fails = failure
        await callers(made, 60)
        assert made.board[Slot.VERSIONS_BRAKED] == 1

    run(test, ROUTE)


def test_the_haste_of_callers_brakes_nothing(run: Run) -> None:
    async def test(made: Serving, _: Rules) -> None:
        MoodyExecutor.fails = DeadlineExceeded("late")
        for number in range(60):
            headers = {"x-routing-key": f"c-{number}", "x-request-timeout-ms": "1000"}
            await made.infer(headers=headers)
        assert made.board[Slot.VERSIONS_BRAKED] == 0

    run(test, ROUTE)


def test_failures_too_far_apart_brake_nothing(run: Run) -> None:
    async def test(made: Serving, _: Rules) -> None:
        for number in range(40):
            MoodyExecutor.fails = ModelFailed("it failed", "onnx") if number % 3 == 0 else None
            await callers(made, 1, version="2")
        assert made.board[Slot.VERSIONS_BRAKED] == 0

    run(test, ROUTE)


def test_a_route_without_a_brake_diverts_nobody(run: Run) -> None:
    async def test(made: Serving, _: Rules) -> None:
        MoodyExecutor.fails = ModelFailed("it failed", "onnx")
        assert {record.reason for record in await callers(made, 60)} == {"split"}

    run(test, {**ROUTE, "brake": None})


def test_the_last_version_standing_is_never_braked(run: Run) -> None:
    async def test(made: Serving, _: Rules) -> None:
        MoodyExecutor.fails = ModelFailed("it failed", "onnx")
        records = await callers(made, 80)
        assert made.board[Slot.VERSIONS_BRAKED] == 1
        assert {record.served for record in records} == {None}
        assert all(len(record.braked) < 2 for record in records)

    run(test, {**ROUTE, "split": {"1": 0, "2": 5000, "3": 5000}})


def test_who_named_the_version_or_is_pinned_to_it_is_not_diverted(run: Run) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        MoodyExecutor.fails = ModelFailed("it failed", "onnx")
        await callers(made, 40)
        assert made.board[Slot.VERSIONS_BRAKED] == 1
        named = await made.infer(version="2")
        pinned = await made.infer(headers={"x-routing-key": "bea"})
        assert (named.reason, named.outcome, pinned.reason, pinned.outcome) == ("explicit", "failed", "pin", "failed")
        assert all(follows(record, rules) for record in made.kept.records)

    run(test, {**ROUTE, "pins": [{"cohort": "beta", "version": "2"}]})


def test_the_brake_ends_with_the_revision_by_which_the_version_failed(run: Run) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        MoodyExecutor.fails = ModelFailed("it failed", "onnx")
        await callers(made, 40)
        MoodyExecutor.fails = None
        await made.put({**ROUTE, "timeout_ms": 5_000}, rules)
        made.plane.look()
        assert made.board[Slot.VERSIONS_BRAKED] == 0
        assert {record.reason for record in await callers(made, 40)} == {"split"}

    run(test, ROUTE)


def test_a_failing_version_still_falls_back_until_it_is_braked(run: Run) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        MoodyExecutor.fails = ModelFailed("it failed", "onnx")
        records = await callers(made, 60)
        assert {record.served for record in records} == {"1"}
        fallen = [record for record in records if len(record.attempts) == 2]
        assert len(fallen) == BRAKE["failures"]
        assert all(follows(record, rules) for record in records)

    run(test, {**ROUTE, "fallback": ["1"]})


# ── limits of versions ───────────────────────────────────────────────────────────────────────────────────────────


async def together(made: Serving, count: int) -> list[Record]:
    """Send so many requests at once to a version that answers when it may, and return their records."""
    HeldExecutor.may = asyncio.Event()
    asking = [asyncio.ensure_future(made.infer()) for _ in range(count)]
    await asyncio.sleep(0)
    HeldExecutor.may.set()
    await asyncio.gather(*asking)
    return made.kept.records[-count:]


def limit_to(rules: Rules, version: str, most: int) -> None:
    assert rules.snapshot is not None
    rules.snapshot.versions["digits", version].limit.most = most


def test_what_is_over_the_limit_of_a_version_is_refused_at_once_and_recorded(run: Run) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        limit_to(rules, "1", 3)
        records = await together(made, 10)
        refused = [record for record in records if record.error_code == "overloaded"]
        assert len(refused) == 7
        assert {(one.status, one.intended, one.served, one.reason) for one in refused} == {(503, "1", None, "split")}
        assert "no more than 3 requests at once" in (refused[0].error or "")
        assert all(follows(record, rules) for record in records)
        assert [record.status for record in await together(made, 3)] == [200] * 3

    run(test, {"model": "digits", "split": {"1": 10_000}}, executor=HeldExecutor)


def test_the_refusal_says_when_to_come_back(run: Run) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        limit_to(rules, "1", 0)
        assert headers_of(await made.infer())["retry-after"] == "1"

    run(test, {"model": "digits", "split": {"1": 10_000}})


def test_limits_in_force_are_told_by_the_name_of_their_version(run: Run) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        await made.infer()
        limit_to(rules, "1", 3)
        assert made.guards.limits.look(1) == 1
        assert made.guards.limits.look(1) == 1
        assert made.limits == [{("digits", "1"): 3}]

    run(test, {"model": "digits", "split": {"1": 10_000}, "slowdown": 2})


def test_the_fallback_of_a_route_takes_what_is_over_the_limit(run: Run) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        limit_to(rules, "1", 3)
        records = await together(made, 10)
        assert [record.status for record in records] == [200] * 10
        assert sorted(record.served or "" for record in records) == ["1"] * 3 + ["2"] * 7
        assert all(follows(record, rules) for record in records)

    run(test, {"model": "digits", "split": {"1": 10_000}, "fallback": ["2"]}, executor=HeldExecutor)


def test_a_caller_that_hangs_up_leaves_its_place_to_others(run: Run) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        assert rules.snapshot is not None
        limit = rules.snapshot.versions["digits", "1"].limit
        HeldExecutor.may = asyncio.Event()
        asking = asyncio.ensure_future(made.infer())
        await asyncio.sleep(0)
        assert limit.in_flight == 1
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert limit.in_flight == 0

    run(test, {"model": "digits", "split": {"1": 10_000}}, executor=HeldExecutor)


# ── overload ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    """Has every turn of the loop look slow, or fast, for a while; the time is a test's own."""

    def __init__(self, made: Serving) -> None:
        self._overload = made.guards.overload
        self._now_ns = monotonic_ns()

    def looks(self, lag_ms: int, milliseconds: int) -> None:
        for _ in range(milliseconds // 20):
            self._now_ns += 20_000_000
            self._overload.note(self._now_ns, lag_ms * 1_000_000)


def test_a_worker_that_sheds_refuses_the_greedy_without_a_record_and_serves_the_modest(run: Run) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        clock = Clock(made)

        async def turn() -> tuple[list[int], list[int]]:
            greedy, modest = [], []
            for number in range(40):
                greedy.append((await made.infer(headers={"x-routing-key": "greedy"})).rendered.status)
                if number % 20 == 19:
                    modest.append((await made.infer(headers={"x-routing-key": "modest"})).rendered.status)
            clock.looks(60, 100)
            return greedy, modest

        for _ in range(4):
            await turn()
        kept = len(made.kept.records)
        greedy, modest = await turn()
        assert modest == [200] * 2
        assert set(greedy) == {200, 503}
        assert len(made.kept.records) - kept == 2 + greedy.count(200)
        assert made.board[Slot.SHED] >= greedy.count(503)

    run(test, {"model": "digits", "split": {"1": 10_000}})


def test_a_shed_request_is_told_when_to_come_back_and_no_id_of_a_record(run: Run) -> None:
    async def test(made: Serving, _: Rules) -> None:
        made.board[Slot.IN_FLIGHT] = 10_000  # more than the worker takes
        Clock(made).looks(1, 300)
        answer = await made.infer(headers={"x-request-id": "r-1"})
        headers = headers_of(answer)
        assert (answer.rendered.status, headers["retry-after"], headers["x-request-id"]) == (503, "1", "r-1")
        assert "x-record-id" not in headers
        assert "x-request-id" not in headers_of(await made.infer())
        assert made.kept.records == []

    run(test, {"model": "digits", "split": {"1": 10_000}})


def test_shadows_are_dropped_before_anybody_is_refused(run: Run) -> None:
    async def test(made: Serving, _: Rules) -> None:
        Clock(made).looks(40, 300)
        answer = await made.infer()
        assert answer.rendered.status == 200
        assert answer.launch_shadows is not None
        answer.launch_shadows()
        assert made.board[Slot.SHADOW_DROPPED_OVERLOAD] == 1
        assert made.board[Slot.SHADOWS_IN_FLIGHT] == 0

    run(test, {"model": "digits", "split": {"1": 10_000}, "shadows": [{"version": "2", "sample": 10_000}]})
