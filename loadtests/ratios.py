"""The promises that are ratios, measured and judged: pass or fail on a line of its own, with the figures.

    .venv/bin/python -m loadtests.ratios [--only latency,models] [--runs 5] [--seconds 8] [--compared FILE]

| check | promise |
|---|---|
| peers | CPU per request against Envoy, LiteLLM, MLServer and KServe; measured here, or read from a compare.json |
| latency | time added to a backend's answer at 1 000 requests/s |
| models | CPU per request with 10 000 models in the rules, against one |
| idle | CPU per request with 1 000 idle connections, against none |
| memory | growth of a worker over `--requests` requests (2 million; with fewer it is shown, not judged) |
| workers | what two workers carry, against one |
| batching | requests/s of a 5 ms model at 64 connections, batched against unbatched |

Bounds stand in `loadtests/checks/` and cannot be set from here. Ends with 1 unless every line asked for has passed. All
of it takes about an hour, most of it for `peers`, `memory` and `models`; needs what `loadtests.compare` needs.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from loadtests.bench.asking import WrongAnswer
from loadtests.bench.backend import Backend
from loadtests.bench.machine import pointsman_version, this_machine
from loadtests.bench.programs import ProgramFailed, end_in_order, two_cores
from loadtests.bench.results import Comparison
from loadtests.bench.scene import allow_many_files
from loadtests.bench.wrk import require_tools
from loadtests.checks.against_peers import NEEDED, against_peers
from loadtests.checks.batching import batching
from loadtests.checks.growth import idle_connections, many_models, memory
from loadtests.checks.latency import added_latency
from loadtests.checks.scaling import two_workers
from loadtests.checks.verdict import Stage, Verdict
from loadtests.compare import CACHE, compare, selected

_CHECKS: dict[str, Callable[[Stage], list[Verdict]]] = {
    "latency": added_latency,
    "models": many_models,
    "idle": idle_connections,
    "memory": memory,
    "workers": two_workers,
    "batching": batching,
}


def judged(name: str, check: Callable[[Stage], list[Verdict]], stage: Stage) -> list[Verdict]:
    """Return the verdicts of a check; one that breaks off counts as failed, and says why."""
    stage.folder.mkdir(parents=True, exist_ok=True)
    try:
        return check(stage)
    except (ProgramFailed, WrongAnswer, OSError, RuntimeError) as error:
        return [Verdict(name, f"broke off: {type(error).__name__}: {error}"[:400], False)]


def compared(options: argparse.Namespace, folder: Path, cores: tuple[int, int]) -> Comparison:
    """Return the comparison named by `--compared`, or make the part of one that is needed."""
    if options.compared is not None:
        return msgspec.json.decode(options.compared.read_bytes(), type=Comparison)
    peers = selected(",".join(NEEDED))
    return compare(peers, folder, cores=cores, runs=options.runs, seconds=options.seconds, cache=options.cache)


def main() -> None:
    """Run the checks asked for and exit with 1 unless all of them pass."""
    names = ("peers", *_CHECKS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(names), help="checks, with commas between")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs")
    parser.add_argument("--seconds", type=float, default=8.0, help="of load in each run")
    parser.add_argument("--requests", type=int, default=2_000_000, help="of the memory check")
    parser.add_argument(
        "--compared", type=Path, default=None, help="a compare.json instead of measuring the peers again"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the peers' environments")
    options = parser.parse_args()
    wanted = [name.strip() for name in options.only.split(",")]
    if unknown := set(wanted) - set(names):
        sys.exit(f"no such check: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    require_tools()
    end_in_order()
    allow_many_files()
    cores = two_cores()
    os.sched_setaffinity(0, {cores[1]})
    print(f"Pointsman {pointsman_version()}; {this_machine()}", flush=True)
    verdicts: list[Verdict] = []
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="ratios-") as folder:
            if name == "peers":
                found = against_peers(compared(options, Path(folder), cores))
            else:
                with Backend(Path(folder), cores[1]) as backend:
                    place = Path(folder) / name
                    stage = Stage(place, cores, backend.url, options.runs, options.seconds, options.requests)
                    found = judged(name, _CHECKS[name], stage)
        verdicts += found
        print(*found, sep="\n", flush=True)
    sys.exit(0 if all(verdict.passed for verdict in verdicts) else 1)


if __name__ == "__main__":
    main()
