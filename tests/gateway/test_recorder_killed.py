"""Recorders killed at random moments while a worker writes: the store has every record exactly once."""

import json
import subprocess
import sys
from pathlib import Path

import apsw

CRASHES = Path(__file__).with_name("crashing_journal.py")


def test_every_record_is_in_the_store_exactly_once_when_recorders_were_killed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(CRASHES), "recorders", str(tmp_path), "30"], check=True, timeout=120)
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["status"] == 0
    assert told["written"] > 200
    connection = apsw.Connection(str(tmp_path / "audit.db"))
    try:
        rows = list(connection.execute("SELECT record_id, sequence FROM records ORDER BY sequence"))
        assert rows == [(f"r-{number}", number + 1) for number in range(told["written"])]
        [(committed,)] = connection.execute("SELECT sequence FROM positions")
        assert committed == told["written"]
        assert connection.pragma("integrity_check") == "ok"
    finally:
        connection.close()
    assert list((tmp_path / "journal" / "w0").glob("*.corrupt")) == []
