"""What a demo run came to: shares, accuracy, latencies and agreement, from what was sent and what was recorded.

Belongs here: arithmetic on results. Never here: sending, looking up, or printing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil

from msgspec import Struct

from gateway.cli.weights import percent
from routing.types import Route

_NONE = "–"


class Said(Struct, frozen=True):
    """What one version said about one request. `label` is None when the record keeps no body; time in ms."""

    version: str
    label: int | None
    latency_ms: float


class Prediction(Struct, frozen=True):
    """One request of the demo: the true digit, what the version that served said, and what each shadow said."""

    truth: int
    primary: Said
    shadows: tuple[Said, ...] = ()


class Row(Struct, frozen=True):
    """One line of the table, as text. `asked` is the share by the route, `seen` the share of this run."""

    version: str
    asked: str
    seen: str
    accuracy: str
    p50: str
    p99: str
    agreement: str


COLUMNS = ("version", "share asked", "share seen", "accuracy", "p50 ms", "p99 ms", "shadow agreement")


def tally(route: Route, predictions: Sequence[Prediction]) -> list[Row]:
    """Return one row for every version of the split or that served, then one for every shadow.

    Shares are of all predictions; a shadow's is the share of requests that it got a copy of. Agreement is the share of
    copies on which the shadow said what the version of that row had said.
    """
    served = Counter(prediction.primary.version for prediction in predictions)
    rows = []
    for version in [*route.split, *sorted(set(served) - set(route.split))]:
        own = [prediction for prediction in predictions if prediction.primary.version == version]
        asked = f"{percent(route.split[version])} %" if version in route.split else _NONE
        said = [(prediction.primary, prediction.truth) for prediction in own]
        rows.append(_row(version, asked, said, len(predictions), _agreement(own)))
    for shadow in route.shadows:
        copies = [(said, p.truth) for p in predictions for said in p.shadows if said.version == shadow.version]
        asked = f"shadow {percent(shadow.sample)} %"
        rows.append(_row(shadow.version, asked, copies, len(predictions), _NONE))
    return rows


def share(part: int, whole: int) -> str:
    """Return a part of a whole in percent with one decimal, or a dash for a part of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else _NONE


def nearest_rank(values: Iterable[float], fraction: float) -> float:
    """Return the smallest of `values` (at least one) that is no less than `fraction` of them (nearest-rank method)."""
    ranked = sorted(values)
    return ranked[max(ceil(fraction * len(ranked)), 1) - 1]


def _row(version: str, asked: str, said: Sequence[tuple[Said, int]], whole: int, agreement: str) -> Row:
    known = [(one.label, truth) for one, truth in said if one.label is not None]
    times = [one.latency_ms for one, _ in said]
    return Row(
        version=version,
        asked=asked,
        seen=f"{share(len(said), whole)} ({len(said)})",
        accuracy=share(sum(label == truth for label, truth in known), len(known)),
        p50=f"{nearest_rank(times, 0.50):.2f}" if times else _NONE,
        p99=f"{nearest_rank(times, 0.99):.2f}" if times else _NONE,
        agreement=agreement,
    )


def _agreement(predictions: Sequence[Prediction]) -> str:
    agreed: dict[str, list[bool]] = {}
    for prediction in predictions:
        for said in prediction.shadows:
            if said.label is not None and prediction.primary.label is not None:
                agreed.setdefault(said.version, []).append(said.label == prediction.primary.label)
    return ", ".join(_one_agreement(version, same) for version, same in sorted(agreed.items())) or _NONE


def _one_agreement(version: str, same: Sequence[bool]) -> str:
    return f"{share(sum(same), len(same))} with {version}"
