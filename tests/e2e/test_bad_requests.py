"""A client's mistake: a 4xx with words that name the field, never a 5xx, and a record of each."""

import json
from typing import Any

import pytest

from gateway.examples import digit_samples
from tests.e2e.running_gateway import RunningGateway, digit_request

PIXELS = list(digit_samples()[0].pixels)


def _tensor(**changed: Any) -> bytes:
    tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": PIXELS, **changed}
    return json.dumps({"inputs": [tensor]}).encode()


GOOD = json.dumps(digit_request(PIXELS)).encode()
BAD_BODIES: dict[str, tuple[bytes, int, str]] = {
    "wrong shape": (_tensor(shape=[1, 63], data=PIXELS[:63]), 400, "inputs[0].shape"),
    "wrong datatype": (_tensor(datatype="INT64"), 400, "inputs[0].datatype"),
    "unknown datatype": (_tensor(datatype="FLOAT"), 400, "inputs[0].datatype"),
    "wrong name": (_tensor(name="pixel"), 400, "pixel"),
    "too few elements": (_tensor(data=PIXELS[:60]), 400, "inputs[0].data"),
    "a text among numbers": (_tensor(data=[*PIXELS[:63], "x"]), 400, "inputs[0].data"),
    "null among numbers": (_tensor(data=[*PIXELS[:63], None]), 400, "inputs[0].data"),
    "NaN": (GOOD.replace(b"[0", b"[NaN", 1) if b"[0" in GOOD else b"[NaN]", 400, ""),
    "no inputs": (b"{}", 400, "inputs"),
    "inputs that are no list": (b'{"inputs": {}}', 400, "inputs"),
    "missing input": (b'{"inputs": []}', 400, "pixels"),
    "not JSON": (b"hello", 400, "JSON"),
    "empty": (b"", 400, "JSON"),
    "truncated JSON": (GOOD[: len(GOOD) // 2], 400, "JSON"),
    "not UTF-8": (b'{"inputs": "\xff"}', 400, ""),
    "10 000 nested arrays": (
        _tensor(data=[]).replace(b'"data": []', b'"data": ' + b"[" * 10_000 + b"]" * 10_000),
        400,
        "",
    ),
    "a huge shape": (_tensor(shape=[2**62, 64]), 400, "inputs[0]"),
    "unknown output": (
        json.dumps({**digit_request(PIXELS), "outputs": [{"name": "nope"}]}).encode(),
        400,
        "outputs[0].name",
    ),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_refused_naming_the_field_and_recorded(name: str, digits_gateway: RunningGateway) -> None:
    body, status, words = BAD_BODIES[name]
    request_id = "bad-" + name.replace(" ", "-")
    answer = digits_gateway.infer("digits", body, {"x-request-id": request_id})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]
    (record,) = digits_gateway.audit(request_id)
    assert (record["outcome"], record["status"]) == ("refused", status)
    assert record["record_id"] == answer.headers["x-record-id"]


@pytest.mark.parametrize(
    ("path", "words"),
    [("/v2/models/nobody/infer", "nobody"), ("/v2/models/digits/versions/77/infer", "77")],
)
def test_an_unknown_name_is_refused_with_404_and_recorded(
    path: str, words: str, digits_gateway: RunningGateway
) -> None:
    answer = digits_gateway.http.post(f"{digits_gateway.data_url}{path}", content=GOOD)
    assert answer.status_code == 404
    assert words in answer.json()["error"]
    (record,) = digits_gateway.audit(answer.headers["x-record-id"])
    assert record["outcome"] == "refused"


def test_a_wrong_method_is_refused_with_405_and_recorded(digits_gateway: RunningGateway) -> None:
    answer = digits_gateway.http.get(f"{digits_gateway.data_url}/v2/models/digits/infer")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    (record,) = digits_gateway.audit(answer.headers["x-record-id"])
    assert record["error_code"] == "method_not_allowed"


def test_a_compressed_body_is_refused_with_415_and_recorded(digits_gateway: RunningGateway) -> None:
    answer = digits_gateway.infer("digits", GOOD, {"content-encoding": "gzip"})
    assert answer.status_code == 415
    assert "gzip" in answer.json()["error"]
    (record,) = digits_gateway.audit(answer.headers["x-record-id"])
    assert record["error_code"] == "unsupported_encoding"


def test_a_body_of_65_mb_is_refused_with_413_and_recorded(digits_gateway: RunningGateway) -> None:
    size = 65 * 2**20
    answer = digits_gateway.infer("digits", b" " * size)
    assert answer.status_code == 413
    assert str(64 * 2**20) in answer.json()["error"]
    (record,) = digits_gateway.audit(answer.headers["x-record-id"])
    assert (record["outcome"], record["request"]["size"]) == ("refused", size)


def test_unknown_models_share_one_label_in_the_metrics(digits_gateway: RunningGateway) -> None:
    for number in range(3):
        digits_gateway.infer(f"stranger-{number}", GOOD)
    metrics = digits_gateway.metrics()
    assert metrics['pointsman_requests_total{model="_unknown",outcome="refused",version="_none"}'] >= 3
    assert not any("stranger" in name for name in metrics)


def test_an_unknown_path_is_answered_without_a_record(digits_gateway: RunningGateway) -> None:
    answer = digits_gateway.http.get(f"{digits_gateway.data_url}/nothing/here")
    assert answer.status_code == 404
    assert "error" in answer.json()
    assert "x-record-id" not in answer.headers
