"""Writes docs/cli.md from the parsers of the subcommands, which `--help` shows too.

    python tools/cli_page.py

It reads the parsers and not what argparse prints, which differs between versions of Python and widths of
terminals. tests/python/docs/test_cli_page.py holds the page to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from executorch_mm import cli
from executorch_mm.cli.errors import PROGRAM
from executorch_mm.cli.grammar import Argument, Command, read_commands

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
INTRODUCTION = f"""# Command line

<!-- Written by tools/cli_page.py from the parsers in executorch_mm/cli. -->

`{PROGRAM} COMMAND --help` says what stands here. All commands follow the same rules:

- MODEL is a .pte file, a folder with one, a bundle that `pack` has written, or a repository of the Hugging
  Face Hub as owner/name (extra `hub`). Tokenizer, processor, chat template and .ptd files are found beside
  it.
- `-` stands for standard input where something is read, and for standard output after `--output`.
- What was asked for goes to stdout, or to the file after `--output`; progress, `--stats` and errors go to
  stderr. An error is one line.
- `--json` gives everything that is known as JSON.
- Options are written out: `--max-new` is not taken for `--max-new-tokens`.
"""
COMPLETION = f"""## Completion

    source <({PROGRAM} completion bash)      # in ~/.bashrc
    source <({PROGRAM} completion zsh)       # in ~/.zshrc, after compinit
    {PROGRAM} completion fish | source       # in ~/.config/fish/config.fish

The scripts are static. Written to a file once, where the shell looks for completions, they cost no start of
Python.
"""


def page() -> str:
    """The page."""
    _, *commands = read_commands(cli.build_parser())
    return "\n".join([INTRODUCTION, _exit_codes(), COMPLETION, *map(_section, commands)])


def _exit_codes() -> str:
    rows = "".join(f"| {code} | {meaning} |\n" for code, meaning in cli.EXIT_CODES.items())
    return f"""## Exit codes

| code | meaning |
|---|---|
{rows}
The last line on stderr says why it was 1 or 2. 141 is quiet. A signal that ends the process gives 128 and
its number, as in every shell.
"""


def _section(command: Command) -> str:
    return "\n".join([f"## {command.name}", "", f"    {_usage(command)}", "", *_body(command)])


def _body(command: Command) -> Iterator[str]:
    yield f"{command.description}\n"
    rows = [argument for argument in command.arguments if "--help" not in argument.flags]
    rows.sort(key=lambda argument: bool(argument.flags))  # what it works on comes first
    if rows:
        yield "| argument | |\n|---|---|"
        yield from map(_row, rows)
        yield ""
    if command.epilog:
        yield f"{_escaped(command.epilog)}\n"


def _usage(command: Command) -> str:
    arguments = [argument for argument in command.arguments if "--help" not in argument.flags]
    parts = [PROGRAM, command.name]
    parts += [f"{a.flags[-1]} {a.value}" for a in arguments if a.flags and a.is_required]
    if any(argument.flags and not argument.is_required for argument in arguments):
        parts.append("[OPTIONS]")
    for argument in arguments:
        if not argument.flags:
            value = "|".join(argument.choices) or argument.value
            parts.append(value if argument.is_required else f"[{value}]")
            if argument.many in ("*", "+"):
                parts.append("...")
    return " ".join(parts)


def _row(argument: Argument) -> str:
    value = f"{{{','.join(argument.choices)}}}" if argument.choices else argument.value
    names = [f"{flag} {value}".strip() for flag in argument.flags] or [value]
    text = argument.help + (f"; not together with `{argument.exclusive}`" if argument.exclusive else "")
    return f"| {', '.join(f'`{name}`' for name in names)} | {_escaped(text)} |"


def _escaped(text: str) -> str:
    """For Markdown outside of code: tags and signs of tables are text."""
    return text.replace("<", "&lt;").replace(">", "&gt;").replace("|", "&#124;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
