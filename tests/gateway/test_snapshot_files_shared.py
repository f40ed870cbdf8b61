"""The folder of the last good rules, written by several processes, and by processes that are killed."""

import json
import subprocess
import sys
from pathlib import Path

from gateway.snapshot import LastGood
from gateway.snapshot.lastgood_folder import bases
from gateway.snapshot.lastgood_log import log_path
from tests.gateway.lastgood_rules import rules_at

WRITERS = Path(__file__).with_name("lastgood_rules.py")
ROOT = Path(__file__).parents[2]


def _run(what: str, folder: Path, rounds: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gateway.lastgood_rules", what, str(folder), str(rounds)],
        cwd=ROOT,
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_what_was_kept_is_there_when_its_writer_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    _run("killed", folder, 40)
    told: list[tuple[int, int]] = json.loads((tmp_path / "told.json").read_text())
    assert all(found >= kept for kept, found in told), "a revision that was kept is lost"
    assert [found for _, found in told] == sorted(found for _, found in told)
    assert told[-1][0] > 40, "the writers were killed before they wrote anything worth a test"
    # The last of the killed may have begun a generation and not lived to take the oldest away.
    assert len(bases(folder)) in (3, 4), "no generation was begun"


def test_writers_of_one_folder_leave_one_whole_chain(tmp_path: Path) -> None:
    folder = tmp_path / "rules"
    lines = _run("together", folder, 120)
    assert json.loads((tmp_path / "told.json").read_text()) == [0, 0, 0]
    assert "last_good" not in lines, "something was refused or cut though nobody died"
    assert LastGood(folder).newest() == rules_at(120)
    log = log_path(bases(folder)[0])  # there is none if the last of the changes made a new base
    seen = [json.loads(line[65:])["revision"] for line in (log.read_text().splitlines() if log.exists() else ())]
    assert seen == sorted(set(seen)), "a revision is there twice, or out of turn"
