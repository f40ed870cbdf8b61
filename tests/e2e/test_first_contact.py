"""What a stranger sees first: the example models serve, answers name the version and the rule, records are found."""

import json
import re
import subprocess

from gateway.examples import digit_samples
from tests.e2e.running_gateway import RunningGateway, digit_request, wait_until

SAMPLES = digit_samples()


def test_an_answer_names_its_version_its_rule_and_its_record(digits_gateway: RunningGateway) -> None:
    answer = digits_gateway.infer(
        "digits", digit_request(SAMPLES[0].pixels), {"x-routing-key": "ann", "x-request-id": "first-1"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-request-id"] == "first-1"
    assert answer.headers["x-model-name"] == "digits"
    assert answer.headers["x-model-version"] in {"1", "2"}
    assert answer.headers["x-route-reason"] == "split"
    assert int(answer.headers["x-route-revision"]) >= 1
    assert re.fullmatch(r"sha-256=[0-9a-f]{64}", answer.headers["x-model-digest"])
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", answer.headers["x-record-id"]
    )
    assert set(re.findall(r"(\w+);dur=[0-9.]+", answer.headers["server-timing"])) == {
        "route",
        "queue",
        "infer",
        "total",
    }
    body = answer.json()
    assert body["model_name"] == "digits"
    assert body["model_version"] == answer.headers["x-model-version"]
    assert {output["name"] for output in body["outputs"]} == {"label", "probabilities"}


def test_a_record_is_found_right_after_its_reply_under_each_of_its_ids(digits_gateway: RunningGateway) -> None:
    request = {**digit_request(SAMPLES[1].pixels), "id": "body-7"}
    answer = digits_gateway.infer("digits", request, {"x-routing-key": "bob", "x-request-id": "look-me-up"})
    assert answer.json()["id"] == "body-7"
    for any_id in ("look-me-up", "body-7", answer.headers["x-record-id"]):
        (record,) = digits_gateway.audit(any_id)
        assert record["record_id"] == answer.headers["x-record-id"]
        assert record["served"] == answer.headers["x-model-version"]
        assert record["decision"]["reason"] == "split"
        assert record["version"]["code"]["git_commit"]
        assert json.loads(record["request"]["body"]) == request
        assert json.loads(record["response"]["body"]) == answer.json()


def test_a_repeated_request_id_gives_a_record_for_each_attempt(digits_gateway: RunningGateway) -> None:
    answers = [
        digits_gateway.infer("digits", digit_request(SAMPLES[0].pixels), {"x-request-id": "again"}) for _ in range(3)
    ]
    found = [record["record_id"] for record in digits_gateway.audit("again")]
    assert found == [answer.headers["x-record-id"] for answer in answers]


def test_an_illegal_request_id_is_ignored(digits_gateway: RunningGateway) -> None:
    answer = digits_gateway.infer("digits", digit_request(SAMPLES[0].pixels), {"x-request-id": "no spaces please"})
    assert answer.headers["x-request-id"] == answer.headers["x-record-id"]


def test_a_version_named_in_the_path_is_served_and_said_to_be_explicit(digits_gateway: RunningGateway) -> None:
    for version in ("1", "2", "3"):
        answer = digits_gateway.infer("digits", digit_request(SAMPLES[0].pixels), path=f"/versions/{version}")
        assert answer.headers["x-model-version"] == version
        assert answer.headers["x-route-reason"] == "explicit"


def test_health_and_metadata_are_those_of_the_protocol(digits_gateway: RunningGateway) -> None:
    get, url = digits_gateway.http.get, digits_gateway.data_url
    assert get(f"{url}/v2/health/live").json() == {"live": True}
    assert get(f"{url}/v2/health/ready").json() == {"ready": True}
    assert get(f"{url}/v2").json()["name"] == "pointsman"
    metadata = get(f"{url}/v2/models/digits").json()
    assert metadata["versions"] == ["1", "2", "3"]
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]
    assert get(f"{url}/v2/models/digits/versions/2").json()["inputs"] == metadata["inputs"]
    assert get(f"{url}/v2/models/digits/ready").status_code == 200
    assert get(f"{url}/v2/models/digits/versions/9").status_code == 404


def test_the_printed_curl_lines_work_word_for_word(digits_gateway: RunningGateway) -> None:
    printed = digits_gateway.log_path.read_text()
    lines = [line.strip() for line in printed.splitlines() if line.strip().startswith("curl ")]
    assert len(lines) >= 2
    outputs = [
        subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=20, check=True).stdout
        for line in lines
    ]
    assert any("x-model-version" in output.lower() for output in outputs)
    assert any('"records"' in output for output in outputs)


def test_a_log_line_of_a_request_carries_what_an_operator_needs(digits_gateway: RunningGateway) -> None:
    answer = digits_gateway.infer("digits", digit_request(SAMPLES[2].pixels), {"x-request-id": "logged-1"})
    (line,) = wait_until(
        lambda: [line for line in digits_gateway.log("served") if line["request_id"] == "logged-1"], "the line"
    )
    assert line["record_id"] == answer.headers["x-record-id"]
    assert line["model"] == "digits"
    assert line["version"] == answer.headers["x-model-version"]
    assert line["reason"] == "split"
    assert line["revision"] == int(answer.headers["x-route-revision"])
    assert line["status"] == 200
    assert line["latency_ms"] > 0


def test_a_shadow_leaves_its_own_record_beside_the_primary(digits_gateway: RunningGateway) -> None:
    answer = digits_gateway.infer("digits", digit_request(SAMPLES[3].pixels), {"x-request-id": "shadowed-1"})
    (shadow,) = wait_until(lambda: digits_gateway.audit("shadowed-1")[0]["shadows"], "the shadow's record")
    assert shadow["role"] == "shadow"
    assert shadow["served"] == "3"
    assert shadow["primary_id"] == answer.headers["x-record-id"]
    assert json.loads(shadow["response"]["body"])["model_version"] == "3"
    assert digits_gateway.metrics()['pointsman_shadow_requests_total{model="digits",outcome="served",version="3"}'] >= 1
