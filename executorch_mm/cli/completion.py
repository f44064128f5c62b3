"""`executorch-mm completion`: what a shell needs to complete commands, options and values."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from executorch_mm.cli.errors import PROGRAM
from executorch_mm.cli.grammar import Argument, Command, Commands, add_command, read_commands

_FUNCTION = "_" + PROGRAM.replace("-", "_")


def add_parser(commands: Commands, build_parser: Callable[[], argparse.ArgumentParser]) -> None:
    """Adds the subcommand.

    Args:
        commands: Where to.
        build_parser: Makes the parser that the script is for.
    """
    parser = add_command(
        commands,
        "completion",
        "print a script that completes this program's arguments",
        "Print a script for a shell, which then completes commands, options, values and files.",
        f"bash and zsh (after compinit): source <({PROGRAM} completion bash). fish: {PROGRAM} completion "
        "fish | source. Put the line into the shell's startup file, or the script where the shell looks for "
        "completions.",
    )
    parser.add_argument("shell", choices=tuple(_SCRIPTS), help="the shell")
    parser.set_defaults(run=partial(_run, build_parser))


def _run(build_parser: Callable[[], argparse.ArgumentParser], arguments: argparse.Namespace) -> int:
    print(script(arguments.shell, read_commands(build_parser())), end="")
    return 0


def script(shell: str, commands: Sequence[Command]) -> str:
    """The script for a shell.

    Args:
        shell: "bash", "zsh" or "fish".
        commands: Of the program, itself first.
    """
    return _SCRIPTS[shell](commands)


def _names(commands: Sequence[Command]) -> list[str]:
    return [command.name for command in commands if command.name]


def _flags(command: Command) -> list[str]:
    return [flag for argument in command.arguments for flag in argument.flags]


def _positional(command: Command) -> Argument | None:
    return next((argument for argument in command.arguments if not argument.flags), None)


# bash


def _bash(commands: Sequence[Command]) -> str:
    """For bash 3.2 and newer. Where it finds nothing it leaves the field to readline, which knows files."""
    values, words = [], []
    for command in commands:
        for argument in command.arguments:
            if argument.flags and argument.value:
                patterns = "|".join(f"{command.name}:{flag}" for flag in argument.flags)
                values.append(f"    {patterns}) {_bash_reply(argument.choices)}return ;;")
        positional = _positional(command)
        choices = positional.choices if positional else () if command.name else _names(commands)
        words.append(
            f"    {command.name or '-'}) options='{' '.join(_flags(command))}' words='{' '.join(choices)}' ;;"
        )
    return f"""# bash completion for {PROGRAM}; made by `{PROGRAM} completion bash`
{_FUNCTION}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=- options= words= i
    COMPREPLY=()
    if [[ $current == = ]]; then
        current=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        {"|".join(_names(commands))}) command=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    case $command:$before in
{chr(10).join(values)}
    esac
    case $command in
{chr(10).join(words)}
    esac
    if [[ $current == -* ]]; then
        words=$options
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F {_FUNCTION} {PROGRAM}
"""


def _bash_reply(choices: Sequence[str]) -> str:
    return f"COMPREPLY=($(compgen -W '{' '.join(choices)}' -- \"$current\")); " if choices else ""


# zsh


def _zsh(commands: Sequence[Command]) -> str:
    program, *others = commands
    cases = []
    for command in others:
        specs = [spec for argument in command.arguments for spec in _zsh_specs(argument)]
        lines = " \\\n            ".join(specs)
        cases.append(f"        {command.name})\n            _arguments -s \\\n            {lines} ;;")
    names = " ".join(_zsh_quoted(f"{command.name}:{_zsh_text(command.help)}") for command in others)
    top = " ".join(spec for argument in program.arguments for spec in _zsh_specs(argument))
    return f"""#compdef {PROGRAM}
# zsh completion for {PROGRAM}; made by `{PROGRAM} completion zsh`
{_FUNCTION}() {{
    local context state state_descr line
    local -A opt_args
    local -a commands
    commands=({names})
    _arguments -C {top} '1:command:->command' '*::argument:->arguments'
    case $state in
    command)
        _describe command commands ;;
    arguments)
        case $words[1] in
{chr(10).join(cases)}
        esac ;;
    esac
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    {_FUNCTION} "$@"
else
    compdef {_FUNCTION} {PROGRAM}
fi
"""


def _zsh_specs(argument: Argument) -> list[str]:
    action = f"({' '.join(argument.choices)})" if argument.choices else "_files" if argument.is_file else ""
    if not argument.flags:
        place = "*" if argument.many in ("*", "+") else "1"
        return [_zsh_quoted(f"{place}:{_zsh_text(argument.value)}:{action}")]
    text = f"[{_zsh_text(argument.help)}]"
    value = f":{_zsh_text(argument.value)}:{action}" if argument.value else ""
    # "*": options may be repeated; "=": --name=value too
    return [
        _zsh_quoted(f"*{flag}{'=' if value and flag.startswith('--') else ''}{text}{value}")
        for flag in argument.flags
    ]


def _zsh_text(text: str) -> str:
    for character in "\\:[]":
        text = text.replace(character, f"\\{character}")
    return text


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# fish


def _fish(commands: Sequence[Command]) -> str:
    program, *others = commands
    names = " ".join(_names(commands))
    lines = [
        f"# fish completion for {PROGRAM}; made by `{PROGRAM} completion fish`",
        f"complete -c {PROGRAM} -f",
    ]
    bare = f"'not __fish_seen_subcommand_from {names}'"
    lines += [_fish_line(bare, _fish_option(argument)) for argument in program.arguments]
    lines += [_fish_line(bare, f"-a {command.name} -d {_fish_quoted(command.help)}") for command in others]
    for command in others:
        seen = f"'__fish_seen_subcommand_from {command.name}'"
        for argument in command.arguments:
            if argument.flags:
                lines.append(_fish_line(seen, _fish_option(argument)))
            elif argument.choices:
                lines.append(_fish_line(seen, f"-a '{' '.join(argument.choices)}'"))
            elif argument.is_file:
                lines.append(_fish_line(seen, "-F"))
    return "\n".join(lines) + "\n"


def _fish_line(condition: str, rest: str) -> str:
    return f"complete -c {PROGRAM} -n {condition} {rest}"


def _fish_option(argument: Argument) -> str:
    flags = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in argument.flags]
    value = ""
    if argument.choices:
        value = f" -x -a '{' '.join(argument.choices)}'"
    elif argument.value:
        value = " -r -F" if argument.is_file else " -x"
    return f"{' '.join(flags)}{value} -d {_fish_quoted(argument.help)}"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


_SCRIPTS: dict[str, Callable[[Sequence[Command]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
