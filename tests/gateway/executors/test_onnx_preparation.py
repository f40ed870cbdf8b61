"""Preparing ONNX versions: what is verified, what is refused and in which words, and what the model says of itself."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

import gateway.executors.onnx
from gateway.catalog import Backend, Manifest, TensorSpec
from gateway.config import OnnxSettings
from gateway.errors import ArtifactError, ArtifactInvalid, ArtifactMissing, DigestMismatch
from gateway.executors.onnx import OnnxExecutor
from gateway.executors.onnx_pace import Pace
from gateway.executors.onnx_session import words_of
from gateway.messages import Readiness

MakeModel = Callable[..., onnx.ModelProto]
SaveVersion = Callable[[onnx.ModelProto | bytes], Manifest]
Pools = dict[str, ThreadPoolExecutor]


def readiness(manifest: Manifest, pools: Pools) -> Readiness:
    async def main() -> Readiness:
        executor = OnnxExecutor(manifest, OnnxSettings(), pools)
        await executor.prepare()
        found = await executor.ready()
        await executor.release()
        return found

    return asyncio.run(main())


def refusal(manifest: Manifest, pools: Pools) -> ArtifactError:
    async def main() -> ArtifactError:
        executor = OnnxExecutor(manifest, OnnxSettings(), pools)
        with pytest.raises(ArtifactError) as caught:
            await executor.prepare()
        assert await executor.ready() == Readiness(False, caught.value.message)
        await executor.release()
        return caught.value

    return asyncio.run(main())


def identity(make_model: MakeModel) -> onnx.ModelProto:
    return make_model([helper.make_node("Identity", ["x"], ["y"])], {"x": ("FP32", ["n"])}, {"y": ("FP32", ["n"])})


def with_path(manifest: Manifest, path: Path) -> Manifest:
    assert manifest.backend.onnx is not None
    onnx_backend = msgspec.structs.replace(manifest.backend.onnx, path=str(path))
    return msgspec.structs.replace(manifest, backend=Backend(onnx=onnx_backend))


def path_of(manifest: Manifest) -> Path:
    assert manifest.backend.onnx is not None
    return Path(manifest.backend.onnx.path)


def test_the_signature_is_the_models_own(make_model: MakeModel, save_version: SaveVersion, pools: Pools) -> None:
    model = make_model(
        [helper.make_node("MatMul", ["a", "b"], ["y"]), helper.make_node("Identity", ["flag"], ["same"])],
        {"a": ("FP64", ["rows", 3]), "b": ("FP64", [3, None]), "flag": ("BOOL", [])},
        {"y": ("FP64", ["rows", None]), "same": ("BOOL", [])},
    )
    signature = readiness(save_version(model), pools).signature
    assert signature is not None
    assert signature.platform == "onnx_onnxv1"
    assert signature.inputs == (
        TensorSpec("a", "FP64", (-1, 3), ("rows", None)),
        TensorSpec("b", "FP64", (3, -1)),
        TensorSpec("flag", "BOOL", ()),
    )
    assert [(spec.name, spec.datatype) for spec in signature.outputs] == [("y", "FP64"), ("same", "BOOL")]


def test_a_changed_artifact_is_refused_with_both_digests(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    manifest = save_version(identity(make_model))
    changed = path_of(manifest).read_bytes() + b"\x00"
    path_of(manifest).write_bytes(changed)
    error = refusal(manifest, pools)
    assert isinstance(error, DigestMismatch)
    assert manifest.digest is not None
    assert manifest.digest in error.message
    assert hashlib.sha256(changed).hexdigest() in error.message


def test_a_version_in_memory_goes_on_when_its_file_changes(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    manifest = save_version(identity(make_model))

    async def main() -> None:
        executor = OnnxExecutor(manifest, OnnxSettings(), pools)
        await executor.prepare()
        path_of(manifest).unlink()
        assert (await executor.ready()).ready
        await executor.release()

    asyncio.run(main())


def test_an_artifact_that_cannot_be_read_is_missing(
    tmp_path: Path, make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    manifest = save_version(identity(make_model))
    os.mkfifo(tmp_path / "pipe")  # reading it would wait for ever
    for path in (tmp_path / "nowhere.onnx", tmp_path, tmp_path / "pipe"):
        error = refusal(with_path(manifest, path), pools)
        assert isinstance(error, ArtifactMissing)
        assert path.name in error.message
        assert str(tmp_path) not in error.message


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08\x12\x04onnx"])
def test_a_file_that_is_no_model_is_invalid(content: bytes, save_version: SaveVersion, pools: Pools) -> None:
    error = refusal(save_version(content), pools)
    assert isinstance(error, ArtifactInvalid)
    assert "version 1 of model m: ONNX Runtime" in error.message
    assert "check that it is an ONNX file" in error.message


def test_a_truncated_model_is_invalid(make_model: MakeModel, save_version: SaveVersion, pools: Pools) -> None:
    whole = identity(make_model).SerializeToString()
    assert isinstance(refusal(save_version(whole[:-3]), pools), ArtifactInvalid)


def test_a_model_with_an_output_that_is_no_tensor_is_invalid(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    sequence = helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, ["n"])
    model = make_model([helper.make_node("SplitToSequence", ["x"], ["y"])], {"x": ("FP32", ["n"])}, [sequence])
    error = refusal(save_version(model), pools)
    assert isinstance(error, ArtifactInvalid)
    assert "output 'y' is seq(tensor(float)); only tensors of" in error.message
    assert "zipmap" in error.message


def test_a_model_of_a_datatype_without_json_is_invalid(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    row = ("BF16", ["n"])
    model = make_model([helper.make_node("Identity", ["x"], ["y"])], {"x": row}, {"y": row})
    assert "input 'x' is tensor(bfloat16)" in refusal(save_version(model), pools).message


def test_a_model_with_tensors_in_other_files_is_invalid_even_if_they_are_there(
    tmp_path: Path,
    make_model: MakeModel,
    save_version: SaveVersion,
    pools: Pools,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        {"x": ("FP32", [1000])},
        {"y": ("FP32", [1000])},
        {"w": np.ones(1000, np.float32)},
    )
    onnx.save_model(model, tmp_path / "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look for them
    error = refusal(save_version((tmp_path / "outside.onnx").read_bytes()), pools)
    assert isinstance(error, ArtifactInvalid)
    assert "save it as one file" in error.message


def test_a_model_that_fails_on_made_up_input_is_accepted(
    make_model: MakeModel, save_version: SaveVersion, pools: Pools
) -> None:
    model = make_model(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        {"x": ("FP32", ["n"])},
        {"y": ("FP32", [7, 3])},
        {"shape": np.array([7, 3])},
    )
    assert readiness(save_version(model), pools).ready


def test_a_model_that_does_not_come_to_an_end_on_made_up_input_is_accepted_after_a_while(
    loop_model: MakeModel, save_version: SaveVersion, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.executors.onnx, "_WARM_UP_LIMIT_NS", 50_000_000)
    assert readiness(save_version(loop_model(64, rounds=3_000_000)), pools).ready


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Add node. Name:'n/1' Status "
            "Message: /onnxruntime_src/core/element_wise_ops.h:563 void onnxruntime::Init(ptrdiff_t, ptrdiff_t) "
            "axis == 1 || axis == largest was false. Attempting to broadcast an axis by a dimension other than 1.\n",
            "Add: Attempting to broadcast an axis by a dimension other than 1.",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'' Status "
            "Message: matmul_helper.h:59 Compute MatMul dimension mismatch",
            "MatMul: MatMul dimension mismatch",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : /src/a/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const "
            "logging::Logger&) Unsupported model IR version: 99, max supported IR version: 14",
            "Unsupported model IR version: 99, max supported IR version: 14",
        ),
        ('[ONNXRuntimeError] : 1 : FAIL : cannot open "/srv/models/a b" or /srv/x.bin', "cannot open"),
    ],
)
def test_onnx_runtimes_complaints_lose_source_files_and_paths(said: str, words: str) -> None:
    foreign = type("Fail", (Exception,), {"__module__": "onnxruntime.capi.onnxruntime_pybind11_state"})
    told = words_of(foreign(said))
    assert told.startswith(words)
    assert "/" not in told.removeprefix(words)


def test_an_exception_of_anything_else_is_told_by_its_kind_only() -> None:
    assert words_of(ValueError("/srv/secret")) == "ValueError"


# ── the estimate of run times ────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_expected_to_be_fast_before_it_has_run() -> None:
    assert Pace().expected_ns(1) == float("inf")


def test_a_size_not_seen_yet_is_taken_to_grow_with_the_square() -> None:
    pace = Pace()
    pace.observe(64, 1_000)
    assert pace.expected_ns(100) == 1_000
    assert pace.expected_ns(128) == 4_000
    assert pace.expected_ns(256) == 16_000
    assert pace.expected_ns(1) == 1_000
    pace.observe(256, 1_500)
    assert pace.expected_ns(256) == 1_500
    assert pace.expected_ns(512) == 6_000


def test_slow_runs_count_at_once_and_fast_ones_slowly() -> None:
    pace = Pace()
    pace.observe(8, 1_000)
    pace.observe(8, 101_000)
    assert pace.expected_ns(8) == 51_000
    pace.observe(8, 1_000)
    assert 40_000 < pace.expected_ns(8) < 51_000
    for _ in range(200):
        pace.observe(8, 1_000)
    assert pace.expected_ns(8) == pytest.approx(1_000, rel=0.01)
