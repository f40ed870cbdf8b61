"""Hundreds of processes of a gateway are killed under load, and its log misses nothing that a client was told.

`python -m loadtests.kills` goes on for as many kills as it is told.
"""

from collections.abc import Callable
from pathlib import Path

from tests.e2e.killing import Killer, assert_log_is_whole, free_port
from tests.e2e.running_gateway import RunningGateway
from tests.e2e.traffic import Traffic

KILLS = 200
WORKERS = 3


def test_every_answer_has_its_record_whatever_was_killed_and_whenever(
    tmp_path: Path, start_gateway: Callable[..., RunningGateway]
) -> None:
    ports = ("--port", str(free_port()), "--admin-port", str(free_port()))
    gateway = start_gateway("gateway", *ports, "--workers", str(WORKERS), "--examples")
    gateway.options = tuple(option for option in gateway.options if option != "--examples")
    killer = Killer(gateway, seed=4)
    with Traffic(gateway.data_url, tmp_path, connections=8, rate=200) as traffic:
        while killer.killed.number < KILLS:
            killer.round()
    assert killer.killed.trees > 5
    assert min(killer.killed.processes[kind] for kind in ("worker", "control process", "Valkey")) > 5
    assert len([seen for seen in traffic.seen if seen.status == 200]) > 500
    assert_log_is_whole(gateway, traffic.seen)
