"""The picture of a run: an SVG with bars for throughput and lines for latency, made by hand.

Readable on a light and on a dark page: the colours follow `prefers-color-scheme`, the background is the page's, which
is why matplotlib does not draw it: its SVG has the colours of one page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from meter.bench.samples import PERCENTILES, CaseResult

WIDTH = 860
LABEL_WIDTH = 300
PLOT = WIDTH - LABEL_WIDTH - 110
ROW = 30
BAR = 16
TOP = 48
LATENCY_HEIGHT = 220
LATENCY_LEFT = 60
LEGEND_WIDTH = 280
BASELINE = "echo"

_STYLE = """
text{font:13px system-ui,sans-serif;fill:#1f2328}.small{font-size:11px;fill:#59636e}.title{font-weight:600}
.bar{fill:#2563eb}.echo{fill:#8b949e}.whisker{stroke:#1f2328;stroke-width:1.5}.grid{stroke:#d1d9e0}
.c0{--c:#2563eb}.c1{--c:#d97706}.c2{--c:#059669}.c3{--c:#db2777}.c4{--c:#7c3aed}.c5{--c:#0891b2}.c6{--c:#65a30d}
.c7{--c:#dc2626}.c8{--c:#8b949e}.line{fill:none;stroke:var(--c);stroke-width:2}.dot{fill:var(--c)}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.bar{fill:#4c8dff}.whisker{stroke:#e6edf3}
.grid{stroke:#3d444d}.c0{--c:#4c8dff}.c1{--c:#f59e0b}.c2{--c:#34d399}.c3{--c:#f472b6}.c4{--c:#a78bfa}.c5{--c:#22d3ee}
.c6{--c:#a3e635}.c7{--c:#f87171}}
"""
_COLOURS = 9


def picture(results: Mapping[str, CaseResult], caption: str) -> str:
    """The SVG text."""
    shown = [result for result in results.values() if result.samples]
    bars_height = TOP + ROW * len(shown) + 20
    height = bars_height + TOP + LATENCY_HEIGHT + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="Throughput and latency">',
        f"<style>{_STYLE}</style>",
        *_bars(shown),
        *_latency(shown, bars_height),
        _text(16, height - 14, caption, "small"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bars(results: Sequence[CaseResult]) -> list[str]:
    parts = [_text(16, 26, "Operations a second, median of the rounds, least to most", "title")]
    most = max((result.rate.most * result.operations for result in results), default=1.0) or 1.0
    for row, result in enumerate(results):
        y = TOP + ROW * row
        rate, scale = result.rate, result.operations * PLOT / most
        kind = "bar echo" if result.name == BASELINE else "bar"
        x, middle = LABEL_WIDTH, y + BAR / 2
        parts += [
            _text(LABEL_WIDTH - 10, y + 13, result.title, anchor="end"),
            f'<rect class="{kind}" x="{x}" y="{y}" width="{rate.median * scale:.1f}" height="{BAR}" rx="2"/>',
            f'<path class="whisker" d="M{x + rate.least * scale:.1f} {middle}H{x + rate.most * scale:.1f}"/>',
            _text(x + rate.most * scale + 8, y + 13, f"{rate.median * result.operations:,.0f}"),
        ]
    return parts


def _latency(results: Sequence[CaseResult], top: float) -> list[str]:
    """Lines from percentile to percentile, on a logarithmic scale of milliseconds."""
    values = [value for result in results for value in result.latency_ms if value > 0]
    low = math.floor(math.log10(min(values, default=0.1)))
    high = max(low + 1, math.ceil(math.log10(max(values, default=10.0))))
    bottom, left = top + TOP + LATENCY_HEIGHT, LATENCY_LEFT
    width = WIDTH - left - LEGEND_WIDTH - 40

    def y_of(value: float) -> float:
        return bottom - LATENCY_HEIGHT * (math.log10(max(value, 10.0**low)) - low) / (high - low)

    parts = [_text(16, top + 26, "Latency of a request in milliseconds at full load", "title")]
    for exponent in range(low, high + 1):
        y = y_of(10.0**exponent)
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{left + width}"/>')
        parts.append(_text(left - 8, y + 4, f"{10.0**exponent:g}", "small", anchor="end"))
    step = width / (len(PERCENTILES) - 1)
    for number, percent in enumerate(PERCENTILES):
        parts.append(_text(left + step * number, bottom + 18, f"p{percent:g}", "small", anchor="middle"))
    for number, result in enumerate(results):
        points = [(left + step * n, y_of(value)) for n, value in enumerate(result.latency_ms)]
        colour = f"c{number % _COLOURS}"
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<g class="{colour}"><path class="line" d="M{path}"/>')
        parts += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points]
        legend = top + TOP + 8 + number * 20
        x = left + width + 30
        parts += [f'<circle class="dot" cx="{x}" cy="{legend - 4}" r="5"/></g>', _text(x + 12, legend, result.title)]
    return parts


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
