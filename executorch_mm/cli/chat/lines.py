"""What is typed, or comes from a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

from executorch_mm.cli.chat.commands import COMMANDS, WITH_FILES

if TYPE_CHECKING:
    from typing_extensions import Self

_MARK, _MORE = "> ", "... "
_MOST_LINES = 1000  # of the history


class Lines:
    """An iterator over messages and commands; lines that end in a backslash are joined with the next one.

    On a terminal readline, where Python has it, knows the arrow keys, completes commands and files, and keeps
    a history. Ctrl-C forgets the line that is being typed.

    Args:
        keeps_history: In a file too.
    """

    def __init__(self, *, keeps_history: bool) -> None:
        self.is_terminal: bool = sys.stdin.isatty()
        self._readline = _find_readline() if self.is_terminal and sys.stdout.isatty() else None
        self._history = _history_file() if keeps_history and self._readline is not None else None

    def __enter__(self) -> Self:
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")  # what is no text is a question mark, not an exception
        if self._readline is not None:
            self._readline.set_completer_delims(" ")
            self._readline.set_completer(_complete)
            libedit = "libedit" in (self._readline.__doc__ or "")
            self._readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
            if self._history is not None:
                with suppress(OSError):  # there is none yet, or it is of another library
                    self._readline.read_history_file(self._history)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._readline is None:
            return
        self._readline.set_completer(None)
        if self._history is not None:
            with suppress(OSError):  # no history is no reason to fail
                _make_private(self._history)
                self._readline.set_history_length(_MOST_LINES)
                self._readline.write_history_file(self._history)

    def __iter__(self) -> Iterator[str]:
        while (line := self._whole_line()) is not None:
            if line.strip():
                yield line

    def _whole_line(self) -> str | None:
        """One line with those that it goes on in; None at the end."""
        while True:
            try:
                line = self._read(_MARK)
                while line is not None and line.endswith("\\"):
                    more = self._read(_MORE)
                    line = line[:-1] + ("" if more is None else f"\n{more}")
            except KeyboardInterrupt:  # noqa: PERF203 each line may be given up
                if not self.is_terminal:
                    raise
                sys.stderr.write("\n")
            else:
                return line

    def _read(self, mark: str) -> str | None:
        if self._readline is not None:
            try:
                return input(mark)
            except EOFError:
                sys.stdout.write("\n")
                return None
        if self.is_terminal:
            sys.stderr.write(mark)
            sys.stderr.flush()
        line = sys.stdin.readline()
        return line.rstrip("\r\n") if line else None


def _find_readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:
        return None
    return readline


def _history_file() -> str | None:
    """Where the XDG base directories have what programs remember of their use."""
    folder = os.environ.get("XDG_STATE_HOME") or ""
    try:
        base = Path(folder) if Path(folder).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:  # nobody's home
        return None
    return str(base / "executorch-mm" / "chat_history")


def _make_private(path: str) -> None:
    """Makes a file that its owner alone can read, if it is not there."""
    Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))


def _complete(text: str, state: int) -> str | None:
    """For readline: the completion of that number."""
    line = _find_readline()
    before = line.get_line_buffer()[: line.get_begidx()].split() if line is not None else []
    if not before:
        found = [f"{name} " for name in COMMANDS if name.startswith(text)] if text.startswith("/") else []
    else:
        found = _files(text) if before[0] in WITH_FILES else []
    return found[state] if state < len(found) else None


def _files(text: str) -> list[str]:
    folder, begin = os.path.split(text)
    with suppress(OSError):
        inside = sorted(Path(folder or ".").expanduser().iterdir())
        paths = [path for path in inside if path.name.startswith(begin)]
        return [str(Path(folder) / path.name) + ("/" if path.is_dir() else "") for path in paths]
    return []
