"""How far a prompt or an audio clip has been read, on a terminal."""

from __future__ import annotations

import time
from typing import TextIO

_PHASES = {
    "encode_image": "looking at an image",
    "encode_audio": "listening",
    "prefill": "reading the prompt",
    "transcribe": "transcribing",
}
_PATIENCE_SECONDS = 0.3
_BAR = 20  # characters
_WIDTH = 50


class PromptProgress:
    """A bar that is written over and disappears with the first piece of the answer; nothing where piped.

    Args:
        stream: Where the line goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._is_shown = False
        self._start = time.monotonic()

    def __call__(self, done: int, total: int, phase: str) -> None:
        """For `progress` of the runner's calls. Short prompts show nothing."""
        if done == total:
            self.clear()
        elif self._is_terminal and time.monotonic() - self._start > _PATIENCE_SECONDS:
            self._is_shown = True
            percent = 100 * done // max(total, 1)
            bar = "#" * (_BAR * percent // 100)
            self._write(f"[{bar:-<{_BAR}}] {_PHASES[phase]} {percent} %")

    def clear(self) -> None:
        """Removes the line."""
        if self._is_shown:
            self._write("")
            self._is_shown = False

    def _write(self, text: str) -> None:
        self._stream.write(f"\r{text:{_WIDTH}}\r{text}")
        self._stream.flush()
