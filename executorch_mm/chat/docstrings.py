"""Google-style docstrings, read as transformers reads those of tools."""

from __future__ import annotations

import re
from typing import NamedTuple

_SECTION = re.compile("Args:|Returns:|Raises:")
_AFTER_ARGS = re.compile("Returns:|Raises:")
# "name:" or "name (type):" at the start of a line.
_ENTRY = re.compile(r"([ \t]*)(\w+)(?:[ \t]*\([^()]*\))?:")


class Docstring(NamedTuple):
    """What a docstring says.

    Attributes:
        description: All before its sections.
        arguments: Descriptions by name, each on one line.
        returns: The section Returns, None without one.
    """

    description: str
    arguments: dict[str, str]
    returns: str | None


def read_docstring(text: str) -> Docstring:
    """Reads a docstring without its indentation (`inspect.getdoc`)."""
    text = text.strip()
    arguments = _section(text, "Args:", _AFTER_ARGS)
    returns = _section(text, "Returns:", re.compile("Raises:"))
    return Docstring(
        _SECTION.split(text, maxsplit=1)[0].strip(),
        {} if arguments is None else _arguments(arguments),
        None if returns is None else returns.strip(),
    )


def _section(text: str, title: str, end: re.Pattern[str]) -> str | None:
    """What follows a line that is only `title`, up to `end`; no first line is a title."""
    lines = text.split("\n")
    for index, line in enumerate(lines[1:-1], start=1):
        if line.lstrip() == title:
            return end.split("\n".join(lines[index + 1 :]), maxsplit=1)[0]
    return None


def _arguments(section: str) -> dict[str, str]:
    lines = [line for line in section.split("\n") if line.strip()]
    described: dict[str, str] = {}
    index = 0
    while index < len(lines):
        entry = _ENTRY.match(lines[index])
        index += 1
        if entry is None:
            continue
        indent, name = entry.groups()
        words = [entry.string[entry.end() :].strip()]
        if not words[0] and index < len(lines):  # the description begins on the next line, whatever that is
            words = [lines[index].strip()]
            index += 1
        while index < len(lines) and not _begins_another(lines[index], indent):
            words.append(lines[index].strip())
            index += 1
        described[name] = " ".join(words)
    return described


def _begins_another(line: str, indent: str) -> bool:
    is_deeper = line.startswith((f"{indent} ", f"{indent}\t"))
    return not is_deeper and _ENTRY.match(line) is not None
