"""A 90/10 split as headers, metrics, log lines and records tell it: exactly the same story, within 3 σ of the rule.

`make e2e` runs the full count (FULL_COUNT=1), the fast suite a tenth of it. All records are compared, and 2 000 looked
up one by one.
"""

import json
import os
import signal
from collections import Counter
from math import sqrt

import pytest

from gateway.examples import digit_samples
from tests.e2e.raw_client import RawAnswer, get, post, send_all
from tests.e2e.running_gateway import RunningGateway, digit_request, wait_until

COUNT = 20_000 if os.environ.get("FULL_COUNT") else 2_000
BODIES = [json.dumps(digit_request(sample.pixels)).encode() for sample in digit_samples()[:50]]


def _requests(count: int) -> list[bytes]:
    path = "/v2/models/digits/infer"
    return [
        post(path, BODIES[n % len(BODIES)], x_routing_key=f"key-{n}", x_request_id=f"share-{n}") for n in range(count)
    ]


def _counted(gateway: RunningGateway, before: dict[str, float]) -> dict[str, float]:
    now = gateway.metrics()
    name = 'pointsman_requests_total{{model="digits",outcome="served",version="{}"}}'
    return {version: now.get(name.format(version), 0) - before.get(name.format(version), 0) for version in ("1", "2")}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A gateway of two workers that has just answered COUNT requests with distinct routing keys."""
    gateway = RunningGateway(tmp_path_factory.mktemp("shares"), "--examples", "--workers", "2")
    try:
        before = gateway.metrics()
        yield gateway, send_all(gateway.data_url, _requests(COUNT)), before
    finally:
        gateway.close()


Answered = tuple[RunningGateway, list[RawAnswer], dict[str, float]]


def test_headers_metrics_log_lines_and_records_agree_exactly_and_with_the_rule(answered: Answered) -> None:
    gateway, answers, before = answered
    assert {answer.status for answer in answers} == {200}
    seen = Counter(answer.headers["x-model-version"] for answer in answers)
    assert abs(seen["2"] - 0.1 * COUNT) <= 3 * sqrt(COUNT * 0.1 * 0.9)
    # A scrape waits only so long for records that are written and not counted yet; on a busy machine it may be longer.
    wait_until(lambda: _counted(gateway, before) == dict(seen), "every request is counted, and no other")

    def lines() -> Counter[str]:
        return Counter(line["version"] for line in gateway.log("served") if line["request_id"].startswith("share-"))

    wait_until(lambda: lines() == seen, "every request has its line, and no other")
    records = _exported(gateway)
    assert Counter(record["served"] for record in records) == seen
    told = {record["request_id"]: (record["record_id"], record["served"]) for record in records}
    assert len(told) == len(records)
    assert told == {
        f"share-{number}": (answer.headers["x-record-id"], answer.headers["x-model-version"])
        for number, answer in enumerate(answers)
    }
    _look_up(gateway, answers)


def _exported(gateway: RunningGateway) -> list[dict[str, str]]:
    """Return every primary record of these requests."""
    file = gateway.folder / "shares.jsonl"
    gateway.cli("audit", "export", "--format", "jsonl", "-o", str(file))
    with file.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    ours = (one for one in records if one.get("role") == "primary")
    return [one for one in ours if one["request_id"].startswith("share-")]


def _look_up(gateway: RunningGateway, answers: list[RawAnswer]) -> None:
    """Look requests up by their request ids: exactly one primary record, naming the version the client saw."""
    numbers = range(0, len(answers), len(answers) // 2_000)
    found = send_all(gateway.admin_url, [get(f"/admin/v1/audit/requests/share-{number}") for number in numbers], 4)
    for number, look_up in zip(numbers, found, strict=True):
        answer = answers[number]
        assert look_up.status == 200
        (record,) = json.loads(look_up.body)["records"]
        assert record["record_id"] == answer.headers["x-record-id"]
        assert record["served"] == answer.headers["x-model-version"]


def test_the_same_key_gets_the_same_version_in_every_worker_and_after_a_restart(answered: Answered) -> None:
    gateway, answers, _ = answered
    first = [answer.headers["x-model-version"] for answer in answers[:1000]]
    for worker, other in ((0, 1), (1, 0)):
        asleep = gateway.child_pid(f"app worker {other}")
        os.kill(asleep, signal.SIGSTOP)  # so that every new connection is the other worker's
        try:
            again = send_all(gateway.data_url, _requests(1000), 8)
        finally:
            os.kill(asleep, signal.SIGCONT)
        assert [answer.headers["x-model-version"] for answer in again] == first
        (record,) = gateway.audit(again[0].headers["x-record-id"])
        assert record["worker"] == f"w{worker}"
    assert gateway.stop(signal.SIGTERM) == 0
    gateway.start()
    after = send_all(gateway.data_url, _requests(1000), 8)
    assert [answer.headers["x-model-version"] for answer in after] == first


def test_the_log_holds_one_line_for_each_request(answered: Answered) -> None:
    gateway, answers, _ = answered
    ids = {answer.headers["x-record-id"] for answer in answers}
    lines = [line["record_id"] for line in gateway.log("served") if line["record_id"] in ids]
    assert Counter(lines) == Counter(ids)
