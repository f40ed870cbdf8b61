"""The path of a request with real parts in one process: rules in a real Valkey, ONNX models, a journal on disk."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import monotonic_ns, time_ns
from typing import Any

import pytest

from gateway.arrival import Arrival
from gateway.capture import Contents, fits, open_part
from gateway.catalog import Manifest, Signature
from gateway.config import OnnxSettings, RulesSettings, ShadowSettings
from gateway.controlplane import ControlPlane, StoreWatch
from gateway.controlplane import Origin as ChangeOrigin
from gateway.dataplane import DataPlane
from gateway.errors import AuditUnavailable, BodyTooLarge
from gateway.examples import digit_samples, digits_folder
from gateway.executors.onnx import OnnxExecutor
from gateway.flight import Flight, Origin
from gateway.gauges import BoardFolder
from gateway.guards import Guards
from gateway.inquiries import Inquiries
from gateway.messages import Answer, InferRequest, Result, Work
from gateway.metrics import Board, Slot
from gateway.ports import Executor, InferProtocol
from gateway.protocols.oip_v2 import OipV2
from gateway.record import Record
from gateway.request_lines import RequestLines
from gateway.shadow import Shadows
from gateway.snapshot import Rules
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.revisions_sqlite import SqliteRevisions
from gateway.stores.rules_redis import RedisRules
from routing import Facts, parse_cohort, resolve, unit_digest
from tests.conftest import RunningValkey, until

PIXELS = list(digit_samples()[0].pixels)
BODY = json.dumps(
    {"id": "b-1", "inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": PIXELS}]}
).encode()
ROUTE = {"model": "digits", "split": {"1": 9000, "2": 1000, "3": 0}}


class Kept:
    """A sink of records in memory: `full` has no room for now, `broken` fails for good with the next record, and what
    `slow` was given is safe only when `settle` is called, as with durability `power`.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.parts: list[tuple[bytes, bytes]] = []
        self.full = False
        self.broken = False
        self.failed = False
        self.slow = False
        self._waiting: list[Arrival[None]] = []

    def check(self) -> None:
        if self.full or self.failed:
            raise AuditUnavailable("no record can be kept")

    def append(self, record: Record, request: bytes, response: bytes) -> Arrival[None] | None:
        self.failed = self.failed or self.broken
        if self.failed:
            raise AuditUnavailable("this prediction cannot be recorded")
        self.records.append(record)
        self.parts.append((request, response))
        if not self.slow:
            return None
        self._waiting.append(Arrival())
        return self._waiting[-1]

    @property
    def waits(self) -> bool:
        """Whether anything is waited for."""
        return bool(self._waiting)

    def settle(self, error: AuditUnavailable | None = None) -> None:
        """Say that everything is on the disk, or has failed to get there."""
        for waiting in self._waiting:
            if error is None:
                waiting.arrive(None)
            else:
                waiting.fail(error)
        self._waiting.clear()

    def request(self, number: int) -> Contents:
        """Return what was kept of the request of a record."""
        contents = open_part(self.parts[number][0], self.records[number].request)
        assert contents is not None
        return contents


class OnOnnx:
    """An executor that has another run the model; for those that do something before."""

    def __init__(self, manifest: Manifest, settings: OnnxSettings, pools: Mapping[str, ThreadPoolExecutor]) -> None:
        self.version = manifest.version
        self._runs = OnnxExecutor(manifest, settings, pools)
        self.active = 0
        self.prepare, self.ready, self.release = self._runs.prepare, self._runs.ready, self._runs.release

    async def execute(self, work: Work, protocol: InferProtocol) -> Result:
        return await self._runs.execute(work, protocol)


class HeldExecutor(OnOnnx):
    """Runs its model only when it may."""

    may = asyncio.Event()

    async def execute(self, work: Work, protocol: InferProtocol) -> Result:
        await self.may.wait()
        return await super().execute(work, protocol)


class Serving:
    """A data plane and what the tests look at beside it."""

    guards: Guards
    limits: list[Mapping[tuple[str, str], int]]

    def __init__(self, plane: DataPlane, kept: Kept, board: Board, shadows: Shadows, control: ControlPlane) -> None:
        self.plane, self.kept, self.board, self.shadows, self.control = plane, kept, board, shadows, control
        self.protocol = OipV2()

    async def infer(self, body: bytes = BODY, version: str | None = None, model: str = "digits", **more: Any) -> Answer:
        headers = {name.replace("_", "-"): value for name, value in more.pop("headers", {}).items()}
        request = InferRequest(model, version, headers, body, "127.0.0.1", time_ns(), monotonic_ns(), **more)
        return await self.plane.infer(request, self.protocol)

    async def put(self, route: dict[str, Any], rules: Rules) -> int:
        present = rules.snapshot.routes.get(route["model"]) if rules.snapshot else None
        expect = present.revision if present else None
        published = await self.control.put_route(
            route["model"], json.dumps(route).encode(), expect, ChangeOrigin("test", "", str(time_ns()))
        )
        assert published.in_force, published.laggards
        return published.revision


@asynccontextmanager
async def serving(
    valkey: RunningValkey,
    folder: Path,
    route: dict[str, Any],
    shadow: ShadowSettings | None = None,
    executor: type[OnOnnx] = OnOnnx,
) -> AsyncIterator[tuple[Serving, Rules]]:
    board = Board(folder / "board")
    board.begin()
    store = RedisRules(valkey.url)
    pools = {lane: ThreadPoolExecutor(2) for lane in ("primary", "shadow")}

    def executor_for(manifest: Manifest) -> Executor:
        return executor(manifest, OnnxSettings(), pools)

    async def inspect(_: Manifest) -> Signature | None:
        return None

    audit, archive = SqliteAudit(folder / "audit"), SqliteRevisions(folder / "revisions.db")
    boards = BoardFolder(folder / "run")
    watch = StoreWatch(store, folder / "rules", boards)
    make = partial(ControlPlane, store, audit, archive, inspect, watch, boards, gateway="gateway")
    control, alone = make(publish_wait_s=10.0), make(publish_wait_s=0.0)  # until there is a worker, none is waited for
    origin = ChangeOrigin("test", "", f"{folder.name}-cohort")
    for version in ("1", "2", "3"):
        source = digits_folder() / version
        document = json.loads((source / "manifest.json").read_text())
        document["backend"]["onnx"]["path"] = str(source / "model.onnx")
        await alone.register(
            "digits", json.dumps(document).encode(), False, ChangeOrigin("test", "", f"{folder.name}{version}")
        )
    await alone.put_cohort("beta", b'{"name": "beta", "keys": ["bea"]}', None, origin)
    rules = Rules(store, executor_for, folder / "rules", board, RulesSettings(), "gateway/w0")
    kept = Kept()
    limits: list[Mapping[tuple[str, str], int]] = []
    guards = Guards(board, tell_limits=limits.append)
    shadows = Shadows(shadow or ShadowSettings(), kept, board, guards.overload)
    plane = DataPlane(rules, kept, shadows, board, Origin("gateway", "w0"), RequestLines("info"), guards)
    await rules.start()
    following = asyncio.create_task(rules.run())
    try:
        made = Serving(plane, kept, board, shadows, control)
        made.guards = guards
        made.limits = limits
        await made.put(route, rules)
        yield made, rules
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await rules.close()
        await store.close()
        for part in (audit, archive, boards):
            part.close()
        for pool in pools.values():
            pool.shutdown()
        board.close()


Test = Callable[[Serving, Rules], Awaitable[None]]


@pytest.fixture
def run(valkey: RunningValkey, tmp_path: Path) -> Callable[..., None]:
    def run_test(test: Test, route: dict[str, Any] = ROUTE, **settings: Any) -> None:
        async def main() -> None:
            async with serving(valkey, tmp_path, route, **settings) as (made, rules):
                await test(made, rules)

        asyncio.run(main())

    return run_test


def test_the_answer_and_its_record_tell_the_same_and_the_decision_can_be_recomputed(run: Callable[..., None]) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        for number in range(50):
            answer = await made.infer(headers={"x-routing-key": f"caller-{number}", "x-request-id": f"r-{number}"})
            record = made.kept.records[-1]
            assert answer.rendered.status == record.status == 200
            assert (answer.record_id, answer.request_id) == (record.record_id, f"r-{number}")
            assert (answer.served, answer.reason) == (record.served, record.reason) == (record.intended, "split")
            assert record.oip_id == "b-1"
            assert record.unit == unit_digest(f"caller-{number}").hex()
            assert rules.snapshot is not None
            facts = Facts(bytes.fromhex(record.unit), record.record_id, record.received_ns, record.keyed)
            assert resolve(rules.snapshot.routes["digits"].route, {}, facts).version == record.served
        assert {record.served for record in made.kept.records} == {"1", "2"}

    run(test)


def test_a_request_without_a_routing_key_is_drawn_by_its_record_id(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        await made.infer()
        record = made.kept.records[-1]
        assert not record.keyed
        assert record.unit == unit_digest(record.record_id).hex()

    run(test)


def test_a_pin_is_named_in_answer_and_record_and_no_other_header_is_kept(run: Callable[..., None]) -> None:
    route = {**ROUTE, "pins": [{"cohort": "beta", "version": "3"}]}

    async def test(made: Serving, _: Rules) -> None:
        answer = await made.infer(headers={"x-routing-key": "bea", "authorization": "Bearer secret"})
        record = made.kept.records[-1]
        assert (answer.served, answer.reason, answer.cohort) == ("3", "pin", "beta")
        assert (record.rule, record.cohort, record.headers) == ("pins[0]", "beta", {})
        assert record.cohort_revision is not None
        assert b"secret" not in repr(record).encode()
        assert b"bea'" not in repr(record).encode()

    run(test, route)


def test_a_consulted_header_is_recorded_because_the_decision_needs_it(run: Callable[..., None]) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        cohort = {"name": "acme", "match": [{"header": "X-Tenant", "in": ["acme"]}]}
        await made.control.put_cohort("acme", json.dumps(cohort).encode(), None, ChangeOrigin("t", "", "acme"))
        await made.put({**ROUTE, "pins": [{"cohort": "acme", "version": "2"}]}, rules)
        answer = await made.infer(headers={"x-tenant": "acme", "x-other": "1"})
        record = made.kept.records[-1]
        assert (answer.reason, record.headers) == ("pin", {"x-tenant": "acme"})
        assert rules.snapshot is not None
        parsed = {"acme": parse_cohort(cohort)}
        facts = Facts(
            bytes.fromhex(record.unit or ""), record.record_id, record.received_ns, False, None, record.headers
        )
        assert resolve(rules.snapshot.routes["digits"].route, parsed, facts).cohort == "acme"

    run(test)


@pytest.mark.parametrize(
    ("route", "version", "status", "code"),
    [
        (ROUTE, "9", 404, "unknown_version"),
        ({**ROUTE, "split": {"1": 10_000}}, "3", 404, "unknown_version"),
        ({**ROUTE, "client_versions": "deny"}, "1", 403, "version_not_allowed"),
    ],
)
def test_a_version_that_cannot_be_named_is_refused_and_recorded(
    route: dict[str, Any], version: str, status: int, code: str, run: Callable[..., None]
) -> None:
    async def test(made: Serving, _: Rules) -> None:
        answer = await made.infer(version=version)
        record = made.kept.records[-1]
        assert (answer.rendered.status, record.error_code, record.outcome) == (status, code, "refused")
        assert (record.asked_version, record.served) == (version, None)
        assert record.known_model

    run(test, route)


def test_an_unknown_model_is_refused_and_marked_so_that_it_becomes_no_label(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        answer = await made.infer(model="x" * 5000)
        record = made.kept.records[-1]
        assert (answer.rendered.status, record.known_model) == (404, False)
        assert len(answer.rendered.body) < 1000

    run(test)


def test_what_the_wire_refused_is_recorded_with_the_size_it_announced(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        answer = await made.infer(b"", refused=BodyTooLarge("body: too large"), declared_size=10**9)
        record = made.kept.records[-1]
        assert answer.rendered.status == 413
        assert (record.request.size, record.request.kept, record.error_code) == (10**9, False, "body_too_large")
        assert (made.kept.request(-1).body, made.kept.request(-1).sha256) == (None, "")
        assert fits(made.kept.parts[-1][0], record.request)

    run(test)


def test_a_request_that_failed_leaves_nothing_to_the_garbage_collector(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        gc.collect()
        gc.disable()
        try:
            for asked in ({"model": "nobody"}, {"body": b"no json"}, {"version": "99"}):
                assert (await made.infer(**asked)).rendered.status >= 400
            assert not [one for one in gc.get_objects() if isinstance(one, Flight)]
        finally:
            gc.enable()

    run(test)


def test_no_answer_leaves_without_its_record(run: Callable[..., None]) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        made.kept.broken = True
        answer = await made.infer()
        assert answer.rendered.status == 503
        assert b"outputs" not in answer.rendered.body
        assert answer.launch_shadows is None
        assert not Inquiries(rules, made.kept).ready()
        assert made.board[Slot.REFUSED_UNRECORDED] == 1

    run(test, {**ROUTE, "shadows": [{"version": "3", "sample": 10_000}]})


def test_nothing_is_begun_while_no_record_can_be_kept_and_it_goes_on_when_there_is_room(
    run: Callable[..., None],
) -> None:
    async def test(made: Serving, rules: Rules) -> None:
        made.kept.full = True
        answer = await made.infer()
        assert (answer.rendered.status, answer.error.code if answer.error else "") == (503, "audit_unavailable")
        assert answer.launch_shadows is None
        assert made.kept.records == []
        assert not Inquiries(rules, made.kept).ready()
        assert made.board[Slot.REFUSED_UNRECORDED] == 1
        made.kept.full = False
        assert (await made.infer()).rendered.status == 200
        assert Inquiries(rules, made.kept).ready()

    run(test, {**ROUTE, "shadows": [{"version": "3", "sample": 10_000}]})


def test_an_answer_waits_until_its_record_is_safe_and_is_withheld_when_that_fails(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        made.kept.slow = True
        for error, status in ((None, 200), (AuditUnavailable("the disk did not take it"), 503)):
            asked = asyncio.create_task(made.infer())
            await until(lambda: made.kept.waits)
            assert not asked.done()
            made.kept.settle(error)
            assert (await asked).rendered.status == status
        assert [record.status for record in made.kept.records] == [200, 200]
        assert made.board[Slot.REFUSED_UNRECORDED] == 1

    run(test)


def test_a_caller_who_hangs_up_while_the_record_is_written_leaves_it_there_once(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        made.kept.slow = True
        asked = asyncio.create_task(made.infer())
        await until(lambda: made.kept.waits)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        made.kept.settle()
        assert asked.cancelled()
        assert [record.status for record in made.kept.records] == [200]
        assert made.board[Slot.IN_FLIGHT] == 0

    run(test)


def test_a_request_that_is_cancelled_while_it_is_served_is_recorded_and_nobody_waits_for_that(
    run: Callable[..., None],
) -> None:
    async def test(made: Serving, _: Rules) -> None:
        unheard: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        made.kept.slow = True
        asked = asyncio.create_task(made.infer())
        await until(lambda: made.board[Slot.IN_FLIGHT])
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert asked.cancelled()
        made.kept.settle(AuditUnavailable("the disk did not take it"))
        await asyncio.sleep(0)
        gc.collect()
        assert unheard == []
        assert [(record.outcome, record.error_code) for record in made.kept.records] == [("failed", "stopping")]

    run(test, executor=HeldExecutor)


def test_nothing_stays_in_flight_whatever_happens(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        await made.infer()
        await made.infer(b"garbage")
        await made.infer(model="nobody")
        assert made.board[Slot.IN_FLIGHT] == 0

    run(test)


def test_a_route_time_out_is_a_504_with_a_record(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        request = InferRequest("digits", None, {}, BODY, "", time_ns(), monotonic_ns() - 10**9)
        answer = await made.plane.infer(request, made.protocol)
        record = made.kept.records[-1]
        assert (answer.rendered.status, record.error_code, record.outcome) == (504, "deadline_exceeded", "failed")

    run(test, {**ROUTE, "timeout_ms": 500})


def test_a_caller_may_ask_for_less_time_than_the_route_allows_but_not_for_more(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        for asked_ms, status in (("200", 504), ("999999", 200)):
            headers = {"x-request-timeout-ms": asked_ms}
            request = InferRequest("digits", None, headers, BODY, "", time_ns(), monotonic_ns() - 10**9)
            answer = await made.plane.infer(request, made.protocol)
            assert (answer.rendered.status, made.kept.records[-1].status) == (status, status)
        late = InferRequest(
            "digits", None, {"x-request-timeout-ms": "9999999"}, BODY, "", time_ns(), monotonic_ns() - 31 * 10**9
        )
        assert (await made.plane.infer(late, made.protocol)).rendered.status == 504

    run(test)


def test_a_time_that_is_no_number_is_refused_by_name_and_recorded(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        answer = await made.infer(headers={"x-request-timeout-ms": "2s"})
        assert answer.rendered.status == 400
        assert b"X-Request-Timeout-Ms: expected a whole number of milliseconds" in answer.rendered.body
        record = made.kept.records[-1]
        assert (record.outcome, record.error_code, record.attempts) == ("refused", "invalid_header", ())

    run(test)


def test_a_shadow_starts_only_when_the_reply_has_left_and_leaves_its_own_record(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        answer = await made.infer(headers={"x-routing-key": "ann", "x-request-id": "r"})
        await asyncio.sleep(0)
        assert len(made.kept.records) == 1
        assert answer.launch_shadows is not None
        answer.launch_shadows()
        await made.shadows.drain(10)
        primary, shadow = made.kept.records
        assert (shadow.role, shadow.primary_id, shadow.request_id) == ("shadow", primary.record_id, "r")
        assert (shadow.served, shadow.outcome) == ("3", "served")
        assert shadow.record_id != primary.record_id
        assert made.board[Slot.SHADOWS_IN_FLIGHT] == 0

    run(test, {**ROUTE, "shadows": [{"version": "3", "sample": 10_000}]})


@pytest.mark.parametrize(
    ("settings", "slot"),
    [
        (ShadowSettings(max_in_flight=0), Slot.SHADOW_DROPPED_IN_FLIGHT),
        (ShadowSettings(max_body_bytes=10), Slot.SHADOW_DROPPED_BODY_SIZE),
    ],
)
def test_a_copy_beyond_a_limit_is_dropped_and_counted_by_reason(
    settings: ShadowSettings, slot: Slot, run: Callable[..., None]
) -> None:
    async def test(made: Serving, _: Rules) -> None:
        answer = await made.infer()
        assert answer.launch_shadows is not None
        answer.launch_shadows()
        assert made.board[slot] == 1
        await made.shadows.drain(10)
        assert len(made.kept.records) == 1

    run(test, {**ROUTE, "shadows": [{"version": "3", "sample": 10_000}]}, shadow=settings)


def test_a_copy_that_starts_while_the_worker_stops_is_dropped_and_counted(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        answer = await made.infer()
        await made.shadows.drain(0)
        assert answer.launch_shadows is not None
        answer.launch_shadows()
        assert made.board[Slot.SHADOW_DROPPED_STOPPING] == 1

    run(test, {**ROUTE, "shadows": [{"version": "3", "sample": 10_000}]})


def test_a_refused_request_has_no_shadow(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        assert (await made.infer(b"garbage")).launch_shadows is None

    run(test, {**ROUTE, "shadows": [{"version": "3", "sample": 10_000}]})


def test_redacted_fields_are_in_no_record(run: Callable[..., None]) -> None:
    async def test(made: Serving, _: Rules) -> None:
        answer = await made.infer()
        assert answer.launch_shadows is not None
        answer.launch_shadows()
        await made.shadows.drain(10)
        primary, shadow = made.kept.records
        assert primary.request.redacted
        assert json.loads(made.kept.request(0).body or b"")["inputs"][0]["data"] == "[redacted]"
        assert shadow.request == primary.request
        assert made.kept.parts[1][0] == b""

    shadows = [{"version": "3", "sample": 10_000}]
    run(test, {**ROUTE, "capture": {"redact": ["/inputs/0/data"]}, "shadows": shadows})
