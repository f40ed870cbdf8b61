"""A rules store of one's own, over TCP with a password: used instead of the embedded one, and done without."""

from collections.abc import Callable
from pathlib import Path

from gateway.examples import digit_samples
from tests.e2e.own_redis import PASSWORD, OwnRedis, settings_file
from tests.e2e.running_gateway import RunningGateway, digit_request, wait_until

BODY = digit_request(digit_samples()[0].pixels)


def test_the_gateway_serves_on_without_its_redis_and_starts_without_it(
    own_redis: OwnRedis, tmp_path: Path, start_gateway: Callable[..., RunningGateway]
) -> None:
    gateway = start_gateway("gateway", "--config", str(settings_file(tmp_path, own_redis.url, workers=1)), "--examples")
    assert not any("valkey" in command for command in gateway.children().values())
    fresh = gateway.infer("digits", BODY, {"x-routing-key": "ann"})
    assert gateway.audit(fresh.headers["x-record-id"])[0]["stale"] is False

    own_redis.stop()

    def stale() -> bool:
        answer = gateway.infer("digits", BODY, {"x-routing-key": "ann"})
        assert answer.status_code == 200
        assert answer.headers["x-model-version"] == fresh.headers["x-model-version"]
        return bool(gateway.audit(answer.headers["x-record-id"])[0]["stale"])

    wait_until(stale, "records are marked stale")
    assert gateway.http.get(f"{gateway.data_url}/v2/health/ready").status_code == 200
    refused = gateway.http.put(
        f"{gateway.admin_url}/admin/v1/routes/digits",
        json={"model": "digits", "split": {"1": 10_000}},
        headers={"if-match": '"4"'},
    )
    assert (refused.status_code, refused.json()["code"]) == (503, "rules_unavailable")
    assert gateway.stop() == 0

    gateway.start()
    again = gateway.infer("digits", BODY, {"x-routing-key": "ann"})
    assert again.status_code == 200
    assert again.headers["x-route-revision"] == fresh.headers["x-route-revision"]
    (record,) = gateway.audit(again.headers["x-record-id"])
    assert record["stale"] is True

    own_redis.start()
    wait_until(lambda: not stale(), "records are fresh again")
    gateway.cli("routes", "weights", "digits", "1=0", "2=100")
    assert gateway.infer("digits", BODY).headers["x-model-version"] == "2"
    assert PASSWORD not in gateway.log_path.read_text()
    assert not any(PASSWORD in command for command in gateway.children().values())
