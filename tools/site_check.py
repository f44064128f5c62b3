"""The built site shows what it should: examples are code blocks, signatures have lines of their own.

python tools/site_check.py build/site      (`nox -s docs` builds and checks)
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

LONGEST_SIGNATURE_LINE = 84  # what fits at 1280 pixels


class Page(HTMLParser):
    """Collects the text of a page by whether it stands in a code block."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.blocks: list[str] = []
        self.prose: list[str] = []
        self._depth = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag == "pre":
            self._depth += 1
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "pre"

    def handle_data(self, data: str) -> None:
        if self._depth:
            self.blocks[-1] += data
        else:
            self.prose.append(data)


def faults(site: Path) -> list[str]:
    """One line for each."""
    found: list[str] = []
    num_examples = 0
    for path in sorted(site.rglob("*.html")):
        page, name = Page(path.read_text(encoding="utf-8")), path.relative_to(site).as_posix()
        num_examples += sum(">>> " in block for block in page.blocks)
        found += [
            f"{name}: an example as prose: {text.strip()[:60]}" for text in page.prose if ">>> " in text
        ]
        if name.startswith("api/"):
            lines = [line for block in page.blocks if ">>> " not in block for line in block.splitlines()]
            found += [f"{name}: a long line: {x[:60]}" for x in lines if len(x) > LONGEST_SIGNATURE_LINE]
    return found if num_examples else [*found, f"{site}: no example at all"]


if __name__ == "__main__":
    problems = faults(Path(sys.argv[1]))
    print("\n".join(problems) or "every example is a code block")
    sys.exit(bool(problems))
