"""A plot of what was measured, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executorch_mm.cli.bench.report import Report, Row

_WIDTH, _LEFT, _RIGHT = 720, 210, 150
_BAR, _GAP, _TOP = 16, 14, 40
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328; }
.note { font-size: 11px; fill: #59636e; }
.page { fill: #ffffff; }
.bar0 { fill: #2f6f9f; } .bar1 { fill: #d9822b; } .bar2 { fill: #5c8f4a; } .bar3 { fill: #8a5ca8; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note { fill: #9198a1; }
  .page { fill: #0d1117; }
  .bar0 { fill: #6cb2e4; } .bar1 { fill: #f0a860; } .bar2 { fill: #93c97f; } .bar3 { fill: #c39be0; }
}
"""
_COLOURS = 4


def draw(report: Report) -> str:
    """An SVG file: bars for each measure, as long as its part of the longest one."""
    num = len(report.names)
    block = num * (_BAR + 2) + _GAP
    legend = _TOP + num * 18
    height = legend + len(report.rows) * block + 28
    title = report.heading()
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{height}"/>',
    ]
    for i, name in enumerate(report.names):
        y = 16 + i * 18
        parts.append(f'<rect class="bar{i % _COLOURS}" x="16" y="{y}" width="12" height="12" rx="2"/>')
        parts.append(f'<text x="34" y="{y + 11}">{escape(name)}</text>')
    for number, row in enumerate(report.rows):
        parts += _bars(row, legend + number * block - _GAP)
    parts.append(f'<text class="note" x="16" y="{height - 10}">{escape(report.note())}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _bars(row: Row, top: int) -> Iterator[str]:
    most = max(row.medians) or 1.0
    middle = top + len(row.medians) * (_BAR + 2) / 2 + 4
    better = "" if row.measure.is_more_better else " (less is better)"
    yield f'<text x="16" y="{middle:.0f}">{escape(row.title)}</text>'
    for i, value in enumerate(row.medians):
        y = top + i * (_BAR + 2)
        width = (_WIDTH - _LEFT - _RIGHT) * value / most
        text = row.measure.shown(value) + (f"  ({row.ratios[i]:.2f})" if i else "")
        yield (
            f'<rect class="bar{i % _COLOURS}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2">'
            f"<title>{escape(row.title + better)}</title></rect>"
        )
        yield f'<text x="{_LEFT + width + 6:.1f}" y="{y + 13}">{escape(text)}</text>'
