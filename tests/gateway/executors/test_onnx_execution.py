"""Running real ONNX models: tensors in and out, where a run happens, and how it is stopped."""

import asyncio
import gc
import json
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic_ns
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from gateway.catalog import Manifest
from gateway.config import OnnxSettings
from gateway.errors import DeadlineExceeded, InvalidInput, ModelFailed, VersionNotReady
from gateway.executors.onnx import OnnxExecutor
from gateway.messages import Result, Work
from gateway.protocols.oip_v2 import OipV2

MakeModel = Callable[..., onnx.ModelProto]
LoopModel = Callable[[int], onnx.ModelProto]
SaveVersion = Callable[[onnx.ModelProto | bytes], Manifest]
Pools = dict[str, ThreadPoolExecutor]

SECOND = 1_000_000_000
PROTOCOL = OipV2()
INLINE = OnnxSettings(inline_below_ms=60_000)
THREADED = OnnxSettings(inline_below_ms=0)


def work(*inputs: dict[str, Any], seconds: float = 60, lane: Any = "primary", **more: Any) -> Work:
    body = json.dumps({"inputs": list(inputs), **more}).encode()
    return Work(body, {}, (), monotonic_ns() + int(seconds * SECOND), lane)


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def outputs_of(result: Result) -> dict[str, Any]:
    return {output["name"]: output for output in json.loads(result.rendered.body)["outputs"]}


def run(manifest: Manifest, pools: Pools, asked: Work, settings: OnnxSettings = INLINE) -> Result:
    """Prepare a version, run one request on it and release it."""

    async def main() -> Result:
        executor = OnnxExecutor(manifest, settings, pools)
        await executor.prepare()
        try:
            return await executor.execute(asked, PROTOCOL)
        finally:
            await executor.release()

    return asyncio.run(main())


def identity(make_model: MakeModel, datatype: str) -> onnx.ModelProto:
    shape = (datatype, ["n", 2])
    return make_model([helper.make_node("Identity", ["x"], ["y"])], {"x": shape}, {"y": shape})


VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "FP16": [0.5, -65504.0],
    "FP32": [0.1, -3.4028235e38],
    "FP64": [0.1, -1.7976931348623157e308],
    "BYTES": ["naïve \x00", ""],
}


@pytest.mark.parametrize("settings", [INLINE, THREADED], ids=["inline", "threaded"])
@pytest.mark.parametrize("datatype", VALUES)
def test_every_datatype_goes_through_a_model_unchanged(
    datatype: str, settings: OnnxSettings, make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    manifest = save_version(identity(make_model, datatype))
    data = VALUES[datatype] * 2
    result = run(manifest, pools, work(tensor("x", datatype, [2, 2], data), id="r"), settings)
    assert result.rendered.status == 200
    assert result.backend == "onnx"
    assert json.loads(result.rendered.body) == {
        "model_name": "m",
        "model_version": "1",
        "id": "r",
        "outputs": [{"name": "y", "datatype": datatype, "shape": [2, 2], "data": data}],
    }


def two_by_two(make_model: MakeModel) -> onnx.ModelProto:
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])]
    row = ("FP32", ["batch", 2])
    return make_model(nodes, {"a": row, "b": row}, {"sum": row, "difference": row})


A = tensor("a", "FP32", [2, 2], [1, 2, 3, 4])
B = tensor("b", "FP32", [2, 2], [[10, 20], [30, 40]])


def test_several_inputs_and_outputs_in_a_batch(make_model: MakeModel, save_version: SaveVersion, pools: Pools) -> None:
    outputs = outputs_of(run(save_version(two_by_two(make_model)), pools, work(B, A)))
    assert list(outputs) == ["sum", "difference"]
    assert outputs["sum"]["data"] == [11, 22, 33, 44]
    assert outputs["difference"]["data"] == [-9, -18, -27, -36]


def test_only_the_outputs_asked_for_are_given_in_the_order_asked(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    manifest = save_version(two_by_two(make_model))
    some = run(manifest, pools, work(A, B, outputs=[{"name": "difference"}]))
    assert list(outputs_of(some)) == ["difference"]
    both = run(manifest, pools, work(A, B, outputs=[{"name": "difference"}, {"name": "sum"}]))
    assert list(outputs_of(both)) == ["difference", "sum"]


def test_inputs_whose_symbolic_dimension_disagrees_are_refused_before_the_model_runs(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    longer = tensor("b", "FP32", [3, 2], [0] * 6)
    with pytest.raises(InvalidInput, match=r"inputs\[1\]\.shape\[0\]: expected 2 as in inputs\[0\]"):
        run(save_version(two_by_two(make_model)), pools, work(A, longer))


@pytest.mark.parametrize("settings", [INLINE, THREADED], ids=["inline", "threaded"])
def test_values_that_the_model_refuses_are_the_callers_mistake(
    settings: OnnxSettings, make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    model = make_model(
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        {"i": ("INT64", ["n"])},
        {"y": ("FP32", ["n"])},
        {"table": np.arange(5, dtype=np.float32)},
    )
    with pytest.raises(InvalidInput) as caught:
        run(save_version(model), pools, work(tensor("i", "INT64", [1], [99])), settings)
    assert caught.value.message == (
        "inputs: the model refuses these values: Gather: indices element out of data bounds, "
        "idx=99 must be within the inclusive range [-5,4]"
    )


@pytest.mark.parametrize("settings", [INLINE, THREADED], ids=["inline", "threaded"])
def test_a_model_that_cannot_run_its_own_graph_has_failed(
    settings: OnnxSettings,
    make_model: MakeModel,
    save_version: SaveVersion,
    pools: Pools,
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = make_model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        {"x": ("FP32", ["n"])},
        {"y": ("FP32", None)},
        {"shape": np.array([7, 3])},
    )
    with pytest.raises(ModelFailed) as caught:
        run(save_version(model), pools, work(tensor("x", "FP32", [5], [0] * 5)), settings)
    assert caught.value.backend == "onnx"
    assert caught.value.message == (
        "the model failed on this input: Reshape: The input tensor cannot be reshaped to the requested shape. "
        "Input shape:{5}, requested shape:{7,3}"
    )
    assert capfd.readouterr().err == ""  # ONNX Runtime writes to the process's standard error unless it is told not to


def test_a_version_that_is_not_prepared_or_is_released_does_not_run(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    asked = work(tensor("x", "FP32", [1, 2], [0, 0]))

    async def main() -> None:
        executor = OnnxExecutor(save_version(identity(make_model, "FP32")), INLINE, pools)
        with pytest.raises(VersionNotReady, match="not prepared"):
            await executor.execute(asked, PROTOCOL)
        await executor.prepare()
        assert (await executor.ready()).ready
        await executor.release()
        assert not (await executor.ready()).ready
        with pytest.raises(VersionNotReady, match="released"):
            await executor.execute(asked, PROTOCOL)

    asyncio.run(main())


# ── threads, deadlines, cancellation ─────────────────────────────────────────────────────────────────────────────

SIDE = 64
ENDLESS = 3_000_000
"""Rounds that take far longer than any test, and still end if a defect makes a test wait for them."""


def rounds(count: int, seconds: float = 60, **more: Any) -> Work:
    matrix = tensor("x", "FP32", [SIDE, SIDE], [0.5] * SIDE * SIDE)
    return work(matrix, tensor("n", "INT64", [], [count]), seconds=seconds, **more)


async def looping(loop_model: LoopModel, save_version: SaveVersion, pools: Pools) -> OnnxExecutor:
    executor = OnnxExecutor(save_version(loop_model(SIDE)), THREADED, pools)
    await executor.prepare()
    return executor


def test_the_event_loop_goes_on_while_a_slow_model_runs(
    loop_model: LoopModel, save_version: SaveVersion, pools: Pools
) -> None:
    async def main() -> None:
        executor = await looping(loop_model, save_version, pools)
        running = asyncio.create_task(executor.execute(rounds(ENDLESS), PROTOCOL), name="endless")
        for _ in range(1000):  # an event loop that is blocked by an endless run never comes to the end of this
            await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await executor.release()

    asyncio.run(main())


def test_the_deadline_ends_a_run_and_gives_its_thread_back(
    loop_model: LoopModel, save_version: SaveVersion, pools: Pools
) -> None:
    async def main() -> None:
        executor = await looping(loop_model, save_version, pools)
        with pytest.raises(DeadlineExceeded) as caught:
            await executor.execute(rounds(ENDLESS, seconds=0.05), PROTOCOL)
        assert caught.value.backend == "onnx"
        again = await executor.execute(rounds(3), PROTOCOL)  # the pool has one thread: this needs it back
        assert again.rendered.status == 200
        await executor.release()

    asyncio.run(main())


def test_cancelling_a_request_ends_its_run_and_gives_the_thread_back(
    loop_model: LoopModel, save_version: SaveVersion, pools: Pools
) -> None:
    async def main() -> None:
        executor = await looping(loop_model, save_version, pools)
        running, waiting = (
            asyncio.create_task(executor.execute(rounds(ENDLESS), PROTOCOL), name=name) for name in ("first", "second")
        )
        for _ in range(100):
            await asyncio.sleep(0)
        for task in (waiting, running):  # one has not come to its turn, the other is in the middle of its run
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await executor.execute(rounds(3), PROTOCOL)).rendered.status == 200
        await executor.release()

    asyncio.run(main())


def test_a_deadline_that_has_passed_refuses_before_the_body_is_read(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    with pytest.raises(DeadlineExceeded):
        run(save_version(identity(make_model, "FP32")), pools, Work(b"no JSON at all", {}, (), monotonic_ns() - 1))


def test_waiting_for_a_thread_counts_as_queue_time(
    loop_model: LoopModel, save_version: SaveVersion, pools: Pools
) -> None:
    async def main() -> None:
        executor = await looping(loop_model, save_version, pools)
        gate = threading.Event()
        pools["primary"].submit(gate.wait)  # the pool's one thread is busy
        waiting = asyncio.create_task(executor.execute(rounds(1), PROTOCOL), name="waiting")
        await asyncio.sleep(0)  # the task has run up to its first wait: its work is in the queue
        start = monotonic_ns()
        for _ in range(100):
            await asyncio.sleep(0)
        waited = monotonic_ns() - start
        gate.set()
        assert (await waiting).queue_ns >= waited
        await executor.release()

    asyncio.run(main())


def test_shadows_wait_for_shadows_only(loop_model: LoopModel, save_version: SaveVersion, pools: Pools) -> None:
    async def main() -> None:
        executor = await looping(loop_model, save_version, pools)
        shadow = asyncio.create_task(executor.execute(rounds(ENDLESS, lane="shadow"), PROTOCOL), name="shadow")
        await asyncio.sleep(0)
        assert (await executor.execute(rounds(3), PROTOCOL)).rendered.status == 200
        assert not shadow.done()
        shadow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await shadow
        await executor.release()

    asyncio.run(main())


def test_releasing_lets_a_run_end_and_then_frees_the_session(
    loop_model: LoopModel, save_version: SaveVersion, pools: Pools
) -> None:
    async def main() -> weakref.ref[Any]:
        executor = await looping(loop_model, save_version, pools)
        assert executor._loaded is not None
        session = weakref.ref(executor._loaded.session)
        running = asyncio.create_task(executor.execute(rounds(500), PROTOCOL), name="running")
        await asyncio.sleep(0)
        await executor.release()
        assert (await running).rendered.status == 200
        return session

    session = asyncio.run(main())
    pools["primary"].submit(gc.collect).result()
    assert session() is None


def test_a_large_body_is_read_beside_the_event_loop(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    rows = 60_000
    large = work(tensor("x", "FP32", [rows, 2], [0.5, 1.5] * rows))
    assert len(large.body) > 256 * 1024

    async def main() -> None:
        executor = OnnxExecutor(save_version(identity(make_model, "FP32")), INLINE, pools)
        await executor.prepare()
        gate = threading.Event()
        pools["primary"].submit(gate.wait)  # the pool's one thread is busy
        waiting = asyncio.create_task(executor.execute(large, PROTOCOL), name="waiting")
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()  # it needs the thread
        gate.set()
        assert outputs_of(await waiting)["y"]["data"] == [0.5, 1.5] * rows
        with pytest.raises(InvalidInput, match=r"inputs\[0\]\.shape"):
            await executor.execute(work(tensor("x", "FP32", [rows * 2, 1], [0.5, 1.5] * rows)), PROTOCOL)
        await executor.release()

    asyncio.run(main())


def test_a_fast_model_runs_on_the_event_loop_and_a_slow_one_in_a_thread(
    loop_model: LoopModel, save_version: SaveVersion, pools: Pools
) -> None:
    async def main() -> None:
        executor = OnnxExecutor(save_version(loop_model(SIDE)), OnnxSettings(inline_below_ms=20), pools)
        await executor.prepare()
        gate = threading.Event()
        pools["primary"].submit(gate.wait)  # the pool's one thread is busy
        await executor.execute(rounds(1), PROTOCOL)  # the warm-up has shown one round to be far below 20 ms
        await executor.execute(rounds(60_000), PROTOCOL)
        after = asyncio.create_task(executor.execute(rounds(1), PROTOCOL), name="after")  # one surprise is enough
        for _ in range(100):
            await asyncio.sleep(0)
        assert not after.done()  # it needs the thread
        gate.set()
        await after
        await executor.release()

    asyncio.run(main())
