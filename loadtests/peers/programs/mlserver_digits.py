"""The digits model in MLServer: a custom runtime around ONNX Runtime, as its guide shows one."""

from typing import Any

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Digits(MLModel):
    """Loaded by MLServer from the model-settings.json that `served.py` writes."""

    async def load(self) -> bool:
        """Open the model with one thread, as every peer does."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        tensors: dict[str, Any] = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        outputs: list[ResponseOutput] = [
            NumpyCodec.encode_output(name, array)
            for name, array in zip(self._names, self._session.run(None, tensors), strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
