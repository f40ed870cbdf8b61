"""Clients of other projects, unmodified, in an environment of their own (`make e2e` makes it)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gateway.examples import digit_samples
from tests.e2e.running_gateway import RunningGateway

PYTHON = os.environ.get("TEST_CLIENTS_PYTHON")
pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(PYTHON is None, reason="needs the third-party clients; run `make e2e`, which installs them"),
]
SAMPLE = digit_samples()[0]


def _run(script: str, gateway: RunningGateway) -> dict[str, Any]:
    done = subprocess.run(
        [
            str(PYTHON),
            str(Path(__file__).parent / "clients" / script),
            gateway.data_url,
            json.dumps(list(SAMPLE.pixels)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_tritonclient_infers_with_json_tensors(digits_gateway: RunningGateway) -> None:
    found = _run("triton_infer.py", digits_gateway)
    assert found["id"] == "triton-1"
    assert found["label_of_2"] == SAMPLE.label
    assert found["probabilities"] == [1, 10]
    assert found["metadata"]["versions"] == ["1", "2", "3"]
    assert "nobody" in found["refused"]
    (record,) = digits_gateway.audit("triton-1")
    assert record["served"] == found["version"]


def test_kserve_infers_with_protocol_v2(digits_gateway: RunningGateway) -> None:
    found = _run("kserve_infer.py", digits_gateway)
    assert (found["live"], found["ready"], found["model_ready"]) == (True, True, True)
    assert found["id"] == "kserve-1"
    assert 0 <= found["label"] <= 9
    (record,) = digits_gateway.audit("kserve-1")
    assert record["served"] == found["header"]
