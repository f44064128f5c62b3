"""Draws what bench_vs_upstream.py --json wrote: python benchmarks/draw_chart.py RESULT.json CHART.svg"""

from __future__ import annotations

import json
import math
import sys
from html import escape
from pathlib import Path
from typing import Any

LABELS = {  # rows of the result -> how the chart calls them
    "cold start to first token, s": "cold start to first token",
    "peak memory, MiB": "peak memory",
    "prefill of 32, tokens/s": "prefill, 32 tokens",
    "prefill of 128, tokens/s": "prefill, 128 tokens",
    "prefill of 508, tokens/s": "prefill, 508 tokens",
    "decode after 28, tokens/s": "decode, 28 tokens of context",
    "decode after 508, tokens/s": "decode, 508 tokens of context",
    "decode after 990, tokens/s": "decode, 990 tokens of context",
}
WIDTH, LEFT, RIGHT, TOP, STEP, BAR = 760, 220, 150, 58, 30, 18
OURS, INK, GRID = "#2f6f9f", "#1f2328", "#d0d7de"


def unit(label: str, value: float) -> str:
    kind = label.rsplit(", ", 1)[1]
    return f"{value:.2f} s" if kind == "s" else f"{value:.0f} {kind}"


def draw(result: dict[str, Any]) -> str:
    rows = [row for row in result["rows"] if row["label"] in LABELS]
    most = max(2.0, *(row["better"] for row in rows))
    least = min(0.8, *(row["better"] for row in rows))

    def x(ratio: float) -> float:  # logarithmic: half as good is as far from 1 as twice as good
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(ratio / least) / math.log(most / least)

    height = TOP + STEP * len(rows) + 34
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13" fill="{INK}">'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        (
            '<text x="16" y="24" font-size="15" font-weight="bold">'
            "executorch_mm against executorch.extension.llm.runner</text>"
        ),
        (
            f'<text x="16" y="43" fill="#59636e">times better, SmolLM2-135M 8da4w; '
            f"{escape(result['machine'])}, "
            f"{escape(result['date'])}</text>"
        ),
    ]
    parts += [
        f'<line x1="{x(ratio):.1f}" y1="{TOP - 4}" x2="{x(ratio):.1f}" y2="{height - 30}" '
        f'stroke="{INK if ratio == 1 else GRID}"/>'
        f'<text x="{x(ratio):.1f}" y="{height - 12}" text-anchor="middle">{ratio:g}x</text>'
        for ratio in (0.5, 1, 2, 4, 8, 16, 32)
        if least <= ratio <= most * 1.01
    ]
    for index, row in enumerate(rows):
        y = TOP + index * STEP
        left, right = sorted((x(1), x(row["better"])))
        end = max(right, x(1)) + 6
        values = f"{unit(row['label'], row['ours'])}, upstream {unit(row['label'], row['upstream'])}"
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{LABELS[row["label"]]}</text>'
            f'<rect x="{left:.1f}" y="{y}" width="{right - left:.1f}" height="{BAR}" fill="{OURS}">'
            f"<title>{escape(values)}</title></rect>"
            f'<text x="{end:.1f}" y="{y + 14}" font-weight="bold">{row["better"]:.3g}x</text>'
            f'<text x="{end + 46:.1f}" y="{y + 14}" fill="#59636e" font-size="11">'
            f"{escape(unit(row['label'], row['ours']))}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    result, chart = map(Path, sys.argv[1:])
    chart.write_text(draw(json.loads(result.read_text())))


if __name__ == "__main__":
    main()
