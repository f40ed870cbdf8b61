"""The barest server of one ONNX model, which `cost.py` measures Pointsman against: no routing, record, check."""

import sys

import numpy as np
import onnxruntime
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def application(model: str) -> Starlette:
    """Return an application that answers the digits model's infer call."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    async def infer(request: Request) -> Response:
        (tensor,) = orjson.loads(await request.body())["inputs"]
        array = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        outputs = session.run(None, {tensor["name"]: array})
        found = [
            {"name": name, "shape": output.shape, "data": output.ravel()}
            for name, output in zip(names, outputs, strict=True)
        ]
        return Response(orjson.dumps({"outputs": found}, option=orjson.OPT_SERIALIZE_NUMPY))

    return Starlette(routes=[Route("/v2/models/digits/infer", infer, methods=["POST"])])


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[1]), port=int(sys.argv[2]), log_level="error", access_log=False)
