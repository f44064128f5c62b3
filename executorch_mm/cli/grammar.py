"""What the parsers of the subcommands hold, for completion scripts and for the page of the documentation."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_FILES = {"FILE", "MODEL", "PATH"}  # the names of values that are files or folders


@dataclass(frozen=True)
class Argument:
    """An option or a positional argument.

    Attributes:
        flags: Of an option, such as ("-m", "--model"); () for a positional argument.
        value: The name of its value; "" where it takes none.
        choices: The values that it takes, where they are listed.
        help: What it is for.
        many: How often a positional argument comes, as in argparse: "", "?", "*" or "+".
        is_required: Whether it has to be there.
        exclusive: The option that it cannot be used with, or "".
    """

    flags: tuple[str, ...]
    value: str
    choices: tuple[str, ...]
    help: str
    many: str
    is_required: bool
    exclusive: str

    @property
    def is_file(self) -> bool:
        """Whether its value is the name of a file or a folder."""
        return not self.choices and self.value in _FILES


@dataclass(frozen=True)
class Command:
    """A subcommand, or the program itself with the name "".

    Attributes:
        name: As it is written.
        help: In one line.
        description: What it does.
        epilog: What else there is to know.
        groups: Titles, with the arguments in them.
    """

    name: str
    help: str
    description: str
    epilog: str
    groups: tuple[tuple[str, tuple[Argument, ...]], ...]

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """Those of all groups."""
        return tuple(argument for _, arguments in self.groups for argument in arguments)


def add_command(
    commands: Commands, name: str, summary: str, description: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Adds a subcommand, whose options are to be written out: a new one changes no other's meaning."""
    return commands.add_parser(name, help=summary, description=description, epilog=epilog, allow_abbrev=False)


def read_commands(parser: argparse.ArgumentParser) -> list[Command]:
    """The program itself and its subcommands, in order."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in commands._choices_actions}
    return [
        _command("", "", parser),
        *(_command(name, summaries[name], sub) for name, sub in commands.choices.items()),
    ]


def _command(name: str, summary: str, parser: argparse.ArgumentParser) -> Command:
    exclusive: dict[str, str] = {}
    for together in parser._mutually_exclusive_groups:
        flags = [action.option_strings[-1] for action in together._group_actions]
        exclusive.update({flag: other for flag in flags for other in flags if other != flag})
    groups = []
    for group in parser._action_groups:
        found = tuple(_arguments(group, exclusive))
        if found:
            groups.append((group.title or "", found))
    return Command(name, summary, parser.description or "", parser.epilog or "", tuple(groups))


def _arguments(group: argparse._ArgumentGroup, exclusive: dict[str, str]) -> Iterator[Argument]:
    for action in group._group_actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        flags = tuple(action.option_strings)
        choices = tuple(map(str, action.choices or ()))
        value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
        many = action.nargs if isinstance(action.nargs, str) else ""
        yield Argument(
            flags,
            value,
            choices,
            (action.help or "").replace("%%", "%"),
            many,
            action.required,
            exclusive.get(flags[-1], "") if flags else "",
        )
