"""The line that shows how far a prompt has been read."""

from __future__ import annotations

import io

import pytest

from executorch_mm.cli import progress
from executorch_mm.cli.progress import PromptProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_prompt_shows_a_line_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", -1.0)
    terminal = Terminal()
    shown = PromptProgress(terminal)
    shown(0, 40, "encode_image")
    shown(10, 40, "prefill")
    assert f"[{'-' * 20}] looking at an image 0 %" in terminal.getvalue()
    assert f"[#####{'-' * 15}] reading the prompt 25 %" in terminal.getvalue()
    shown(40, 40, "prefill")
    assert terminal.getvalue().split("\r")[-2:] == [" " * 50, ""]


def test_a_long_audio_clip_shows_how_much_of_it_was_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", -1.0)
    terminal = Terminal()
    PromptProgress(terminal)(30, 120, "transcribe")
    assert f"[#####{'-' * 15}] transcribing 25 %" in terminal.getvalue()


def test_nothing_is_written_to_a_pipe_or_for_a_short_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    PromptProgress(terminal)(1, 2, "prefill")
    assert terminal.getvalue() == ""
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", -1.0)
    pipe = io.StringIO()
    PromptProgress(pipe)(1, 2, "prefill")
    assert pipe.getvalue() == ""
