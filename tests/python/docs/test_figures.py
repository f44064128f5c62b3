"""A measured figure in a document stands in a section that says with what, where and when it was measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Percentages, ratios of times, rates: what nobody writes but after measuring.
FIGURE = re.compile(
    r"\d ?%|\d (?:to \d[\d.,]* )?times (?:as (?:long|fast|much|many)|faster|slower|longer)"
    r"|\d tokens/s|\d decoder steps"
)
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b|\b\d{1,2} (?:January|November|December) 20\d\d\b")
# A program, or the machine where a sentence says what was done on it.
SOURCE = re.compile(r"\b(?:benchmarks|tools|tests)/[\w/]+|\bbench_\w+\.py|\bmachine\b|\bcores\b")


def sections(text: str) -> list[str]:
    """What stands below each heading of the second level, without programs."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.split(r"^## ", prose, flags=re.MULTILINE)


def bare_figures(text: str) -> list[str]:
    return [
        f"{section.splitlines()[0]}: {found[0]}"
        for section in sections(text)
        if (found := FIGURE.search(section)) and not (DATE.search(section) and SOURCE.search(section))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_measured_figure_says_with_what_and_when(page: Path) -> None:
    assert bare_figures(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("## Changed\n- Decode is 15 to 20 % faster.\n", ["Changed: 0 %"]),
        ("## Speed\nFive tokens take 3 times as long.\n\n## Note\n2026-11-23\n", ["Speed: 3 times as long"]),
        ("## Speed\n7 % more, `benchmarks/bench_speech.py`, two cores, 2026-11-23\n", []),
        ("## Options\nTakes 3 files, at most 40.\n", []),
    ],
)
def test_a_figure_without_its_note_is_found(text: str, found: list[str]) -> None:
    assert bare_figures(text) == found
