"""Recorders killed at random moments while a worker writes: the store has every record exactly once."""

import json
import subprocess
import sys
from pathlib import Path

import apsw

from gateway.capture import fits
from gateway.ports import Filter
from gateway.stores.audit_sqlite import SqliteAudit
from tests.journals import assert_chained

CRASHES = ("-m", "tests.gateway.crashing_journal")


def test_every_record_is_in_the_store_exactly_once_when_recorders_were_killed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, *CRASHES, "recorders", str(tmp_path), "30"], check=True, timeout=120)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["status"] == 0
    assert told["written"] > 200
    store = SqliteAudit(tmp_path / "audit")
    frames = [kept.frame for chunk in store.scan(Filter(), contents=True) for kept in chunk]
    positions = store.positions()
    store.close()
    assert [(frame.record.record_id, frame.sequence) for frame in frames] == [
        (f"r-{number}", number + 1) for number in range(told["written"])
    ]
    assert_chained(frames)
    assert all(fits(frame.request, frame.record.request) for frame in frames)
    assert [position.sequence for position in positions.values()] == [told["written"]]
    for file in (tmp_path / "audit").glob("*.db"):
        connection = apsw.Connection(str(file))
        assert connection.pragma("integrity_check") == "ok"
        connection.close()
    assert list((tmp_path / "journal" / "w0").glob("*.corrupt")) == []
