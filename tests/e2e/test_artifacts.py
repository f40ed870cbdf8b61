"""Model files and what becomes of them: checked when registered and when loaded, never when they are in memory."""

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gateway.examples import digit_samples, digits_folder
from tests.e2e.running_gateway import RunningGateway, digit_request, put_route, register, wait_until

PIXELS = digit_samples()[0].pixels


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    running = RunningGateway(tmp_path_factory.mktemp("artifacts"), "--workers", "1")
    yield running
    running.close()


@pytest.fixture
def version(tmp_path: Path) -> Callable[[str, str], dict[str, Any]]:
    """Copy an example version as version of another model; its file may be changed."""

    def copy(model: str, name: str) -> dict[str, Any]:
        folder = tmp_path / model / name
        shutil.copytree(digits_folder() / name, folder)
        document: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        document["model"] = model
        document["backend"]["onnx"]["path"] = str(folder / "model.onnx")
        return document

    return copy


Version = Callable[[str, str], dict[str, Any]]


def _change(document: dict[str, Any]) -> str:
    path = Path(document["backend"]["onnx"]["path"])
    path.write_bytes(path.read_bytes() + b"x")
    return sha256(path.read_bytes()).hexdigest()


def test_a_changed_file_is_refused_with_both_digests_and_the_version_in_memory_serves_on(
    gateway: RunningGateway, version: Version
) -> None:
    one, two = version("changed", "1"), version("changed", "2")
    register(gateway, one)
    register(gateway, two)
    put_route(gateway, {"model": "changed", "split": {"1": 10_000}})
    before = gateway.infer("changed", digit_request(PIXELS)).json()
    digests = [(one["backend"]["onnx"]["sha256"], _change(one)), (two["backend"]["onnx"]["sha256"], _change(two))]
    assert gateway.infer("changed", digit_request(PIXELS)).json() == before
    url = f"{gateway.admin_url}/admin/v1/routes/changed"
    present = gateway.http.get(url)
    route = {"model": "changed", "split": {"1": 5000, "2": 5000}}
    refused = gateway.http.put(url, json=route, headers={"if-match": present.headers["etag"]})
    assert refused.status_code == 422
    assert refused.json()["code"] == "digest_mismatch"
    assert all(digest in refused.json()["detail"] for digest in digests[1])
    assert gateway.http.get(url).headers["etag"] == present.headers["etag"]
    assert gateway.infer("changed", digit_request(PIXELS)).json() == before


def test_a_file_with_another_digest_than_its_manifest_is_not_registered(
    gateway: RunningGateway, version: Version
) -> None:
    document = version("never", "1")
    actual = _change(document)
    answer = gateway.http.post(f"{gateway.admin_url}/admin/v1/models/never/versions", json=document)
    assert answer.status_code == 422
    assert actual in answer.json()["detail"]
    assert document["backend"]["onnx"]["sha256"] in answer.json()["detail"]
    assert gateway.http.get(f"{gateway.admin_url}/admin/v1/models/never/versions/1").status_code == 404


def test_a_restarted_worker_refuses_a_changed_file_and_serves_the_other_versions(
    start_gateway: Callable[..., RunningGateway], version: Version
) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    one, two = version("half", "1"), version("half", "2")
    register(gateway, one)
    register(gateway, two)
    put_route(gateway, {"model": "half", "split": {"1": 10_000, "2": 0}})
    actual = _change(two)
    gateway.stop()
    gateway.start()
    assert gateway.infer("half", digit_request(PIXELS)).status_code == 200
    broken = gateway.infer("half", digit_request(PIXELS), path="/versions/2")
    assert broken.status_code == 503
    assert two["backend"]["onnx"]["path"] not in broken.json()["error"]
    (record,) = gateway.audit(broken.headers["x-record-id"])
    assert actual in record["error"]
    assert two["backend"]["onnx"]["sha256"] in record["error"]
    assert (record["outcome"], record["error_code"]) == ("failed", "version_not_ready")


def test_a_version_that_no_route_names_any_more_is_unloaded(gateway: RunningGateway, version: Version) -> None:
    for name in ("1", "2"):
        register(gateway, version("moved", name))

    def loaded() -> float:
        return gateway.metrics()['pointsman_versions_loaded{worker="worker-0"}']

    before = loaded()
    put_route(gateway, {"model": "moved", "split": {"1": 5000, "2": 5000}})
    wait_until(lambda: loaded() == before + 2, "both versions are loaded")
    put_route(gateway, {"model": "moved", "split": {"2": 10_000}})
    wait_until(lambda: loaded() == before + 1, "one version is unloaded")
    answer = gateway.infer("moved", digit_request(PIXELS), path="/versions/1")
    assert answer.status_code == 404
    assert "does not name it" in answer.json()["error"]
