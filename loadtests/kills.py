"""Kill processes of a gateway at random moments under load, a thousand times, and hold the records against the answers.

    .venv/bin/python -m loadtests.kills [--kills 1000] [--seed N] [--durability power]

Fails (exit 1, with the first differences) when an answer has not exactly one record of its version, when a record is
missing or twice, or when verification or re-computation finds anything.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.e2e.killing import check_what_is_left, kill_again_and_again


def main() -> None:
    """Kill, check, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--durability", choices=["process", "power"], default="process")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "pointsman.toml"
        config.write_text(f'audit.durability = "{options.durability}"\n')
        chance = random.Random(options.seed)
        gateway, killed = kill_again_and_again(Path(name) / "gateway", options.kills, chance, "--config", str(config))
        try:
            answered = check_what_is_left(gateway, killed)
        finally:
            gateway.close()
    lost = len(killed.seen) - answered
    print(f"seed {options.seed}; durability {options.durability}; {time.monotonic() - started:.0f} s")
    print(f"killed {dict(killed.kills)}, {killed.total} in all")
    print(
        f"{answered} answers, each with exactly one record of its version; {lost} requests had no answer (killed under)"
    )


if __name__ == "__main__":
    main()
