"""A journal whose writers are killed at random moments: nothing that was acknowledged is lost, nothing is doubled."""

import json
import subprocess
import sys
from pathlib import Path

from gateway.journal.segment import Corruption
from gateway.journal.tail import Budget, Tail
from gateway.record import Frame

CRASHES = Path(__file__).with_name("crashing_journal.py")
ROUNDS = 40


def test_every_record_that_was_acknowledged_is_there_when_its_writer_was_killed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(CRASHES), "writers", str(tmp_path), str(ROUNDS)], check=True, timeout=120)
    returned: list[int] = json.loads((tmp_path / "told.json").read_text())
    damage: list[Corruption] = []
    frames = _read(tmp_path / "journal" / "w0", damage)
    assert damage == []
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


def _read(folder: Path, damage: list[Corruption]) -> list[Frame]:
    tail = Tail(folder, {}, lambda _, found: damage.append(found))
    try:
        return tail.read(Budget(10**6, 10**10))
    finally:
        tail.close()
