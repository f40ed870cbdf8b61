"""A gateway with its records in PostgreSQL, under load, while connections are cut, the server killed, away, and back.

Afterwards every answer has exactly one record. The drain of the backlog is timed against the rate of records.
"""

import json
import time
from pathlib import Path

from msgspec import Struct

from tests.e2e.running_gateway import RunningGateway, wait_until
from tests.e2e.traffic import Seen, Traffic
from tests.postgres_server import PostgresServer

CUTS = 10
DATABASE = "records"


class Outage(Struct):
    """What happened: answers, records kept meanwhile and when it began to drain, and how long that took."""

    seen: list[Seen]
    live_per_second: float
    backlog: float
    drain_seconds: float

    @property
    def times_faster(self) -> float:
        """How many times the live rate the backlog was drained with, what came meanwhile counted in."""
        return self.backlog / self.drain_seconds / self.live_per_second + 1


def suffer(folder: Path, postgres: PostgresServer, *, seconds: float, rate: int) -> tuple[RunningGateway, Outage]:
    """Kill the server under load, let it be away for `seconds`, start it again, and wait until the store has caught up.

    Before that its connections are cut again and again, in the middle of whatever they do.
    """
    folder.mkdir()
    postgres.execute(f"CREATE DATABASE {DATABASE}")
    settings = folder / "settings.toml"
    settings.write_text(f'[audit]\nurl = "{postgres.socket_url(DATABASE)}"\n', encoding="utf-8")
    gateway = RunningGateway(folder, "--examples", "--workers", "1", "--config", str(settings))
    gateway.cli("routes", "unshadow", "digits", "3")
    with Traffic(gateway.data_url, folder, connections=8, rate=rate) as traffic:
        began = time.monotonic()
        for _ in range(CUTS):
            time.sleep(0.2)  # a pace of cutting, not a wait
            postgres.cut_all(DATABASE)
        wait_until(lambda: _behind(gateway) < rate, "the store caught up after its connections were cut", 60.0)
        postgres.kill()
        time.sleep(seconds)  # the outage
        postgres.start()
        backlog, started = _behind(gateway), time.monotonic()
        wait_until(lambda: _behind(gateway) < rate / 4, "the backlog is drained", 300.0)
        drained = time.monotonic() - started
        lasted = time.monotonic() - began
    return gateway, Outage(traffic.seen, len(traffic.seen) / lasted, backlog, drained)


def _behind(gateway: RunningGateway) -> float:
    return gateway.metrics().get("pointsman_journal_lag_records", 0.0)


def check(gateway: RunningGateway, outage: Outage) -> None:
    """Hold the records against the answers: none is lost, none is there twice, and the gateway can prove it."""
    assert not [seen for seen in outage.seen if seen.status != 200], "a client noticed"
    account = json.loads(gateway.cli("audit", "completeness", "--json"))
    assert account["complete"], account
    file = gateway.folder / "export.jsonl"
    gateway.cli("audit", "export", "--format", "jsonl", "-o", str(file))
    with file.open(encoding="utf-8") as lines:
        recorded = [record["record_id"] for record in map(json.loads, lines) if record.get("role") == "primary"]
    assert len(recorded) == len(set(recorded))
    assert {seen.record_id for seen in outage.seen} <= set(recorded)
    assert json.loads(gateway.cli("audit", "verify", "--json"))["holds"]
