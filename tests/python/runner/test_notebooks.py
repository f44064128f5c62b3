"""Notebooks: what cells show, and what is left of the runner when one is interrupted."""

from __future__ import annotations

import io
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from executorch_mm import BusyError, MultimodalRunner, ProgressBar, inspect_model
from executorch_mm._engine.decisions import Decision
from executorch_mm.stats import Stats

PROMPT = "how many"


def test_a_report_shows_its_methods_and_problems_escaped(demo_folder: Path) -> None:
    report = inspect_model(demo_folder / "model.pte")
    html = report._repr_html_()
    assert all(f"<td>{method.name}</td>" in html for method in report.methods)
    assert "problems" not in html

    method = replace(
        report.methods[0],
        name="<script>",
        operators=(replace(report.methods[0].operators[0], name="a<b::c>", source="missing"),),
    )
    html = replace(report, path="<x>.pte", methods=(method,), problems=("a <b> & c",))._repr_html_()
    assert "<script>" not in html
    assert "&lt;x&gt;.pte" in html
    assert "<td>a&lt;b::c&gt;</td>" in html
    assert "<li>a &lt;b&gt; &amp; c</li>" in html


def test_a_decision_shows_its_answers_with_bars() -> None:
    html = Decision({"<b>": 0.75, "no": 0.25}, {"<b>": -0.5, "no": -1.5}, Stats())._repr_html_()
    assert "<th>&lt;b&gt;</th><td>0.750</td>" in html
    assert html.count("<meter") == 2


class Events:
    def __init__(self) -> None:
        self.registered: list[tuple[str, Callable[..., None]]] = []

    def register(self, name: str, callback: Callable[..., None]) -> None:
        self.registered.append((name, callback))


class Shell:
    """What is used of IPython's shell, for machines without it."""

    def __init__(self) -> None:
        self.events = Events()

    def end_cell(self, error: BaseException | None) -> None:
        for name, callback in self.events.registered:
            assert name == "post_run_cell"
            callback(types.SimpleNamespace(error_in_exec=error))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    shell = Shell()
    monkeypatch.setitem(
        sys.modules,
        "IPython",
        types.SimpleNamespace(get_ipython=lambda: shell),  # type: ignore[arg-type]
    )
    return shell


def test_an_interrupted_cell_lets_go_of_the_runner(shell: Shell, runner: MultimodalRunner) -> None:
    stream = runner.stream(PROMPT, max_new_tokens=20, ignore_eos=True)
    next(stream)
    shell.end_cell(None)
    shell.end_cell(ValueError())
    with pytest.raises(BusyError):  # it may go on in the next cell
        runner.generate_text("x", max_new_tokens=1)
    next(stream)
    shell.end_cell(KeyboardInterrupt())
    assert list(stream) == []
    assert stream.result is not None
    assert stream.result.finish_reason == "cancelled"
    assert len(runner.history) >= 2
    runner.generate_text("x", max_new_tokens=1)
    assert len(shell.events.registered) == 1


def test_streams_of_other_threads_are_left_alone(shell: Shell, runner: MultimodalRunner) -> None:
    found = []

    def begin() -> None:
        stream = runner.stream(PROMPT, max_new_tokens=20, ignore_eos=True)
        next(stream)
        found.append(stream)

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join()
    shell.end_cell(KeyboardInterrupt())
    assert next(found[0])
    found[0].close()


@pytest.mark.parametrize(
    "cell",
    [
        "for piece in runner.stream(prompt, **options): interrupt()",
        "stream = runner.stream(prompt, **options)\nfor piece in stream: interrupt()",
        "runner.generate(prompt, token_callback=interrupt, **options)",
        "for piece in runner.stream_chat('hello', **options): interrupt()",
        "runner.prefill(prompt, progress=interrupt)",
    ],
)
def test_ipython_interrupts_a_cell_and_the_next_one_runs(cell: str, demo_folder: Path) -> None:
    shells = pytest.importorskip("IPython.core.interactiveshell")
    shell = shells.InteractiveShell.instance(history_load_length=0)
    try:
        with MultimodalRunner(demo_folder / "model.pte", num_threads=1) as runner:
            shell.push(
                {"runner": runner, "prompt": PROMPT, "options": {"max_new_tokens": 20, "ignore_eos": True}}
            )
            begin = "import signal\ndef interrupt(*_): signal.raise_signal(signal.SIGINT)"
            assert shell.run_cell(begin).error_in_exec is None
            assert isinstance(shell.run_cell(cell).error_in_exec, KeyboardInterrupt)
            after = shell.run_cell("text = runner.chat('how many shapes are there?').text")
            assert after.error_in_exec is None
            fresh = runner.chat("how many shapes are there?").text
            assert shell.user_ns["text"] == fresh
    finally:
        shells.InteractiveShell.clear_instance()


# Progress.


class Display:
    """What is used of IPython.display: what is shown, with its changes."""

    def __init__(self) -> None:
        self.shown: list[list[str]] = []

    def HTML(self, text: str) -> str:  # noqa: N802
        return text

    def display(self, content: str, *, display_id: bool) -> object:
        assert display_id
        bar = [content]
        self.shown.append(bar)
        return types.SimpleNamespace(update=bar.append)


def test_progress_is_a_bar_of_each_request_in_notebooks(
    shell: Shell, runner: MultimodalRunner, capsys: pytest.CaptureFixture[str]
) -> None:
    display = sys.modules["IPython"].display = Display()  # type: ignore[attr-defined]
    shell.kernel = object()  # type: ignore[attr-defined]
    bar = ProgressBar()
    for _ in range(2):
        runner.prefill(PROMPT, progress=bar)
    assert len(display.shown) == 2
    for updates in display.shown:
        assert "value='0.000'></progress> reading the prompt 0%" in updates[0]
        assert "value='1.000'" in updates[-1]
    assert capsys.readouterr().err == ""


def test_progress_is_a_line_on_terminals_and_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, is_shown in ((Screen(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        bar = ProgressBar()
        bar(1.0, 4.0)
        bar(0, 0, "prefill")
        assert ("[#####---------------] transcribing 25%" in stream.getvalue()) == is_shown
        assert stream.getvalue().endswith("\r") == is_shown
