"""The comparison as a picture: four bars a program, each on a logarithmic scale, with the range of the rounds.

Belongs here: drawing. Never here: figures that the table does not have. Written by hand as SVG: one kind of picture
does not earn a plotting library, and text differs line by line when a figure changes.
"""

import math
from collections.abc import Callable, Sequence
from html import escape

from msgspec import Struct

from loadtests.bench.measuring import Figures
from loadtests.bench.results import Comparison, PeerRuns, whole_us, workers_us

_TASKS = {
    "forward": "forwarding 0.5 kB of JSON",
    "chat": "forwarding chat completions of 0.5 kB",
    "in process": "serving the digits model in process",
}
_LEFT, _PANEL, _ROOM, _GAP, _ROW, _TOP = 150, 150, 52, 14, 24, 74
_OURS, _OTHERS, _WORKERS, _INK, _PALE = "#1f6f5c", "#9aa5b1", "#63b39c", "#20262c", "#67727e"


class _Panel(Struct, frozen=True):
    """One column of bars: its title, the figure it shows, and how the figure is written."""

    title: str
    figure: Callable[[Figures], float]
    text: Callable[[float], str]
    beside: Callable[[Figures], float | None] | None = None


_PANELS = (
    _Panel("CPU, µs/request", whole_us, "{:.0f}".format, workers_us),
    _Panel("requests/s", lambda figures: figures.per_second, "{:.0f}".format),
    _Panel("p50, ms", lambda figures: figures.p50_ms, "{:.2f}".format),
    _Panel("p99, ms", lambda figures: figures.p99_ms, "{:.2f}".format),
)


def svg(comparison: Comparison) -> str:
    """Return the picture as a standalone SVG document."""
    groups = {task: [p for p in comparison.peers if p.task == task and p.median(whole_us)] for task in _TASKS}
    rows: list[tuple[float, PeerRuns]] = []
    names: list[str] = []
    top = float(_TOP)
    for task, peers in groups.items():
        if not peers:
            continue
        names.append(_text(12, top, _TASKS[task], weight="600"))
        for peer in peers:
            top += _ROW
            rows.append((top, peer))
            weight = "600" if peer.name.startswith("Pointsman") else "400"
            label = f"{peer.name} {peer.version.split(' ')[0]}"
            names.append(_text(_LEFT - 8, top, label, anchor="end", weight=weight))
        top += _ROW + 14
    if not rows:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><title>nothing measured</title></svg>\n'
    panels = [part for index, panel in enumerate(_PANELS) for part in _column(panel, index, rows)]
    title = "Side by side; logarithmic, the lines are the ranges of the rounds; light green: the data workers alone"
    width, height = _LEFT + len(_PANELS) * (_PANEL + _ROOM + _GAP), top + 24
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" width="{width}" '
        f'height="{height:.0f}" font-family="system-ui, sans-serif" font-size="12" role="img"><title>{title}</title>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
    )
    below = _text(12, top + 12, comparison.machine, colour=_PALE, size=11)
    return "\n".join([head, _text(12, 24, title, weight="700"), *names, *panels, below, "</svg>"]) + "\n"


class _Scale:
    """Places a figure on a logarithmic axis that begins at a power of ten, in pixels."""

    def __init__(self, least: float, most: float, left: float) -> None:
        self._low, self._left = math.floor(math.log10(least)), left
        self._high = max(math.log10(most), self._low + 1)

    def __call__(self, figure: float) -> float:
        return self._left + (math.log10(figure) - self._low) / (self._high - self._low) * _PANEL

    def ticks(self) -> list[float]:
        """Return the powers of ten on the axis."""
        return [10.0**power for power in range(self._low, math.floor(self._high) + 1)]


def _column(panel: _Panel, index: int, rows: Sequence[tuple[float, PeerRuns]]) -> list[str]:
    left = _LEFT + index * (_PANEL + _ROOM + _GAP)
    seen = [panel.figure(run) for _, peer in rows for run in peer.runs if run is not None]
    beside = [value for _, peer in rows if panel.beside and (value := peer.median(panel.beside))]
    scale = _Scale(max(1e-3, min([*seen, *beside])), max(1e-2, *seen), left)
    bottom = rows[-1][0] + 8
    parts = [_text(left, 50, panel.title, weight="600")]
    for tick in scale.ticks():
        x = scale(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="56" y2="{bottom:.1f}" stroke="#e3e7eb"/>')
        parts.append(_text(x, bottom + 14, f"{tick:g}", anchor="middle", colour=_PALE, size=10))
    for top, peer in rows:
        parts += _bar(panel, peer, top, scale, left)
    return parts


def _bar(panel: _Panel, peer: PeerRuns, top: float, scale: _Scale, left: float) -> list[str]:
    figure, span = peer.median(panel.figure), peer.range(panel.figure)
    assert figure is not None
    assert span is not None
    low, high = (scale(max(1e-3, value)) for value in span)
    parts = [_rectangle(left, top, scale(max(1e-3, figure)), _OURS if peer.name.startswith("Pointsman") else _OTHERS)]
    if panel.beside is not None and (beside := peer.median(panel.beside)):
        parts.append(_rectangle(left, top, scale(beside), _WORKERS))
    parts.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{top - 4:.1f}" y2="{top - 4:.1f}" stroke="{_INK}"/>')
    weight = "600" if peer.name.startswith("Pointsman") else "400"
    return [*parts, _text(max(scale(max(1e-3, figure)), high) + 5, top, panel.text(figure), weight=weight)]


def _rectangle(left: float, top: float, right: float, colour: str) -> str:
    return f'<rect x="{left}" y="{top - 12:.1f}" width="{right - left:.1f}" height="{_ROW - 8}" fill="{colour}"/>'


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", weight: str = "400", colour: str = _INK, size: int = 12
) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}" font-size="{size}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
