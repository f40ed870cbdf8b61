"""The digits model in LitServe, as its guide shows an API. Arguments: the model file, the port."""

import sys
from typing import Any

import litserve
import numpy
import onnxruntime


class Digits(litserve.LitAPI):
    """Answers the Open Inference Protocol's infer call."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's shape
        """Open the model with one thread, as every peer does."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Build the tensors."""
        return {
            tensor["name"]: numpy.array(tensor["data"], dtype=numpy.float32).reshape(tensor["shape"])
            for tensor in request["inputs"]
        }

    def predict(self, tensors: dict[str, Any]) -> list[Any]:
        """Run the model."""
        outputs: list[Any] = self._session.run(None, tensors)
        return outputs

    def encode_response(self, outputs: list[Any]) -> dict[str, Any]:
        """Build the answer."""
        found = zip(self._names, outputs, strict=True)
        return {
            "outputs": [{"name": name, "shape": array.shape, "data": array.ravel().tolist()} for name, array in found]
        }


if __name__ == "__main__":
    api = Digits(api_path="/v2/models/digits/infer")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False)
