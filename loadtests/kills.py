"""A thousand processes of one gateway killed at random moments under load, and its log checked afterwards.

    .venv/bin/python -m loadtests.kills [--kills 1000] [--rate 300] [--workers 4] [--durability power]

As `tests/e2e/test_kills.py`, for longer. Pass marks, checked here: every 2xx that a client saw has exactly one primary
record with the same version, `audit completeness` misses nothing, `audit verify` passes. An answer may be missing
(its worker was killed), and is counted; a record never.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.killing import Killer, assert_log_is_whole, free_port
from tests.e2e.running_gateway import RunningGateway
from tests.e2e.traffic import Traffic


def run(folder: Path, kills: int, rate: int, workers: int, durability: str) -> None:
    """Kill, then check; print what there was. Raises `AssertionError` when a pass mark is not met."""
    config = folder / "pointsman.toml"
    config.write_text(f'audit.durability = "{durability}"\n')
    ports = ("--port", str(free_port()), "--admin-port", str(free_port()))
    options = ("--config", str(config), *ports, "--workers", str(workers))
    gateway = RunningGateway(folder / "gateway", *options, "--examples")
    gateway.options = tuple(option for option in gateway.options if option != "--examples")
    killer, began = Killer(gateway, seed=time.time_ns()), time.monotonic()
    try:
        with Traffic(gateway.data_url, folder, connections=16, rate=rate) as traffic:
            while killer.killed.number < kills:
                killer.round()
                print(f"{killer.killed.number} killed after {time.monotonic() - began:.0f} s", flush=True)
        told = assert_log_is_whole(gateway, traffic.seen)
    finally:
        gateway.close()
    for kind, number in sorted(killer.killed.processes.items()):
        print(f"{number:>6} × {kind}")
    print(f"{killer.killed.trees:>6} × the whole tree, each process of which is counted above")
    print(told["completeness"])
    print(told["verify"])
    print(f"{len(traffic.seen)} requests, durability {durability}")
    print(f"{told['answered']} answered with 2xx, each with its one record")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=300)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--durability", choices=["process", "power"], default="process")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(Path(folder), given.kills, given.rate, given.workers, given.durability)
        except AssertionError as missed:
            print(f"missed: {missed}", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
