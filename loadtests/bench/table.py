"""The comparison as a Markdown table: every program that was asked for has a row, those that did not run say why.

Belongs here: words and columns. Never here: measuring.
"""

import statistics
from collections.abc import Iterable

from loadtests.bench.results import Comparison, PeerRuns, paired, whole_us

_TASKS = {
    "forward": "Forwarding 0.5 kB of JSON to a backend",
    "chat": "The same with chat completions of 0.5 kB, which is all that these take",
    "in process": "Serving the digits model in process",
}
_DISTURBED = 0.05


def markdown(comparison: Comparison) -> str:
    """Return the whole report."""
    rounds = max((len(peer.runs) for peer in comparison.peers), default=0)
    lines = [
        f"Medians of {rounds} rounds, the programs in turn in each, {comparison.seconds:g} s of load apiece from `wrk` "
        f"over {comparison.connections} connections; each program whole on one core, load and backend on the other.",
        f"{comparison.machine}.",
        "",
        "CPU is user + system time per answered request, from /proc. × is CPU against Pointsman's whole product, "
        "compiled where that was measured, the median of the ratios round by round.",
    ]
    for task, title in _TASKS.items():
        peers = [peer for peer in comparison.peers if peer.task == task]
        if peers:
            lines += ["", f"**{title}**", "", *_table(peers, comparison, task)]
    return "\n".join([*lines, *_warnings(comparison.peers)]) + "\n"


def _table(peers: Iterable[PeerRuns], comparison: Comparison, task: str) -> list[str]:
    where = "-in-process" if task == "in process" else ""
    ours = comparison.peer(f"pointsman-compiled{where}") or comparison.peer(f"pointsman{where}")
    lines = ["| program | requests/s | p50 ms | p99 ms | CPU µs/request | × | how |", "|---|---|---|---|---|---|---|"]
    for peer in peers:
        name = f"{peer.name} {peer.version}".strip()
        whole = peer.median(whole_us)
        if whole is None:
            lines.append(f"| {name} | – | – | – | – | – | {peer.trouble or 'not measured'} |")
            continue
        workers = peer.median(lambda figures: figures.workers_us)
        cost = f"{whole:.0f}" if workers is None else f"{whole:.0f} (workers {workers:.0f})"
        cells = [
            name,
            f"{peer.median(lambda figures: figures.per_second):.0f}",
            f"{peer.median(lambda figures: figures.p50_ms):.2f}",
            f"{peer.median(lambda figures: figures.p99_ms):.2f}",
            cost,
            _against(peer, ours),
            peer.said + (f"; **then: {peer.trouble}**" if peer.trouble else ""),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _against(peer: PeerRuns, ours: PeerRuns | None) -> str:
    if ours is None or peer is ours:
        return "1" if peer is ours else "–"
    ratios = paired(peer, ours, whole_us, whole_us)
    return f"{statistics.median(ratios):.3g}" if ratios else "–"


def _warnings(peers: Iterable[PeerRuns]) -> list[str]:
    runs = [(peer, run) for peer in peers for run in peer.runs if run is not None]
    said = []
    if disturbed := sorted({peer.label for peer, run in runs if run.foreign > _DISTURBED}):
        worst = max(run.foreign for _, run in runs)
        said.append(
            f"Disturbed: other programs took up to {worst:.0%} of the core in rounds of {', '.join(disturbed)}."
        )
    if starved := sorted({peer.label for peer, run in runs if run.load_busy > 0.95}):
        said.append(f"The load's core was full for {', '.join(starved)}: requests/s and times are the load's limit.")
    return ["", *said] if said else []
