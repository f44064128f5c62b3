"""The commands of a chat: lines that begin with a slash."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm.cli.errors import UsageError
from executorch_mm.cli.output import shown_text

if TYPE_CHECKING:
    from executorch_mm.cli.chat.talk import Talk

COMMANDS = {
    "/image": ("FILE", "show an image with the next message"),
    "/audio": ("FILE", "let it hear an audio file with the next message"),
    "/system": ("[TEXT]", "set the system message; without TEXT show it"),
    "/undo": ("", "take back the last message and its answer"),
    "/new": ("", "begin a new conversation"),
    "/save": ("FILE", "write the conversation to FILE and what the model has read to FILE.emm"),
    "/load": ("FILE", "go on with a conversation that was saved"),
    "/stats": ("", "say what the last answer cost"),
    "/help": ("", "list the commands"),
    "/exit": ("", "end the program, as Ctrl-D does"),
}
WITH_FILES = ("/image", "/audio", "/save", "/load")


def obey(talk: Talk, line: str) -> bool:
    """Answers a message, or does what a command says.

    Args:
        talk: The conversation.
        line: What was typed.

    Returns:
        Whether the program goes on.

    Raises:
        UsageError: There is no such command, or it needs a file.
        ExecutorchMMError, OSError: It fails; the conversation is what it was.
    """
    if not line.startswith("/") or line.startswith("//"):
        talk.ask(line.removeprefix("/"))
        return True
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name not in COMMANDS:
        raise UsageError(f"chat: expected one of {', '.join(COMMANDS)}, got {name}")
    if name in WITH_FILES:
        _with_file(talk, name, _path(name, rest))
    elif name == "/system" and rest:
        talk.system = rest
    else:
        _say(_without_file(talk, name))
    return name != "/exit"


def _with_file(talk: Talk, name: str, path: str) -> None:
    if name == "/image":
        talk.attach("image", path)
    elif name == "/audio":
        talk.attach("audio", path)
    elif name == "/save":
        talk.save(path)
    else:
        talk.load(path)


def _without_file(talk: Talk, name: str) -> str:
    if name == "/system":
        return talk.system or "there is no system message"
    if name == "/undo":
        return "the last message is taken back" if talk.undo() else "there is nothing to take back"
    if name == "/new":
        talk.begin()
        return "a new conversation"
    if name == "/stats":
        return talk.cost()
    if name == "/help":
        return "\n".join(f"{f'{name} {what}':14} {text}" for name, (what, text) in COMMANDS.items())
    return ""


def _say(text: str) -> None:
    """What the program says itself goes where an answer does not."""
    if text:
        print(shown_text(text) if sys.stderr.isatty() else text, file=sys.stderr)


def _path(name: str, text: str) -> str:
    """The file that is meant: as it is, or quoted as terminals do when a file is dropped on them."""
    if not text:
        raise UsageError(f"chat: {name} needs a file")
    if not Path(text).exists():
        try:
            words = shlex.split(text)
        except ValueError:  # a quotation mark that stands alone
            words = []
        if len(words) == 1:
            text = words[0]
    return str(Path(text).expanduser())
