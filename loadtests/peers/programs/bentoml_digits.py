"""The digits model in BentoML, as its guide shows a service. The model file is named by DIGITS_MODEL."""

import os
from typing import Any

import bentoml
import numpy
import onnxruntime


@bentoml.service(workers=1, resources={"cpu": "1"})
class Digits:
    """Answers the Open Inference Protocol's infer call."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            os.environ["DIGITS_MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    @bentoml.api(route="/v2/models/digits/infer")
    async def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Answer one request; the parameter is the field of the body."""
        tensors = {
            tensor["name"]: numpy.array(tensor["data"], dtype=numpy.float32).reshape(tensor["shape"])
            for tensor in inputs
        }
        found = zip(self._names, self._session.run(None, tensors), strict=True)
        return {
            "outputs": [
                {"name": name, "shape": list(array.shape), "data": array.ravel().tolist()} for name, array in found
            ]
        }
