"""No kill of any process loses a record that a client has an answer for, doubles one, or breaks the evidence."""

import os
import random
from pathlib import Path

from tests.e2e.killing import check_what_is_left, kill_again_and_again

KILLS = 1_000 if "FULL_KILLS" in os.environ else 200


def test_every_answer_has_its_one_record_after_hundreds_of_kills_at_random_moments(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown with a failure
    gateway, killed = kill_again_and_again(tmp_path / "gateway", KILLS, random.Random(seed))
    try:
        assert killed.total >= KILLS
        assert {"app worker", "app control", "valkey", "supervisor"} <= set(killed.kills)
        assert check_what_is_left(gateway, killed) > KILLS
    finally:
        gateway.close()
