"""Killing processes of one gateway at random moments under load, and what its log has to say for itself afterwards.

Everything happens in one data folder, so it is one log from the first round to the last. Victims are workers, the
control process, the embedded Valkey, several of them at once, and now and then the whole tree.
"""

import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from gateway.ports import Filter
from gateway.stores.audit_sqlite import SqliteAudit
from tests.e2e.running_gateway import RunningGateway, running, wait_until
from tests.e2e.traffic import Seen

LONGEST_PAUSE = 0.6
VOLLEYS = 12  # before the whole tree is killed: a child that died often in a row is started ever later
LOOKED_UP = 40


class Killed(Struct):
    """What was killed: how many processes of each kind, and how often the whole tree."""

    processes: Counter[str]
    trees: int = 0

    @property
    def number(self) -> int:
        return sum(self.processes.values())


def free_port() -> int:
    """Return a port that nobody listens on: a gateway that is started again must be found where it was."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Killer:
    """Kills processes of `gateway`, and starts the tree again when it has killed it."""

    def __init__(self, gateway: RunningGateway, seed: int) -> None:
        self._gateway = gateway
        self._chance = random.Random(seed)
        self.killed = Killed(Counter())

    def round(self) -> None:
        """Kill random processes a few times, then all of them at once, and start the gateway again."""
        for _ in range(self._chance.randint(VOLLEYS // 3, VOLLEYS)):
            self._wait_a_moment()
            present = sorted(self._gateway.children())
            for pid in self._chance.sample(present, min(len(present), self._chance.randint(1, 4))):
                self._kill(pid)
        self._wait_a_moment()
        self._kill_tree()
        self._gateway.start()

    def _wait_a_moment(self) -> None:
        time.sleep(self._chance.uniform(0.0, LONGEST_PAUSE))  # the moment of the kill, not a wait

    def _kill_tree(self) -> None:
        tree = self._gateway.children()
        self._gateway.process.kill()
        self.killed.processes["supervisor"] += 1
        for pid in tree:
            self._kill(pid, tree[pid])
        self.killed.trees += 1
        self._gateway.process.wait()
        wait_until(lambda: not running(list(tree)), "the whole tree is gone")

    def _kill(self, pid: int, command: str | None = None) -> None:
        command = command if command is not None else self._gateway.children().get(pid)
        if command is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed.processes[_kind(command)] += 1


def _kind(command: str) -> str:
    kinds = {"app worker": "worker", "app control": "control process", "valkey-server": "Valkey"}
    return next((kind for mark, kind in kinds.items() if mark in command), "process that had just begun")


def assert_log_is_whole(gateway: RunningGateway, seen: Iterable[Seen]) -> dict[str, Any]:
    """Fail unless every answer that a client saw has exactly one primary record with its version, completeness holds
    and verification passes. Ends the gateway; returns figures worth printing.
    """
    answered = [one for one in seen if 200 <= one.status < 300]
    assert len({one.record_id for one in answered}) == len(answered)
    wait_until(lambda: gateway.metrics().get("pointsman_journal_lag_records") == 0, "the store has caught up", 60.0)
    for one in random.Random(1).sample(answered, LOOKED_UP):
        [found] = [record for record in gateway.audit(one.record_id) if record["role"] == "primary"]
        assert (found["record_id"], found["served"]) == (one.record_id, one.version)
    complete = gateway.cli("audit", "completeness")
    verified = gateway.cli("audit", "verify")
    assert gateway.stop() == 0
    _assert_each_is_recorded_once(gateway.data_dir / "audit", answered)
    assert gateway.log("journal_corrupt") == []
    assert gateway.log("record_conflict") == []
    return {"answered": len(answered), "completeness": complete, "verify": verified}


def _assert_each_is_recorded_once(folder: Path, answered: Iterable[Seen]) -> None:
    store = SqliteAudit(folder, read_only=True)
    try:
        records = [kept.frame.record for chunk in store.scan(Filter(role="primary"), contents=False) for kept in chunk]
    finally:
        store.close()
    times = Counter(record.record_id for record in records)
    versions = {record.record_id: record.served for record in records}
    missing = [one.record_id for one in answered if times[one.record_id] != 1]
    assert missing == []
    assert [one.record_id for one in answered if versions[one.record_id] != one.version] == []
    assert set(times.values()) == {1}
