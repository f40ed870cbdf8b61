"""Fuzz what reads bytes of strangers: the server, the client that calls backends, and the decoder of tensors.

    .venv/bin/python -m loadtests.fuzz [--minutes 10] [--times 20] [--seed N]

Runs the suite's own tests that make up their input again and again, each time with `--times` as many examples and
another seed, until the time is over. Ends with 1 at the first example that breaks a promise; Hypothesis prints it,
made as small as it could.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/gateway/wire/test_any_bytes.py",
    "tests/gateway/wire/test_client_any_bytes.py",
    "tests/gateway/wire/test_client_flowing.py",
    "tests/gateway/wire/test_reply.py",
    "tests/gateway/streaming/test_any_stream.py",
    "tests/gateway/protocols/test_oip_v2_round_trip.py",
    "tests/gateway/protocols/test_oip_v2_bulk.py",
    "tests/e2e/test_any_body.py",
)


def main() -> None:
    """Run rounds until the time is over, and exit with 1 when one of them fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--times", type=int, default=20, help="how many times as many examples as in the suite")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    deadline, rounds = time.monotonic() + options.minutes * 60, 0
    while time.monotonic() < deadline or not rounds:
        seed = options.seed + rounds
        print(f"round {rounds + 1}, seed {seed}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-x", f"--hypothesis-seed={seed}", *TESTS]
        ended = subprocess.run(command, cwd=ROOT, env=os.environ | {"FUZZ_TIMES": str(options.times)}, check=False)
        if ended.returncode:
            sys.exit(1)
        rounds += 1
    print(f"nothing found in {rounds} rounds of {options.times} times the examples of the suite")


if __name__ == "__main__":
    main()
