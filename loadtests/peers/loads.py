"""The bodies that every peer of a task gets, and the answers that count as right.

Belongs here: requests and judges. Never here: sending. A load is long enough to spread over callers: each request has a
routing key of its own, as requests behind a split have.
"""

import json
from typing import Any

import numpy as np
import onnxruntime

from gateway.examples import digit_samples, digits_folder
from loadtests.bench.asking import Answer, Ask, Load, same_json
from loadtests.bench.backend import CHAT_ANSWER, OIP_ANSWER

CALLERS = 1_000
BODY_BYTES = 512


def forward_load(model: str = "fraud") -> Load:
    """Return OIP requests of 0.5 kB that a backend answers."""
    values = [round(0.001 * number, 3) for number in range(60)]
    tensor = {"name": "features", "shape": [1, len(values)], "datatype": "FP32", "data": values}
    body = _padded({"id": "", "inputs": [tensor]}, lambda document, text: document.update(id=text))
    asks = [Ask(f"/v2/models/{model}/infer", body, _caller(number)) for number in range(CALLERS)]
    return Load(asks, same_json(OIP_ANSWER))


def chat_load(*headers: tuple[str, str]) -> Load:
    """Return chat completions of the same 0.5 kB, with these headers on top."""
    document = {"model": "fraud", "messages": [{"role": "user", "content": ""}]}
    body = _padded(document, lambda whole, text: whole["messages"][0].update(content=text))
    asks = [Ask("/v1/chat/completions", body, (*_caller(number), *headers)) for number in range(CALLERS)]
    expected = CHAT_ANSWER["choices"][0]["message"]["content"]

    def complaint(_number: int, answer: Answer) -> str:
        got = answer.json()["choices"][0]["message"]["content"]
        return "" if got == expected else f"the message is {got!r} instead of {expected!r}"

    return Load(asks, complaint)


def digits_load() -> Load:
    """Return requests of real digits, judged by ONNX Runtime itself on the version that says it has served."""
    samples = digit_samples()[:50]
    bodies = [_encoded({"inputs": [_pixels(sample.pixels)]}) for sample in samples]
    asks = [Ask("/v2/models/digits/infer", bodies[n % len(bodies)], _caller(n)) for n in range(CALLERS)]
    images = np.array([sample.pixels for sample in samples], dtype=np.float32)
    expected = {version: _outputs(version, images) for version in ("1", "2")}

    def complaint(number: int, answer: Answer) -> str:
        labels, probabilities = expected[answer.headers.get("x-model-version", "1")]
        row = number % len(bodies)
        got = {output["name"]: np.ravel(output["data"]) for output in answer.json()["outputs"]}
        if got["label"].tolist() != [labels[row]]:
            return f"label {got['label'].tolist()} instead of {labels[row]}"
        right = np.allclose(got["probabilities"], probabilities[row], atol=1e-4)
        return "" if right else f"probabilities {got['probabilities'].tolist()}"

    return Load(asks, complaint)


def _pixels(pixels: tuple[int, ...]) -> dict[str, Any]:
    return {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": list(pixels)}


def _outputs(version: str, images: Any) -> tuple[Any, Any]:
    session = onnxruntime.InferenceSession(digits_folder() / version / "model.onnx", providers=["CPUExecutionProvider"])
    labels, probabilities = session.run(["label", "probabilities"], {"pixels": images})
    return labels, probabilities


def _caller(number: int) -> tuple[tuple[str, str], ...]:
    return (("x-routing-key", f"caller-{number}"),)


def _encoded(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _padded(document: dict[str, Any], put: Any) -> bytes:
    """Return the document with a text put into it so long that the whole has `BODY_BYTES`."""
    put(document, "x" * (BODY_BYTES - len(_encoded(document))))
    body = _encoded(document)
    assert len(body) == BODY_BYTES
    return body
