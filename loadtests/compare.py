"""What a request costs, side by side: Pointsman, proxies, model servers and gateways of language models.

    .venv/bin/python -m loadtests.compare [--runs 5] [--seconds 8] [--only pointsman,envoy] [--out loadtests/figures]

In each of `--runs` rounds every program is started on its own, whole on one core, checked for right answers, loaded
with `wrk` from the other core with the same bodies, checked again, and ended; so each round has a figure of each
program, taken minutes apart, and ratios are formed within rounds. CPU per request is the user + system time of the
whole process tree over the answered requests. Pointsman runs as it is by default, records, metrics and log lines on,
and its figure includes everything until the last record is in the store. Written are a table (compare.md), a plot
(compare.svg) and every single figure (compare.json, which `loadtests.ratios --compared` reads).

Needs Debian's nginx and wrk; the other programs are installed from the pinned lists of `loadtests/peers/*.txt` into
`--cache`. What does not install or start stands in the table with the reason. All traffic stays on loopback. A full
run with 5 rounds takes about half an hour; with Ctrl-C everything that was started is ended.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadtests.bench.asking import WrongAnswer
from loadtests.bench.backend import Backend
from loadtests.bench.machine import this_machine
from loadtests.bench.measuring import CONNECTIONS, measure
from loadtests.bench.plot import svg
from loadtests.bench.programs import ProgramFailed, end_in_order, two_cores
from loadtests.bench.results import Comparison, PeerRuns
from loadtests.bench.table import markdown
from loadtests.bench.wrk import require_tools
from loadtests.peers.all import PEERS, label
from loadtests.peers.peer import Peer, PeerUnavailable, Place, start

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pointsman-peers"


def compare(
    peers: Sequence[Peer], folder: Path, *, cores: tuple[int, int], runs: int, seconds: float, cache: Path
) -> Comparison:
    """Install the peers, then measure each once in every round; the files of the runs are in `folder`."""
    found = {label(peer): PeerRuns(label(peer), peer.name, peer.task, peer.said) for peer in peers}
    for peer in peers:
        row = found[label(peer)]
        _say(f"{row.label}: installing, if it is not there yet")
        try:
            row.version = peer.install(cache)
        except PeerUnavailable as error:
            row.trouble = str(error)
            _say(f"{row.label}: {row.trouble}")
    with Backend(folder, cores[1]) as backend:
        for number in range(runs):
            for peer in (*peers[number % len(peers) :], *peers[: number % len(peers)]):
                place = Place(folder / f"{label(peer)}-{number}", cores[0], cache, backend.url)
                _measure(peer, place, found[label(peer)], cores=cores, seconds=seconds)
    return Comparison(str(this_machine()), seconds, CONNECTIONS, list(found.values()))


def _measure(peer: Peer, place: Place, row: PeerRuns, *, cores: tuple[int, int], seconds: float) -> None:
    """Append one round to a peer's row; after a first failure the peer is left alone."""
    figures = None
    if not row.trouble:
        try:
            served = start(peer, place)
            try:
                figures = measure(served, place.folder, cores=cores, seconds=seconds, warm_seconds=max(1, seconds / 3))
            finally:
                served.close()
        except (ProgramFailed, WrongAnswer, OSError, RuntimeError) as error:
            row.trouble = f"{type(error).__name__}: {error}"[:300].replace("|", "/").replace("\n", " ")
            _say(f"{row.label}: {row.trouble}")
    row.runs.append(figures)
    if figures is not None:
        workers = "" if figures.workers_us is None else f" (workers {figures.workers_us:.0f})"
        _say(
            f"{row.label}: {figures.per_second:.0f} requests/s, p50 {figures.p50_ms:.2f} ms, "
            f"p99 {figures.p99_ms:.2f} ms, {figures.cpu_us:.0f} µs/request{workers}; "
            f"others took {figures.foreign:.0%} of the core"
        )


def _say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", flush=True)


def selected(names: str) -> list[Peer]:
    """Return the peers of a comma-separated list, all of them for an empty one."""
    wanted = {name.strip().lower() for name in names.split(",") if name.strip()}
    if unknown := wanted - {label(peer) for peer in PEERS}:
        sys.exit(f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(map(label, PEERS))}")
    return [peer for peer in PEERS if not wanted or label(peer) in wanted]


def write_report(comparison: Comparison, out: Path) -> None:
    """Write table, plot and figures into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.md").write_text(markdown(comparison), encoding="utf-8")
    (out / "compare.svg").write_text(svg(comparison), encoding="utf-8")
    (out / "compare.json").write_bytes(msgspec.json.format(msgspec.json.encode(comparison), indent=1) + b"\n")


def main() -> None:
    """Run the comparison and exit with 1 when a program could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=8.0, help="of load, for each program in each round")
    parser.add_argument("--only", default="", help=f"some of {','.join(map(label, PEERS))}")
    parser.add_argument("--out", type=Path, default=Path("loadtests/figures"), help="folder of the report")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the peers' environments")
    options = parser.parse_args()
    peers = selected(options.only)
    require_tools()
    end_in_order()
    cores = two_cores()
    os.sched_setaffinity(0, {cores[1]})
    with tempfile.TemporaryDirectory(prefix="compare-") as name:
        found = compare(
            peers, Path(name), cores=cores, runs=options.runs, seconds=options.seconds, cache=options.cache.absolute()
        )
    write_report(found, options.out)
    print(markdown(found))
    print(f"written: {options.out}/compare.md, compare.svg, compare.json")
    sys.exit(1 if any(row.trouble for row in found.peers) else 0)


if __name__ == "__main__":
    main()
