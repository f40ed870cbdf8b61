"""What a record costs on the request path: CPU of making, sealing and appending it, and the wait for the disk.

    .venv/bin/python -m loadtests.record_cost [--records 50000] [--seconds 15] [--rate 1000]

First, in this process: CPU µs for capturing two bodies of 0.5 kB, building the record, and appending it (encode, chain,
write), alone in its turn of the event loop and with 15 others, as under load; each the best of five rounds. Then two
gateways, one after the other and twice over, with durability `process` and `power`, at a constant rate of requests:
latencies as the client saw them, and their difference.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gateway.journal import Journal
from gateway.metrics import Board
from gateway.record import Record
from tests.e2e.running_gateway import RunningGateway
from tests.e2e.traffic import Traffic
from tests.journals import GATEWAY, made

BODY = b"x" * 500
ROUNDS = 5
CONNECTIONS = 16
GROUP = 16


def cpu_us(work: Callable[[], object], count: int) -> float:
    """Return the CPU µs of one call, the best of a few rounds."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(count):
            work()
        rounds.append((time.process_time() - started) / count * 1e6)
    return min(rounds)


async def groups(journal: Journal, record: tuple[Record, bytes, bytes]) -> None:
    """Append a thousand groups, each in one turn of the loop, as the requests of that turn do."""
    for _ in range(1_000):
        for _ in range(GROUP):
            waiting = journal.enqueue(*record)
        await waiting


def in_process(folder: Path, count: int) -> dict[str, float]:
    """Return the CPU µs of the steps of one record."""
    with_parts = made(1, BODY, BODY)
    board = Board(folder / "worker-0.board")
    journal = Journal(folder / "journal", "w0", 64 * 2**20, board, gateway=GATEWAY)
    try:
        return {
            "capture two bodies and build the record": cpu_us(lambda: made(1, BODY, BODY), count),
            "append it, alone in its turn of the loop": cpu_us(lambda: journal.append(*with_parts), count),
            f"append it with {GROUP - 1} others": cpu_us(lambda: asyncio.run(groups(journal, with_parts)), 20)
            / 1_000
            / GROUP,
        }
    finally:
        journal.close()
        board.close()


def latencies(folder: Path, durability: str, seconds: float, rate: int) -> tuple[float, float]:
    """Return p50 and p99 in ms of requests at a constant rate."""
    folder.mkdir()
    settings = folder / "settings.toml"
    settings.write_text(f'[audit]\ndurability = "{durability}"\n', encoding="utf-8")
    gateway = RunningGateway(folder, "--examples", "--workers", "1", "--config", str(settings))
    try:
        with Traffic(gateway.data_url, folder, connections=CONNECTIONS, rate=rate) as traffic:
            time.sleep(seconds)
        assert not traffic.failed, traffic.failed[:3]
        return traffic.percentile(0.5), traffic.percentile(0.99)
    finally:
        gateway.close()


def main() -> None:
    """Run both and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rate", type=int, default=1_000)
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        steps = in_process(Path(name), options.records)
        table = Table("step", "CPU µs")
        for step, cost in steps.items():
            table.add_row(step, f"{cost:.1f}")
        capturing, alone, grouped = steps.values()
        table.add_row("together, alone; as under load", f"{capturing + alone:.1f}; {capturing + grouped:.1f}")
        console.print(table)
        seen: dict[str, list[tuple[float, float]]] = {"process": [], "power": []}
        for number in range(2):
            for durability, found in seen.items():
                folder = Path(name) / f"{durability}-{number}"
                found.append(latencies(folder, durability, options.seconds, options.rate))
    table = Table("durability", "p50 ms", "p99 ms")
    middle = {kind: [statistics.median(one[at] for one in found) for at in (0, 1)] for kind, found in seen.items()}
    for durability, (p50, p99) in middle.items():
        table.add_row(durability, f"{p50:.2f}", f"{p99:.2f}")
    console.print(table)
    console.print(f"`power` adds {middle['power'][0] - middle['process'][0]:.2f} ms at p50 ({options.rate} requests/s)")


if __name__ == "__main__":
    main()
