"""A secret in a redacted field, in headers and in a refused body appears nowhere that is kept or shown to others."""

import json
from collections.abc import Callable
from typing import Any

from gateway.examples import digit_samples
from tests.e2e.running_gateway import RunningGateway, digit_request, put_route, wait_until

SECRET = "canary-4929f1e0c7"
REDACTED = ["/parameters/card", "/inputs/0/data", "/id"]


def _ask(gateway: RunningGateway, body: dict[str, Any], status: int) -> str:
    headers = {
        "x-routing-key": f"key-{SECRET}",
        "authorization": f"Bearer {SECRET}",
        "cookie": f"session={SECRET}",
        "x-api-key": SECRET,
        "user-agent": SECRET,
    }
    answer = gateway.http.post(f"{gateway.data_url}/v2/models/digits/infer", json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.headers["x-record-id"]


def test_a_secret_that_is_redacted_or_stands_in_headers_is_in_no_file_log_figure_look_up_or_export(
    start_gateway: Callable[..., RunningGateway],
) -> None:
    gateway = start_gateway("gateway", "--examples", "--workers", "1")
    put_route(gateway, {"model": "digits", "split": {"1": 10_000}, "capture": {"redact": REDACTED}})
    served = {**digit_request(digit_samples()[0].pixels), "id": SECRET, "parameters": {"card": SECRET}}
    refused = digit_request(digit_samples()[0].pixels)
    refused["inputs"][0]["data"] = [SECRET] * 64
    twice = json.dumps(served).replace('"parameters": {', f'"parameters": {{"card": "{SECRET}", ')
    records = [_ask(gateway, served, 200), _ask(gateway, refused, 400)]
    answer = gateway.http.post(f"{gateway.data_url}/v2/models/digits/infer", content=twice)
    assert answer.status_code == 200
    records.append(answer.headers["x-record-id"])

    shown = [gateway.http.get(f"{gateway.admin_url}/admin/v1/audit/requests/{one}").text for one in records]
    assert "[redacted]" in shown[0]
    assert "invalid_input" in shown[1]
    shown.append(gateway.http.get(f"{gateway.admin_url}/admin/v1/audit/records").text)
    shown.append(gateway.http.get(f"{gateway.admin_url}/metrics").text)
    export = gateway.folder / "export.jsonl"
    gateway.cli("audit", "export", "--format", "jsonl", "-o", str(export))
    assert len(export.read_bytes().splitlines()) >= len(records)
    assert not [text for text in shown if SECRET in text]
    wait_until(lambda: len(gateway.log("served")) >= 2, "the log has its lines")
    gateway.stop()
    kept = [path for path in gateway.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".journal" for path in kept)
    assert [path for path in kept if SECRET.encode() in path.read_bytes()] == []
