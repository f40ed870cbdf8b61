"""Promises about other programs, read from a comparison: Envoy, LiteLLM, MLServer, KServe.

Belongs here: which figure is held against which. Never here: measuring (that is `loadtests.compare`).
"""

from collections.abc import Callable

from loadtests.bench.measuring import Figures
from loadtests.bench.results import Comparison, paired, whole_us, workers_us
from loadtests.checks.verdict import Verdict, at_least, at_most

_OURS = {"compiled": "pointsman-compiled", "as it is": "pointsman"}
NEEDED = (*_OURS.values(), "envoy", "litellm", *(f"{ours}-in-process" for ours in _OURS.values()), "mlserver", "kserve")
_Figure = Callable[[Figures], float | None]


def against_peers(comparison: Comparison) -> list[Verdict]:
    """Return a verdict for each promise, in the order of the issue: for the compiled build, then for the source as it
    is.
    """
    return [verdict for how, ours in _OURS.items() for verdict in _verdicts(comparison, how, ours)]


def _verdicts(comparison: Comparison, how: str, ours: str) -> list[Verdict]:
    forward, within = _Ratios(comparison, ours), _Ratios(comparison, f"{ours}-in-process")
    verdicts = [
        at_most(f"{how}, forward, CPU of the workers ÷ Envoy's", *forward.over("envoy", workers_us, 1.0)),
        at_most(f"{how}, forward, CPU of the whole product ÷ Envoy's", *forward.over("envoy", whole_us, 1.4)),
        at_least(f"{how}, forward, CPU of LiteLLM ÷ the whole product's", *forward.under("litellm", whole_us, 100)),
    ]
    for peer, name in (("mlserver", "MLServer"), ("kserve", "KServe")):
        verdicts += [
            at_least(f"{how}, in process, CPU of {name} ÷ the workers'", *within.under(peer, workers_us, 7)),
            at_least(f"{how}, in process, CPU of {name} ÷ the whole product's", *within.under(peer, whole_us, 5)),
        ]
    return verdicts


class _Ratios:
    """Paired ratios between Pointsman's runs of one task and a peer's, with the bound and a word about missing runs."""

    def __init__(self, comparison: Comparison, ours: str) -> None:
        self._comparison, self._ours = comparison, ours

    def over(self, peer: str, figure: _Figure, bound: float) -> tuple[list[float], float, str]:
        """Return ours ÷ theirs."""
        one, other = self._comparison.peer(self._ours), self._comparison.peer(peer)
        if one is None or other is None:
            return [], bound, f": {peer} was not measured"
        ratios = paired(one, other, figure, whole_us)
        return ratios, bound, "" if ratios else f": {other.trouble or one.trouble}"

    def under(self, peer: str, figure: _Figure, bound: float) -> tuple[list[float], float, str]:
        """Return theirs ÷ ours."""
        ratios, bound, more = self.over(peer, figure, bound)
        return [1 / ratio for ratio in ratios], bound, more
