"""Completion of arguments, by the shells themselves."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from executorch_mm import cli
from executorch_mm.cli.completion import script
from executorch_mm.cli.grammar import read_commands

COMMANDS = read_commands(cli.build_parser())
NAMES = [
    "demo",
    "generate",
    "chat",
    "transcribe",
    "batch",
    "serve",
    "inspect",
    "pack",
    "pull",
    "list",
    "bench",
    "doctor",
    "completion",
    "version",
]
ASK_BASH = """
source {script}
COMP_WORDS=({words}) COMP_CWORD={last}
_executorch_mm
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    """The scripts that the program prints, by shell."""
    paths = {}
    for shell in ("bash", "zsh", "fish"):
        assert cli.main(["completion", shell]) == 0
        paths[shell] = tmp_path / f"completion.{shell}"
        paths[shell].write_text(capsys.readouterr().out, encoding="utf-8")
    return paths


def needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"this machine has no {shell}")
    return found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["''"], NAMES),
        (["ge"], ["generate"]),
        (["--v"], ["--version"]),
        (["transcribe", "--form"], ["--format"]),
        (["transcribe", "--format", "s"], ["srt"]),
        (["transcribe", "--format", "=", "s"], ["srt"]),  # as bash splits --format=s
        (["transcribe", "a.wav", "--task", "=", "''"], ["transcribe", "translate"]),
        (["generate", "--l"], ["--local-files-only"]),
        (["completion", "''"], ["bash", "zsh", "fish"]),
        (["generate", "--model", "''"], [""]),  # readline knows files
        (["inspect", "mo"], [""]),
    ],
)
def test_bash_completes_commands_options_and_values(
    words: list[str], expected: list[str], written: dict[str, Path]
) -> None:
    program = ASK_BASH.format(
        script=written["bash"], words=" ".join(["executorch-mm", *words]), last=len(words)
    )
    result = subprocess.run(
        [needs("bash"), "--norc", "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert result.stderr == ""
    assert result.stdout.split("\n")[:-1] == expected


def test_bash_completes_files_where_it_is_typed(written: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tiny model.pte").touch()
    line = f"cd {tmp_path}; source {written['bash']}\nexecutorch-mm generate --model tin\t"
    expected = "--model tiny\\ model.pte"
    assert expected in typed([needs("bash"), "--norc", "--noprofile", "-i"], line, expected)


def test_zsh_completes_commands_options_values_and_files(written: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tiny.pte").touch()
    start = f"autoload -U compinit; compinit -u -D; cd {tmp_path}; source {written['zsh']}\n"
    for line, expected in (
        ("gen\t", "generate "),
        ("transcribe --format s\t", "srt "),
        ("transcribe --model ti\t", "--model tiny.pte"),
        ("inspect ti\t", "inspect tiny.pte"),
    ):
        assert expected in typed([needs("zsh"), "-f", "-i"], f"{start}executorch-mm {line}", expected), line


def test_fish_completes_commands_options_values_and_files(written: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tiny.pte").touch()
    for words, expected in (
        ("gen", ["generate"]),
        ("transcribe --format s", ["srt"]),
        ("generate --local", ["--local-files-only"]),
        ("generate --model ti", ["tiny.pte"]),
        ("inspect ti", ["tiny.pte"]),
    ):
        program = f"source {written['fish']}; complete -C 'executorch-mm {words}'"
        result = subprocess.run(
            [needs("fish"), "--no-config", "-c", program],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            cwd=tmp_path,
        )
        assert [line.split("\t")[0] for line in result.stdout.splitlines()] == expected, words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_knows_every_option_of_every_command(shell: str) -> None:
    text = script(shell, COMMANDS)
    assert [command.name for command in COMMANDS] == ["", *NAMES]
    for command in COMMANDS:
        for argument in command.arguments:
            for flag in argument.flags:
                wanted = flag
                if shell == "fish":
                    wanted = f"-l {flag[2:]} " if flag.startswith("--") else f"-s {flag[1:]}"
                assert wanted in text, flag


def typed(command: list[str], text: str, expected: str) -> str:
    """What a shell in a terminal shows after `text` was typed, until `expected` is there."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "dumb", "PS1": "> ", "HISTFILE": "/dev/null"}
    shell = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=environment, start_new_session=True
    )
    os.close(follower)
    try:
        *lines, last = text.split("\n")
        for line in lines:
            os.write(leader, f"{line}; echo re''ady\n".encode())
            _read(leader, "ready\r")
        os.write(leader, last.encode())
        return _read(leader, expected)
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)


def _read(terminal: int, end: str) -> str:
    """Until `end` comes; at most 30 seconds."""
    shown = b""
    deadline = time.monotonic() + 30
    while end.encode() not in shown and select.select([terminal], [], [], deadline - time.monotonic())[0]:
        shown += os.read(terminal, 65536)
    return shown.decode(errors="replace")
