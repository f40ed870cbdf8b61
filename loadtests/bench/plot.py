"""The comparison as a picture: CPU per request as bars on a logarithmic scale, with the range of the rounds.

Belongs here: drawing. Never here: figures that the table does not have. Written by hand as SVG: one kind of picture
does not earn a plotting library, and text differs line by line when a figure changes.
"""

import math
from html import escape

from loadtests.bench.results import Comparison, PeerRuns, whole_us, workers_us

_TITLES = {
    "forward": "forwarding 0.5 kB of JSON",
    "chat": "forwarding chat completions of 0.5 kB",
    "in process": "serving the digits model in process",
}
_WIDTH, _LEFT, _RIGHT, _ROW = 860, 190, 110, 26
_OURS, _OTHERS, _WORKERS = "#1f6f5c", "#9aa5b1", "#63b39c"


def svg(comparison: Comparison) -> str:
    """Return the picture as a standalone SVG document."""
    shown = {task: _measured(comparison, task) for task in _TITLES}
    costs = [cost for peers in shown.values() for peer in peers for cost in _span(peer)]
    if not costs:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><title>nothing measured</title></svg>\n'
    scale = _Scale(min(costs), max(costs))
    body: list[str] = []
    top = 58
    for task, peers in shown.items():
        if not peers:
            continue
        body.append(_text(12, top, _TITLES[task], weight="600"))
        top += 12
        for peer in peers:
            body += _bar(peer, top, scale)
            top += _ROW
        top += 30
    title = "CPU per request, µs (logarithmic; the line is the range of the rounds)"
    grid = [
        f'<line x1="{scale(tick):.1f}" x2="{scale(tick):.1f}" y1="40" y2="{top - 24}" stroke="#e3e7eb"/>'
        + _text(scale(tick), top - 10, f"{tick:,}".replace(",", " "), anchor="middle", colour="#67727e")
        for tick in scale.ticks()
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 24}" width="{_WIDTH}" '
        f'height="{top + 24}" font-family="system-ui, sans-serif" font-size="13" role="img"><title>{title}</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
    )
    below = _text(12, top + 12, comparison.machine, colour="#67727e", size=11)
    return "\n".join([head, _text(12, 24, title, weight="700"), *grid, *body, below, "</svg>"]) + "\n"


class _Scale:
    """Places a cost on the logarithmic axis, in pixels."""

    def __init__(self, least: float, most: float) -> None:
        self._low, self._high = math.floor(math.log10(least)), max(math.log10(most), math.log10(least) + 1)

    def __call__(self, cost: float) -> float:
        share = (math.log10(cost) - self._low) / (self._high - self._low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> list[int]:
        """Return the powers of ten on the axis."""
        return [10**power for power in range(max(0, self._low), math.floor(self._high) + 1)]


def _measured(comparison: Comparison, task: str) -> list[PeerRuns]:
    return [peer for peer in comparison.peers if peer.task == task and peer.median(whole_us) is not None]


def _span(peer: PeerRuns) -> tuple[float, float]:
    found = peer.range(whole_us)
    workers = peer.median(workers_us)
    assert found is not None
    return min(found[0], workers or found[0]), found[1]


def _bar(peer: PeerRuns, top: int, scale: _Scale) -> list[str]:
    cost, span, workers = peer.median(whole_us), peer.range(whole_us), peer.median(workers_us)
    assert cost is not None
    assert span is not None
    middle, ours = top + _ROW / 2, peer.name == "Pointsman"
    parts = [_rectangle(top, scale(cost), _OURS if ours else _OTHERS)]
    if workers is not None:
        parts.append(_rectangle(top, scale(workers), _WORKERS))
    parts.append(
        f'<line x1="{scale(span[0]):.1f}" x2="{scale(span[1]):.1f}" y1="{middle}" y2="{middle}" stroke="#20262c"/>'
    )
    figure = f"{cost:.0f}" if workers is None else f"{cost:.0f} (workers {workers:.0f})"
    weight = "600" if ours else "400"
    parts.append(_text(max(scale(cost), scale(span[1])) + 6, middle + 4, figure, weight=weight))
    parts.append(_text(_LEFT - 8, middle + 4, f"{peer.name} {peer.version.split(' ')[0]}", anchor="end", weight=weight))
    return parts


def _rectangle(top: float, right: float, colour: str) -> str:
    return f'<rect x="{_LEFT}" y="{top + 4}" width="{right - _LEFT:.1f}" height="{_ROW - 8}" fill="{colour}"/>'


def _text(
    x: float,
    y: float,
    words: str,
    *,
    anchor: str = "start",
    weight: str = "400",
    colour: str = "#20262c",
    size: int = 13,
) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}" font-size="{size}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
