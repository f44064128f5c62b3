"""How far a prompt or an audio clip has been read, in notebooks and terminals."""

from __future__ import annotations

import sys
from typing import Any

_PHASES = {
    "encode_image": "looking at an image",
    "encode_audio": "listening",
    "prefill": "reading the prompt",
    "transcribe": "transcribing",
}
_BAR = 20  # characters
_WIDTH = 50


class ProgressBar:
    """A bar for `progress` of the runners' calls: in notebooks, on terminals, and nowhere else.

    Example:
        >>> from executorch_mm import MultimodalRunner, ProgressBar
        >>> MultimodalRunner.demo().prefill("how many", progress=ProgressBar())
        2
    """

    def __init__(self) -> None:
        self._handle: Any = None  # IPython's, of what is shown and changed
        self._is_shown = False

    def __call__(self, done: float, total: float, phase: str = "transcribe") -> None:
        """Shows it; the runner calls this.

        Args:
            done: What has been read.
            total: What there is; `done` is as much at the end.
            phase: What comes next, of prompts.
        """
        share = min(max(done / total, 0.0), 1.0) if total > 0 else 1.0
        text = f"{_PHASES.get(phase, phase)} {share:.0%}"
        if _is_notebook():
            self._show(f"<progress value='{share:.3f}'></progress> {text}", is_last=done >= total)
        elif sys.stderr.isatty():
            self._write("" if done >= total else f"[{'#' * int(_BAR * share):-<{_BAR}}] {text}")

    def _show(self, html: str, *, is_last: bool) -> None:
        display = sys.modules["IPython"].display
        if self._handle is None:
            self._handle = display.display(display.HTML(html), display_id=True)
        else:
            self._handle.update(display.HTML(html))
        if is_last:
            self._handle = None  # the next request has a bar of its own

    def _write(self, text: str) -> None:
        if text or self._is_shown:
            sys.stderr.write(f"\r{text:{_WIDTH}}\r{text}")
            sys.stderr.flush()
        self._is_shown = bool(text)


def _is_notebook() -> bool:
    """Whether cells are shown elsewhere than in a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")
