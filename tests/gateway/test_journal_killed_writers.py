"""A journal whose writers are killed at random moments: nothing that was acknowledged is lost, nothing is doubled."""

import json
import subprocess
import sys
from pathlib import Path

from tests.journals import assert_chained, read_all

CRASHES = ("-m", "tests.gateway.crashing_journal")
ROUNDS = 40


def test_every_record_that_was_acknowledged_is_there_when_its_writer_was_killed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, *CRASHES, "writers", str(tmp_path), str(ROUNDS)], check=True, timeout=120)
    returned: list[int] = json.loads((tmp_path / "told.json").read_text())
    frames = read_all(tmp_path / "journal" / "w0")
    assert_chained(frames)
    assert [frame.sequence for frame in frames] == list(range(1, len(frames) + 1))
    assert len({frame.journal for frame in frames}) == 1
    lives: list[list[int]] = [[] for _ in range(ROUNDS)]
    for frame in frames:
        life, number = frame.record.record_id.removeprefix("r-").split("-")
        lives[int(life)].append(int(number))
    for numbers, last in zip(lives, returned, strict=True):
        assert numbers == list(range(len(numbers)))
        assert len(numbers) - 1 >= last
    assert sum(returned) > ROUNDS, "the writers were killed before they wrote anything worth a test"
