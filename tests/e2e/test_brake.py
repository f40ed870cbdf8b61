"""A version that fails in traffic: workers divert at once, the control plane makes it a revision, records say why."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from typing import Any

from gateway.metrics import Board, Slot, board_path
from tests.e2e.backends import ANSWER, Backend, answers, reply
from tests.e2e.running_gateway import RunningGateway, manifest, put_route, register, wait_until

SPLIT = {"1": 8_000, "2": 2_000}
CALLERS = 80
WORKERS = 2


async def fails(_: Backend, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(reply("500 Internal Server Error", b'{"error": "no GPU"}'))


def ask(gateway: RunningGateway, turn: int) -> list[Any]:
    """Have every caller ask once, each over a connection of its own, so that all workers get some."""
    headers = {"connection": "close"}
    return [
        gateway.infer("fraud", ANSWER, headers | {"x-routing-key": f"c-{number}", "x-request-id": f"t{turn}-{number}"})
        for number in range(CALLERS)
    ]


def braked(gateway: RunningGateway) -> list[int]:
    """Return for each worker how many versions it diverts from, also while the control process is stopped."""
    boards = [Board(board_path(gateway.data_dir / "run", index)) for index in range(WORKERS)]
    found = [board[Slot.VERSIONS_BRAKED] for board in boards]
    for board in boards:
        board.close()
    return found


def test_a_failing_version_loses_its_traffic_at_once_and_its_share_by_a_revision(
    start_gateway: Callable[..., RunningGateway],
) -> None:
    gateway = start_gateway("gateway", "--workers", str(WORKERS))
    with Backend(answers) as good, Backend(fails) as bad:
        for version, url in (("1", good.url), ("2", bad.url)):
            register(gateway, manifest("fraud", version, {"http": {"urls": [url]}}))
        first = put_route(gateway, {"model": "fraud", "split": SPLIT, "brake": {"failures": 3, "of": 10}})

        control = gateway.child_pid("control")
        os.kill(control, signal.SIGSTOP)  # workers are on their own
        turn = 0
        try:
            while braked(gateway) != [1] * WORKERS:
                turn += 1
                assert turn < 20
                ask(gateway, turn)
            answered = ask(gateway, turn := turn + 1)
            diverted = [answer for answer in answered if answer.headers["x-route-reason"] == "brake"]
            assert diverted
            assert {answer.headers["x-model-version"] for answer in answered} == {"1"}
        finally:
            os.kill(control, signal.SIGCONT)

        def split() -> dict[str, int]:
            route: dict[str, Any] = gateway.http.get(f"{gateway.admin_url}/admin/v1/routes/fraud").json()
            return route["split"]  # type: ignore[no-any-return]

        wait_until(lambda: split() == {"1": 10_000, "2": 0}, "the brake is a revision")
        newest, older, *_ = json.loads(gateway.cli("routes", "history", "fraud", "--json"))["revisions"]
        assert (newest["actor"], older["revision"]) == ("pointsman", first)
        assert "version 2 failed 3 of its last" in newest["comment"]
        wait_until(lambda: braked(gateway) == [0] * WORKERS, "the workers let go of their brakes")
        after = ask(gateway, turn + 1)
        assert {answer.headers["x-route-reason"] for answer in after} == {"split"}
        assert {answer.headers["x-model-version"] for answer in after} == {"1"}

        (record,) = gateway.audit(diverted[0].headers["x-request-id"])
        decision = record["decision"]
        assert (record["intended"], record["served"], decision["reason"]) == ("2", "1", "brake")
        assert "the worker's brake diverted" in decision["explained"]
        recomputed = gateway.cli("audit", "recompute")  # ends with 1 when a record differs
        assert "0 differ" in recomputed, recomputed
        explained = gateway.cli("routes", "explain", "fraud", "--request-id", diverted[0].headers["x-request-id"])
        assert "version 1 instead of 2, reason brake" in explained
        assert "the same" in explained
        assert gateway.metrics()['pointsman_diversions_total{intended="2",model="fraud",version="1"}'] >= len(diverted)
        assert len(gateway.log("version_braked")) == WORKERS
        assert len(gateway.log("brake_published")) == 1
