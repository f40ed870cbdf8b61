"""SIGKILL for workers, the control process, the embedded Valkey and whole gateways, at random moments under load.

One data folder lives through all of it. Afterwards every 2xx that a client saw has exactly one primary record, of the
version that the client saw; completeness holds, and so do the chains, checkpoints and decisions.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.e2e.running_gateway import RunningGateway, wait_until
from tests.e2e.traffic import Seen, Traffic

WORKERS = 4
VOLLEYS = 9
CONNECTIONS = 12
VICTIMS = ("app worker", "app control", "valkey")


class Killed(Struct):
    """What was killed, by kind, and what clients saw."""

    kills: Counter[str]
    seen: list[Seen]

    @property
    def total(self) -> int:
        """How many processes were killed."""
        return sum(self.kills.values())


def kill_again_and_again(
    folder: Path, kills: int, chance: random.Random, *options: str
) -> tuple[RunningGateway, Killed]:
    """Kill until so many processes have died; return the gateway, started once more, and what happened."""
    done = Killed(Counter(), [])
    gateway = RunningGateway(folder, "--examples", "--workers", str(WORKERS), *options)
    while True:
        with Traffic(gateway.data_url, folder, connections=CONNECTIONS) as traffic:
            for _ in range(VOLLEYS):
                time.sleep(chance.uniform(0.02, 0.4))  # the moment of the kill, not a wait
                _volley(gateway, chance, done.kills)
            time.sleep(chance.uniform(0.05, 0.3))  # as above
            _kill_all(gateway, done.kills)
        done.seen += traffic.seen
        gateway.start()
        if done.total >= kills:
            return gateway, done


def _volley(gateway: RunningGateway, chance: random.Random, kills: Counter[str]) -> None:
    """Kill one to three of the gateway's children in one go."""
    children = list(gateway.children().items())
    for pid, command in chance.sample(children, min(len(children), chance.randint(1, 3))):
        kills[_kind(command)] += _kill(pid)


def _kill_all(gateway: RunningGateway, kills: Counter[str]) -> None:
    """Kill the supervisor and everything below it, in one go."""
    children = gateway.children()
    kills["supervisor"] += _kill(gateway.process.pid)
    for pid, command in children.items():
        kills[_kind(command)] += _kill(pid)
    gateway.process.wait()
    wait_until(lambda: not any(_runs(pid) for pid in children), "everything that was killed is gone")


def _kind(command: str) -> str:
    return next((victim for victim in VICTIMS if victim in command), "other")


def _kill(pid: int) -> int:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return 1
    return 0


def _runs(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def check_what_is_left(gateway: RunningGateway, killed: Killed) -> int:
    """Hold the records against what clients saw, and have the gateway prove its log; return how many were seen."""
    wait_until(
        lambda: all(one["pending"] == 0 for one in _account(gateway)["journals"] if one["worker"] != "control"),
        "the recorder has caught up",
        60.0,
    )
    account = _account(gateway)
    assert account["complete"], account
    for damage in ("journal_corrupt", "record_conflict", "record_set_aside"):
        assert gateway.log(damage) == []
    recorded = _recorded(gateway)
    answered = [seen for seen in killed.seen if seen.status == 200]
    twice = {name for name, count in Counter(seen.record_id for seen in answered).items() if count > 1}
    assert not twice, "two answers with one record id"
    wrong = [seen for seen in answered if recorded.get(seen.record_id) != [seen.version]]
    assert not wrong, [(seen, recorded.get(seen.record_id)) for seen in wrong[:5]]
    assert not [name for name, versions in recorded.items() if len(versions) != 1], "a record is there twice"
    verdict = json.loads(gateway.cli("audit", "verify", "--json"))
    assert verdict["holds"], verdict["findings"][:5]
    recomputed = json.loads(gateway.cli("audit", "recompute", "--json"))
    assert recomputed["differ"] == 0
    assert recomputed["checked"] >= len(answered)
    return len(answered)


def _account(gateway: RunningGateway) -> dict[str, Any]:
    answer = gateway.http.get(f"{gateway.admin_url}/admin/v1/audit/completeness")
    assert answer.status_code == 200, answer.text
    account: dict[str, Any] = answer.json()
    return account


def _recorded(gateway: RunningGateway) -> dict[str, list[str]]:
    """Return the versions that served, by record id of a primary: a list, so that none can hide behind another."""
    file = gateway.folder / "export.jsonl"
    gateway.cli("audit", "export", "--format", "jsonl", "-o", str(file))
    found: dict[str, list[str]] = {}
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record.get("role") == "primary":
                found.setdefault(record["record_id"], []).append(record["served"])
    return found
