"""PostgreSQL goes away for a minute under load: what is lost (nothing may be), and how fast the backlog drains.

    .venv/bin/python -m loadtests.store_outage [--seconds 60] [--rate 300]

Needs Debian's `postgresql`. Fails (exit 1) when a client notices, a record is missing or twice, or the backlog drains
at less than five times the rate at which records come.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.e2e.outage import check, suffer
from tests.postgres_server import PostgresServer, find_binaries

LEAST_TIMES = 5.0


def main() -> int:
    """Suffer the outage, check, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=300)
    options = parser.parse_args()
    binaries = find_binaries()
    if binaries is None:
        print("no PostgreSQL server is installed: apt-get install postgresql")
        return 1
    postgres = PostgresServer(binaries)
    try:
        with tempfile.TemporaryDirectory() as name:
            gateway, outage = suffer(Path(name) / "gateway", postgres, seconds=options.seconds, rate=options.rate)
            try:
                check(gateway, outage)
            finally:
                gateway.close()
    finally:
        postgres.stop()
    print(f"{len(outage.seen)} answers, {outage.live_per_second:.0f} a second, each with exactly one record")
    print(
        f"{outage.backlog:.0f} records waited after {options.seconds:.0f} s; drained in {outage.drain_seconds:.1f} s: "
        f"{outage.times_faster:.1f} times the live rate"
    )
    return 0 if outage.times_faster >= LEAST_TIMES else 1


if __name__ == "__main__":
    sys.exit(main())
