"""Standard input, `--output`, `--json`, and streams that are full, closed or left by their reader."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast

_PART_BYTES = 1 << 20

# What a terminal would obey, and what changes the order of what is read: control characters except for line
# ends and tabs, and those of directions. Shown as Python writes them.
_OBEYED = [*range(32), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_SHOWN = {code: ascii(chr(code))[1:-1] for code in _OBEYED if chr(code) not in "\n\t"}


def add_output(parser: argparse._ActionsContainer, what: str = "write to this file") -> None:
    """Adds `--output`.

    Args:
        parser: The subcommand's.
        what: Its help.
    """
    parser.add_argument("-o", "--output", metavar="PATH", default="-", help=f"{what}; - is stdout (default)")


def add_json(parser: argparse._ActionsContainer, what: str) -> None:
    """Adds `--json`.

    Args:
        parser: The subcommand's.
        what: Its help.
    """
    parser.add_argument("--json", action="store_true", help=what)


def stdin_parts() -> Iterator[bytes]:
    """What comes on standard input, part by part, so that it is left where the limits for files end."""
    return iter(lambda: sys.stdin.buffer.read(_PART_BYTES), b"")


def shown_text(text: str) -> str:
    """A text for a terminal, which obeys nothing that is in it."""
    return text.translate(_SHOWN)


class _Terminal(io.TextIOBase):
    """Stdout where it is a terminal, which obeys nothing that is written here."""

    def write(self, text: str, /) -> int:
        return sys.stdout.write(shown_text(text))

    def flush(self) -> None:
        sys.stdout.flush()


@contextmanager
def opened(path: str) -> Iterator[TextIO]:
    """The file to write to; "-" is stdout. A terminal is shown control characters and does not obey them.

    Raises:
        OSError: It cannot be written.
    """
    if path == "-":
        yield cast("TextIO", _Terminal()) if sys.stdout.isatty() else sys.stdout
        return
    with Path(path).open("w", encoding="utf-8") as file:
        yield file


def use_streams() -> None:
    """Makes stdout and stderr fit to print on.

    What a terminal cannot show becomes a question mark, not an exception. A stream that was closed before the
    program began is a hole, so that no file of the program gets its number.
    """
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            hole = os.open(os.devnull, os.O_WRONLY)
            if hole != number:
                os.dup2(hole, number)
                os.close(hole)
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115


def forget(stream: TextIO) -> None:
    """Writes nothing more to a stream that takes nothing more, at exit neither."""
    with suppress(OSError, ValueError):  # ValueError: it has no number, as in a notebook
        hole = os.open(os.devnull, os.O_WRONLY)
        os.dup2(hole, stream.fileno())
        os.close(hole)
