"""A real ONNX model of about 5 ms a run: layers of matrix products, as much weight to read as one run may take time.

Belongs here: making it. Never here: serving it. Its first dimension is free, so requests may share a run.
"""

import hashlib
import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDTH = 1024
INPUTS = 8
TARGET_MS = 5.0


def make_slow_model(folder: Path) -> dict[str, Any]:
    """Write the model into a folder and return the backend of its manifest; it has as many layers as 5 ms take here."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "slow.onnx"
    layers = 4
    for _ in range(3):
        path.write_bytes(_model(layers).SerializeToString())
        layers = max(1, round(layers * TARGET_MS / run_ms(path)))
    path.write_bytes(_model(layers).SerializeToString())
    return {"onnx": {"path": str(path.resolve()), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}}


def run_ms(path: Path) -> float:
    """Return how long one run takes on one thread, in ms; the fastest of many, since others may be at work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    row = np.zeros((1, INPUTS), dtype=np.float32)
    times = []
    for _ in range(50):
        began = time.perf_counter()
        session.run(None, {"x": row})
        times.append(1000 * (time.perf_counter() - began))
    return min(times)


def _model(layers: int) -> onnx.ModelProto:
    random = np.random.default_rng(7)
    sizes = [INPUTS, *[WIDTH] * layers, 1]
    weights = [
        numpy_helper.from_array((random.standard_normal(pair) / math.sqrt(pair[0])).astype(np.float32), f"w{index}")
        for index, pair in enumerate(pairwise(sizes))
    ]
    names = ["x", *(f"h{index}" for index in range(len(weights) - 1)), "y"]
    nodes = [
        helper.make_node("MatMul", [before, weight.name], [after])
        for before, weight, after in zip(names, weights, names[1:], strict=False)
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def slow_outputs(path: Path, count: int) -> list[float]:
    """Return what the model says to the first `count` requests."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"x": np.array([_row(number) for number in range(count)], dtype=np.float32)})
    return [float(output) for output in outputs.ravel()]


def _row(number: int) -> list[int]:
    return [(number * (index + 1)) % 11 - 5 for index in range(INPUTS)]


def slow_body(number: int) -> bytes:
    """Return a request of the model."""
    values = ",".join(map(str, _row(number)))
    tensor = f'{{"name":"x","shape":[1,{INPUTS}],"datatype":"FP32","data":[{values}]}}'
    return f'{{"inputs":[{tensor}]}}'.encode()
