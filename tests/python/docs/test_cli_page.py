"""docs/cli.md is what tools/cli_page.py writes, on every Python and in every terminal."""

from __future__ import annotations

import html
import importlib.util
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from executorch_mm import cli
from executorch_mm.cli.grammar import read_commands

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cli_page", ROOT / "tools" / "cli_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("columns", ["40", "200"])
def test_the_page_is_current(columns: str, tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(), "run tools/cli_page.py"


def test_the_page_says_what_help_says(tool: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    page = html.unescape(tool.page())
    for command in read_commands(cli.build_parser())[1:]:
        section = page.partition(f"\n## {command.name}\n")[2].partition("\n## ")[0]
        assert cli.main([command.name, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        for argument in command.arguments:
            if "--help" not in argument.flags:
                assert f"| {argument.help}" in section
                assert argument.help in shown
                assert all(f"`{flag}" in section and flag in shown for flag in argument.flags)


def documented_commands() -> list[str]:
    """Commands on lines of their own in the README and the pages, placeholders of usage lines aside."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    lines = [
        line.strip()
        for path in documents
        if path.name != "cli.md"
        for line in path.read_text("utf-8").splitlines()
    ]
    return sorted({line for line in lines if line.startswith("executorch-mm ") and "`" not in line})


@pytest.mark.parametrize("line", documented_commands())
def test_a_documented_command_is_one_that_the_parser_takes(line: str) -> None:
    words = shlex.split(line, comments=True)
    assert cli.build_parser().parse_args(words[1:]).command == words[1]


def test_documented_commands_are_found() -> None:
    assert len(documented_commands()) > 8
