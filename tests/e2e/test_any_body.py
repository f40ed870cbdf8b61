"""Bodies that nobody would think of, to a real model behind a real port: 200 or 4xx, and the workers live on."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.examples import digit_samples
from tests.e2e.raw_client import RawAnswer, post, send_all
from tests.e2e.running_gateway import RunningGateway, digit_request
from tests.fuzzing import fuzzed

PIXELS = list(digit_samples()[0].pixels)
GOOD = json.dumps(digit_request(PIXELS)).encode()

odd: st.SearchStrategy[Any] = st.sampled_from(
    [0, -1, 64, 2**31, 2**63, 10**400, 1e308, 1.5, True, None, "", "x", "\ud800", [], {}, [[]], "FP64", "BYTES"]
)
values = st.recursive(odd, lambda inner: st.lists(inner, max_size=3), max_leaves=8)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["pixels"]) | values,
        "shape": st.sampled_from([[1, 64], [64], [2, 32], [0, 64], [-1, 64]]) | values,
        "datatype": st.sampled_from(["FP32", "FP16", "INT64", "BOOL", "BYTES"]) | values,
        "data": st.sampled_from([PIXELS, [PIXELS], PIXELS[:63], []]) | values,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "shared_memory_region"]), values),
    },
)
documents = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=3) | values},
    optional={
        "id": values,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["label"]) | values})) | values,
        "parameters": values,
    },
).map(lambda document: json.dumps(document).encode())


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """The body of a good request with some bytes changed, taken out or put in."""
    body = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 9))] = draw(
            st.binary(max_size=4) | st.sampled_from([b"[", b"]", b"{", b'"', b",", b"1e999", b"NaN", b"\\ud800", b"-0"])
        )
    return bytes(body)


bodies = st.lists(documents | changed() | st.binary(max_size=60), min_size=1, max_size=12)
fields = st.sampled_from(
    [{}, {}, {}, {"inference_header_content_length": "10"}, {"content_encoding": "gzip"}, {"content_type": "x/\xff"}]
)


def send(gateway: RunningGateway, several: list[bytes], headers: dict[str, str]) -> list[RawAnswer]:
    return send_all(gateway.data_url, [post("/v2/models/digits/infer", body, **headers) for body in several], 4)


@given(bodies, fields)
@settings(fuzzed(60), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_any_body_is_answered_with_200_or_4xx(
    digits_gateway: RunningGateway, several: list[bytes], headers: dict[str, str]
) -> None:
    before = digits_gateway.children()
    answers = send(digits_gateway, [*several, GOOD], headers)
    for answer in answers[:-1]:
        assert answer.status == 200 or 400 <= answer.status < 500, answer
        assert answer.status == 200 or json.loads(answer.body)["error"]
    (honest,) = send(digits_gateway, [GOOD], {})
    assert honest.status == 200
    assert digits_gateway.children() == before
