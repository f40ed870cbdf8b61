"""Dynamic batching: who shares a run, that each gets exactly its rows, and that a bad request fails alone."""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic_ns
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from gateway.catalog import Batching, Manifest, encode_manifest, parse_manifest, same_content
from gateway.config import OnnxSettings
from gateway.errors import ArtifactInvalid, DeadlineExceeded, InvalidInput, ModelFailed, Overloaded
from gateway.executors.onnx import OnnxExecutor
from gateway.executors.onnx_batching import Batcher, Feed, Ran, Started
from gateway.messages import Result, Work
from gateway.protocols.oip_v2 import OipV2
from tests.conftest import until

MakeModel = Callable[..., onnx.ModelProto]
SaveVersion = Callable[[onnx.ModelProto | bytes], Manifest]
Pools = dict[str, ThreadPoolExecutor]

SECOND = 1_000_000_000
PROTOCOL = OipV2()
THREADED = OnnxSettings(inline_below_ms=0)


def later(seconds: float = 60) -> int:
    return monotonic_ns() + int(seconds * SECOND)


class Doubling:
    """A model that doubles its rows, runs when it is told to, and refuses a batch with a negative number in it."""

    def __init__(self) -> None:
        self.runs: list[int] = []
        self.stopped = 0
        self.open = asyncio.Event()

    def start(self, names: Sequence[str], feed: Feed) -> Started:
        self.runs.append(len(feed["x"]))
        return Started(self._run(names, feed), self._stop)

    def _stop(self) -> None:
        self.stopped += 1

    async def _run(self, names: Sequence[str], feed: Feed) -> Ran:
        await self.open.wait()
        if (feed["x"] < 0).any():
            raise ModelFailed("a negative number", "onnx")
        now = monotonic_ns()
        return [feed["x"] * 2 for _ in names], now, now


def batcher(model: Doubling, max_batch: int = 8, max_wait_ms: float = 0, depth: int = 100, at_once: int = 1) -> Batcher:
    return Batcher("m/1", Batching(max_batch, max_wait_ms), model.start, at_once=at_once, depth=depth)


def rows(*values: float, wide: int = 1) -> Feed:
    return {"x": np.repeat(np.array(values, np.float32)[:, None], wide, axis=1)}


def ask(batching: Batcher, *values: float, names: Sequence[str] = ("y",), wide: int = 1, seconds: float = 60) -> Any:
    return asyncio.create_task(batching.submit(names, rows(*values, wide=wide), later(seconds)), name=str(values))


def got(task: "asyncio.Task[Ran]") -> list[float]:
    arrays, _, _ = task.result()
    return [float(value) for value in arrays[0][:, 0]]


def test_what_waits_while_one_run_is_under_way_shares_the_next_and_each_gets_its_rows() -> None:
    async def main() -> None:
        model = Doubling()
        batching = batcher(model)
        first = ask(batching, 1)
        await until(lambda: model.runs == [1])
        others = [ask(batching, number, number + 0.5) for number in range(2, 5)]
        await asyncio.sleep(0)
        model.open.set()
        await asyncio.gather(first, *others)
        assert model.runs == [1, 6]
        assert [got(task) for task in (first, *others)] == [[2], [4, 5], [6, 7], [8, 9]]

    asyncio.run(main())


def test_a_run_never_has_more_rows_than_allowed_but_for_a_single_request_that_has() -> None:
    async def main() -> None:
        model = Doubling()
        batching = batcher(model, max_batch=4)
        tasks = [ask(batching, *range(size)) for size in (1, 3, 2, 2, 9, 1)]
        await until(lambda: bool(model.runs))
        model.open.set()
        await asyncio.gather(*tasks)
        assert [len(got(task)) for task in tasks] == [1, 3, 2, 2, 9, 1]
        assert model.runs == [4, 4, 9, 1]

    asyncio.run(main())


def test_requests_that_differ_in_their_other_dimensions_or_outputs_never_meet() -> None:
    async def main() -> None:
        model = Doubling()
        batching = batcher(model)
        blocked = ask(batching, 0)
        await until(lambda: model.runs == [1])
        tasks = [
            ask(batching, 1),
            ask(batching, 2, wide=3),
            ask(batching, 3),
            ask(batching, 4, names=("y", "z")),
            ask(batching, 5, wide=3),
        ]
        await asyncio.sleep(0)
        model.open.set()
        await asyncio.gather(blocked, *tasks)
        assert model.runs == [1, 2, 2, 1]
        assert [got(task) for task in tasks] == [[2], [4], [6], [8], [10]]

    asyncio.run(main())


def test_a_run_that_is_not_full_waits_for_more_but_no_longer_than_allowed() -> None:
    async def main() -> None:
        model = Doubling()
        model.open.set()
        patient = batcher(model, max_batch=3, max_wait_ms=60_000 / 1_000)
        alone = ask(patient, 1)
        assert got_after(await alone) == [2]
        full = batcher(model, max_batch=3, max_wait_ms=1_000)
        tasks = [ask(full, 1), ask(full, 2), ask(full, 3)]
        await asyncio.gather(*tasks)
        assert model.runs == [1, 3]

    asyncio.run(main())


def got_after(ran: Ran) -> list[float]:
    return [float(value) for value in ran[0][0][:, 0]]


def test_a_bad_request_fails_alone_and_the_others_of_its_batch_are_answered() -> None:
    async def main() -> None:
        model = Doubling()
        batching = batcher(model)
        tasks = [ask(batching, 1), ask(batching, -2), ask(batching, 3)]
        await until(lambda: bool(model.runs))
        model.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[1], ModelFailed)
        assert [got(tasks[0]), got(tasks[2])] == [[2], [6]]
        assert model.runs == [3, 1, 1, 1]

    asyncio.run(main())


def test_a_request_that_waited_past_its_deadline_is_told_so_and_is_never_run() -> None:
    async def main() -> None:
        model = Doubling()
        batching = batcher(model)
        blocked = ask(batching, 1)
        await until(lambda: model.runs == [1])
        late = ask(batching, 2, seconds=0.01)
        with pytest.raises(DeadlineExceeded):
            await late
        model.open.set()
        await blocked
        after = ask(batching, 3)
        await after
        assert [got(blocked), got(after)] == [[2], [6]]
        assert model.runs == [1, 1]

    asyncio.run(main())


def test_a_run_that_nobody_waits_for_any_more_is_stopped() -> None:
    async def main() -> None:
        model = Doubling()
        batching = batcher(model)
        tasks = [ask(batching, 1), ask(batching, 2)]
        await until(lambda: model.runs == [2])
        tasks[0].cancel()
        await asyncio.sleep(0)
        assert model.stopped == 0
        tasks[1].cancel()
        await asyncio.wait(tasks)
        await until(lambda: model.stopped == 1)
        await batching.close()

    asyncio.run(main())


def test_a_full_queue_refuses_and_takes_requests_again_when_it_has_room() -> None:
    async def main() -> None:
        model = Doubling()
        batching = batcher(model, depth=2)
        tasks = [ask(batching, 1)]
        await until(lambda: model.runs == [1])
        tasks += [ask(batching, 2), ask(batching, 3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await ask(batching, 4)
        model.open.set()
        await asyncio.gather(*tasks)
        await ask(batching, 5)

    asyncio.run(main())


def test_any_crowd_of_requests_gets_its_own_rows_whatever_is_cancelled_meanwhile() -> None:
    chance = random.Random(7)

    async def main() -> None:
        model = Doubling()
        model.open.set()
        batching = batcher(model, max_batch=16, at_once=2)
        tasks, expected = [], []
        for _ in range(500):
            values = [chance.random() for _ in range(chance.randint(1, 6))]
            expected.append([float(np.float32(value) * 2) for value in values])
            tasks.append(ask(batching, *values, wide=chance.choice((1, 2))))
            if chance.random() < 0.1:
                chance.choice(tasks).cancel()
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        await asyncio.wait(tasks)
        for task, values in zip(tasks, expected, strict=True):
            assert task.cancelled() or got(task) == values
        assert sum(task.cancelled() for task in tasks) < 100
        assert len(model.runs) < 400

    asyncio.run(main())


# ── real models ──────────────────────────────────────────────────────────────────────────────────────────────────────


def with_batching(manifest: Manifest, max_batch: int = 32) -> Manifest:
    assert manifest.backend.onnx is not None
    onnx_backend = msgspec.structs.replace(manifest.backend.onnx, batching=Batching(max_batch, 5))
    return msgspec.structs.replace(manifest, backend=msgspec.structs.replace(manifest.backend, onnx=onnx_backend))


def work(values: list[list[float]], seconds: float = 60) -> Work:
    tensor = {"name": "x", "shape": [len(values), len(values[0])], "datatype": "FP32", "data": values}
    return Work(json.dumps({"inputs": [tensor]}).encode(), {}, (), later(seconds))


def answered(result: Result) -> list[float]:
    data: list[float] = json.loads(result.rendered.body)["outputs"][0]["data"]
    return data


def test_requests_to_a_real_model_share_runs_and_get_what_they_would_get_alone(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": ("FP32", [None, 3])},
        {"y": ("FP32", [None, 2])},
        {"w": np.array([[1, 2], [3, 4], [5, 6]], np.float32)},
    )

    async def main() -> None:
        executor = OnnxExecutor(with_batching(save_version(model)), THREADED, pools)
        await executor.prepare()
        asked = [[[float(n), 1.0, 0.0]] * (n % 3 + 1) for n in range(40)]
        results = await asyncio.gather(*(executor.execute(work(values), PROTOCOL) for values in asked))
        for values, result in zip(asked, results, strict=True):
            assert answered(result) == [number for row in values for number in (row[0] + 3, 2 * row[0] + 4)]
        assert len({result.infer_ns for result in results}) < 20  # a shared run has one time
        await executor.release()

    asyncio.run(main())


def test_a_version_whose_first_dimension_is_not_free_is_refused_when_it_asks_for_batching(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    model = make_model([helper.make_node("Identity", ["x"], ["y"])], {"x": ("FP32", [1, 2])}, {"y": ("FP32", [1, 2])})

    async def main() -> None:
        executor = OnnxExecutor(with_batching(save_version(model)), THREADED, pools)
        with pytest.raises(ArtifactInvalid, match="needs a free first dimension"):
            await executor.prepare()

    asyncio.run(main())


def test_a_model_whose_outputs_do_not_follow_its_rows_is_answered_right_and_not_batched_again(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    """Rows that stand twice come out once, over a whole batch, too; the signature does not tell."""
    model = make_model(
        [helper.make_node("Unique", ["x"], ["y"], axis=0, sorted=1)],
        {"x": ("FP32", [None, 2])},
        {"y": ("FP32", [None, 2])},
    )

    async def main() -> None:
        executor = OnnxExecutor(with_batching(save_version(model)), THREADED, pools)
        await executor.prepare()
        for _ in range(2):
            asked = [[[float(n), 1.0], [0.0, 1.0]] for n in range(1, 10)]
            results = await asyncio.gather(*(executor.execute(work(values), PROTOCOL) for values in asked))
            assert [answered(result) for result in results] == [[0.0, 1.0, n, 1.0] for n in range(1, 10)]
        await executor.release()

    asyncio.run(main())


def test_values_that_a_model_refuses_are_the_mistake_of_their_sender_alone(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    model = make_model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        {"x": ("INT64", [None, 1])},
        {"y": ("FP32", [None, 1])},
        {"table": np.array([10.0, 20.0, 30.0], np.float32)},
    )

    async def main() -> None:
        executor = OnnxExecutor(with_batching(save_version(model)), THREADED, pools)
        await executor.prepare()

        def index(number: int) -> Work:
            tensor = {"name": "x", "shape": [1, 1], "datatype": "INT64", "data": [number]}
            return Work(json.dumps({"inputs": [tensor]}).encode(), {}, (), later())

        numbers = [0, 1, 99, 2]
        results = await asyncio.gather(
            *(executor.execute(index(number), PROTOCOL) for number in numbers), return_exceptions=True
        )
        assert isinstance(results[2], InvalidInput | ModelFailed)
        assert [answered(one) for one in results if isinstance(one, Result)] == [[10.0], [20.0], [30.0]]
        await executor.release()

    asyncio.run(main())


def test_batching_stands_in_the_manifest_and_is_part_of_what_a_version_is() -> None:
    plain = parse_manifest({"model": "m", "version": "1", "backend": {"onnx": {"path": "m.onnx", "sha256": "a" * 64}}})
    batched = parse_manifest(
        {
            "model": "m",
            "version": "1",
            "backend": {"onnx": {"path": "m.onnx", "sha256": "a" * 64, "batching": {"max_batch": 8}}},
        }
    )
    assert b"batching" not in encode_manifest(plain)
    assert batched.backend.onnx is not None
    assert batched.backend.onnx.batching == Batching(8, 2.0)
    assert not same_content(plain, batched)
    assert parse_manifest(encode_manifest(batched)) == batched
