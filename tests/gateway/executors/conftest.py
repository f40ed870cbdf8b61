"""ONNX models made for one test each, as files with their manifests, and the pools that executors run them in.

make_model(nodes, inputs, outputs, constants)   an ONNX model; inputs and outputs are {name: (datatype, shape)}
save_version(model)                             a manifest whose artifact is that model's file
prepared(model)                                 a prepared OnnxExecutor, released and its pools closed in the end
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from gateway.catalog import Backend, Manifest, OnnxBackend

Tensors = Mapping[str, tuple[str, Sequence[int | str | None] | None]]

_TYPES = {
    "BOOL": onnx.TensorProto.BOOL,
    "INT8": onnx.TensorProto.INT8,
    "INT16": onnx.TensorProto.INT16,
    "INT32": onnx.TensorProto.INT32,
    "INT64": onnx.TensorProto.INT64,
    "UINT8": onnx.TensorProto.UINT8,
    "UINT16": onnx.TensorProto.UINT16,
    "UINT32": onnx.TensorProto.UINT32,
    "UINT64": onnx.TensorProto.UINT64,
    "FP16": onnx.TensorProto.FLOAT16,
    "FP32": onnx.TensorProto.FLOAT,
    "FP64": onnx.TensorProto.DOUBLE,
    "BF16": onnx.TensorProto.BFLOAT16,
    "BYTES": onnx.TensorProto.STRING,
}


def _values(tensors: Tensors) -> list[onnx.ValueInfoProto]:
    return [helper.make_tensor_value_info(name, _TYPES[kind], shape) for name, (kind, shape) in tensors.items()]


@pytest.fixture
def make_model() -> Callable[..., onnx.ModelProto]:
    """Make a model of opset 17 from nodes, inputs, outputs and constants."""

    def make(
        nodes: Sequence[onnx.NodeProto],
        inputs: Tensors,
        outputs: Tensors | Sequence[onnx.ValueInfoProto],
        constants: Mapping[str, NDArray[Any]] | None = None,
    ) -> onnx.ModelProto:
        given = _values(outputs) if isinstance(outputs, Mapping) else list(outputs)
        stored = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
        graph = helper.make_graph(list(nodes), "g", _values(inputs), given, stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    return make


@pytest.fixture
def loop_model() -> Callable[..., onnx.ModelProto]:
    """Make a model that multiplies a square matrix `x` with itself `n` times (`y`): it takes as long as it is told.

    With `rounds`, the number of times is the model's own and no input.
    """

    def make(side: int, rounds: int | None = None) -> onnx.ModelProto:
        square = [side, side]
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["x_in", "x_in"], ["product"]),
                helper.make_node("Tanh", ["product"], ["x_out"]),
                helper.make_node("Identity", ["go_in"], ["go_out"]),
            ],
            "body",
            _values({"i": ("INT64", []), "go_in": ("BOOL", []), "x_in": ("FP32", square)}),
            _values({"go_out": ("BOOL", []), "x_out": ("FP32", square)}),
        )
        loop = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)
        inputs: Tensors = {"x": ("FP32", square)} if rounds is not None else {"x": ("FP32", square), "n": ("INT64", [])}
        stored = [numpy_helper.from_array(np.array(rounds), "n")] if rounds is not None else []
        graph = helper.make_graph([loop], "g", _values(inputs), _values({"y": ("FP32", square)}), stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    return make


@pytest.fixture
def save_version(tmp_path: Path) -> Callable[[onnx.ModelProto | bytes], Manifest]:
    """Write a model into a file of its own and return the manifest of that version."""
    count = 0

    def save(model: onnx.ModelProto | bytes) -> Manifest:
        nonlocal count
        count += 1
        content = model if isinstance(model, bytes) else model.SerializeToString()
        path = tmp_path / f"{count}.onnx"
        path.write_bytes(content)
        backend = OnnxBackend(str(path), hashlib.sha256(content).hexdigest())
        return Manifest("m", str(count), Backend(onnx=backend))

    return save


@pytest.fixture
def pools() -> Iterator[dict[str, ThreadPoolExecutor]]:
    """Return one pool of one thread for each lane."""
    made = {lane: ThreadPoolExecutor(1, thread_name_prefix=lane) for lane in ("primary", "shadow")}
    yield made
    for pool in made.values():
        pool.shutdown()
