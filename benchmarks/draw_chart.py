"""Draws what bench_vs_upstream.py or bench_speech.py --json wrote.

python benchmarks/draw_chart.py RESULT.json CHART.svg
"""

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
OURS, SECOND, INK, FAINT, GRID = "#2f6f9f", "#9fc3dc", "#1f2328", "#59636e", "#d0d7de"


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


def draw_speech(result: dict[str, Any]) -> str:
    """Real-time factors, less is faster: all clips, and below them the short ones alone."""
    left, wide = 335, WIDTH - 335 - 70
    groups = {"all": f"all {len(result['clips'])} clips", "short": "clips of 3 to 7.1 s"}
    rows = result["rows"]
    most = max(row[f"{group}, real-time factor"][2] for row in rows.values() for group in groups)
    height = TOP + 48 * len(rows) + 44
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13" fill="{INK}">'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        '<text x="16" y="24" font-size="15" font-weight="bold">Whisper base on a CPU</text>',
        (
            f'<text x="16" y="43" font-size="11" fill="{FAINT}">seconds of work for a second of audio, '
            f"less is faster; {escape(result['machine'])}, {escape(result['date'])}</text>"
        ),
    ]
    for index, (name, row) in enumerate(rows.items()):
        y = TOP + 48 * index
        label = name.replace("ours, ", "executorch_mm, ").replace(", precision default", "")
        parts.append(f'<text x="{left - 10}" y="{y + 22}" text-anchor="end">{escape(label)}</text>')
        for line, (group, colour) in enumerate(zip(groups, (OURS, SECOND), strict=True)):
            middle, low, high = row[f"{group}, real-time factor"]
            top, end = y + 17 * line, left + wide * middle / most
            parts.append(
                f'<rect x="{left}" y="{top}" width="{end - left:.1f}" height="15" fill="{colour}">'
                f"<title>{low:.4f} to {high:.4f}</title></rect>"
                f'<text x="{end + 6:.1f}" y="{top + 12}" font-size="11">{middle:.3f}</text>'
            )
    for index, (label, colour) in enumerate(zip(groups.values(), (OURS, SECOND), strict=True)):
        x = left + 140 * index
        parts.append(
            f'<rect x="{x}" y="{height - 28}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{x + 18}" y="{height - 17}">{label}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    source, chart = map(Path, sys.argv[1:])
    result = json.loads(source.read_text())
    is_speech = isinstance(result["rows"], dict)
    chart.write_text(draw_speech(result) if is_speech else draw(result))


if __name__ == "__main__":
    main()
