"""The digits model in KServe: a custom model around ONNX Runtime, as its guide shows one.

Arguments: the model file, the port.
"""

import sys
import uuid
from typing import Any

import onnxruntime
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.numpy_codec import from_np_dtype


class Digits(Model):
    """Answers the Open Inference Protocol's infer call."""

    def __init__(self, path: str) -> None:
        super().__init__("digits")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        self.ready = True

    async def predict(
        self,
        payload: InferRequest,
        headers: Any = None,  # noqa: ARG002 - KServe passes both by name
        response_headers: Any = None,  # noqa: ARG002
    ) -> InferResponse:
        """Answer one request."""
        tensors = {tensor.name: tensor.as_numpy() for tensor in payload.inputs}
        outputs = []
        for name, array in zip(self._names, self._session.run(None, tensors), strict=True):
            output = InferOutput(name=name, shape=list(array.shape), datatype=from_np_dtype(array.dtype))
            output.set_data_from_numpy(array, binary_data=False)
            outputs.append(output)
        return InferResponse(response_id=payload.id or str(uuid.uuid4()), model_name=self.name, infer_outputs=outputs)


if __name__ == "__main__":
    path, port = sys.argv[1:]
    ModelServer(http_port=int(port), workers=1, enable_grpc=False, enable_latency_logging=False).start([Digits(path)])
