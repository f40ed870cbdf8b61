"""Runs in the environment of requirements/clients.txt: KServe's InferenceRESTClient, unmodified, protocol v2."""

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

url, pixels = sys.argv[1], json.loads(sys.argv[2])


async def main() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    tensor = InferInput("pixels", [1, 64], "FP32")
    tensor.set_data_from_numpy(np.array([pixels], dtype=np.float32), binary_data=False)
    request = InferRequest(model_name="digits", infer_inputs=[tensor], request_id="kserve-1")
    headers: dict[str, str] = {}
    found = await client.infer(
        url, request, model_name="digits", headers={"x-routing-key": "kserve"}, response_headers=headers
    )
    print(
        json.dumps(
            {
                "live": await client.is_server_live(url),
                "ready": await client.is_server_ready(url),
                "model_ready": await client.is_model_ready(url, "digits"),
                "id": found.id,
                "header": headers["x-model-version"],
                "label": int(found.outputs[0].as_numpy()[0]),
            }
        )
    )
    await client.close()


asyncio.run(main())
