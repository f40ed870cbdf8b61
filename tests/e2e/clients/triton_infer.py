"""Runs in the environment of requirements/clients.txt: tritonclient, unmodified, with JSON tensors."""

import json
import sys

import numpy as np
import tritonclient.http as triton

url, pixels = sys.argv[1].removeprefix("http://"), json.loads(sys.argv[2])
client = triton.InferenceServerClient(url)
assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready("digits")
assert client.is_model_ready("digits", "2")
metadata = client.get_model_metadata("digits")
tensor = triton.InferInput("pixels", [1, 64], "FP32")
tensor.set_data_from_numpy(np.array([pixels], dtype=np.float32), binary_data=False)
outputs = [triton.InferRequestedOutput(name, binary_data=False) for name in ("label", "probabilities")]
found = client.infer("digits", [tensor], outputs=outputs, request_id="triton-1", headers={"x-routing-key": "triton"})
every = client.infer("digits", [tensor], model_version="2")
try:
    client.infer("nobody", [tensor], outputs=outputs)
    refused = ""
except triton.InferenceServerException as error:
    refused = str(error)
result = found.get_response()
print(
    json.dumps(
        {
            "id": result["id"],
            "version": result["model_version"],
            "label": int(found.as_numpy("label")[0]),
            "label_of_2": int(every.as_numpy("label")[0]),
            "probabilities": found.as_numpy("probabilities").shape,
            "metadata": metadata,
            "refused": refused,
        }
    )
)
