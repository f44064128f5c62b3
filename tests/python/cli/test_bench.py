"""`executorch-mm bench`: what it measures, compares, says and draws."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from executorch_mm import ExecutionError, MultimodalRunner, cli
from executorch_mm._loading.pretrained import find_model
from executorch_mm.cli.bench.contender import Contender, Task, take_turns
from executorch_mm.cli.bench.report import Report
from executorch_mm.cli.bench.svg import draw
from executorch_mm.cli.bench.worker import measure

SVG = "{http://www.w3.org/2000/svg}"


class Fake:
    """Stands for a model whose decode rates are known."""

    threads = 1
    load_seconds = 0.5

    def __init__(self, name: str, rates: list[float], log: list[str]) -> None:
        self.name, self._rates, self._log = name, iter([0.0, *rates]), log
        self.rounds: list[dict[str, float]] = []

    def run(self, _task: Task) -> dict[str, float]:
        self._log.append(self.name)
        return {"decode_tokens_per_second": next(self._rates), "peak_memory_mib": 64.0}


def compared(*rates: list[float], names: tuple[str, ...] = ("a.pte", "<b>.pte")) -> tuple[Report, list[str]]:
    log: list[str] = []
    fakes: list[Any] = [Fake(name, own, log) for name, own in zip(names, rates, strict=False)]
    task = Task(16, 8, 1)
    take_turns(fakes, task, len(rates[0]), lambda _: None)
    return Report.of(fakes, task), log


def test_they_take_turns_and_the_ratio_is_that_of_the_rounds() -> None:
    # A machine that becomes slower in the second round is no difference between the two.
    report, log = compared([100, 10, 100], [200, 20, 150])
    assert log == ["<b>.pte", "a.pte", "a.pte", "<b>.pte", "<b>.pte", "a.pte", "a.pte", "<b>.pte"]
    decode = next(row for row in report.rows if row.measure.name == "decode_tokens_per_second")
    assert decode.values == ((100, 10, 100), (200, 20, 150))  # not the first round
    assert decode.medians == [100, 150]
    assert decode.ratios == (1.0, 2.0)


def test_the_table_says_medians_and_ratios() -> None:
    lines = compared([100, 10, 100], [200, 20, 150])[0].table().splitlines()
    assert lines[0].split() == ["a.pte,", "1", "thread", "<b>.pte,", "1", "thread", "ratio"]
    (decode,) = (line for line in lines if line.startswith("decode"))
    assert decode.split() == ["decode", "100", "tokens/s", "150", "tokens/s", "2.00"]
    assert "medians of 3 rounds" in lines[-1]
    assert "ratio" not in compared([1.0])[0].table()


def test_the_plot_is_small_escapes_names_and_has_bars_to_scale() -> None:
    text = draw(compared([100, 100], [200, 200])[0])
    assert len(text) < 6000
    assert "prefers-color-scheme: dark" in text
    root = ET.fromstring(text)
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert "<b>.pte, 1 thread" in texts
    bars = [
        float(bar.get("width", "0"))
        for bar in root.iter(f"{SVG}rect")
        if any(title.text == "decode" for title in bar)
    ]
    assert bars[1] == pytest.approx(2 * bars[0])
    assert any(value and "(2.00)" in value for value in texts)
    # nothing is drawn outside of the picture
    width = float(root.get("viewBox", "").split()[2])
    assert all(float(e.get("x", "0")) + float(e.get("width", "0")) <= width for e in root.iter(f"{SVG}rect"))


def test_a_round_measures_reading_writing_and_several_conversations() -> None:
    with MultimodalRunner.demo() as runner:
        measured = measure(runner, 16, 4, 3)
        assert set(measured) == {
            "first_token_seconds",
            "prefill_tokens_per_second",
            "decode_tokens_per_second",
            "concurrent_tokens_per_second",
            "peak_memory_mib",
        }
        assert all(value > 0 for value in measured.values())
        assert "concurrent_tokens_per_second" not in measure(runner, 16, 4, 1)


def test_two_numbers_of_threads_are_compared(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.svg"
    options = ["--prompt-tokens", "8", "--new-tokens", "4", "--rounds", "2", "--concurrency", "2"]
    code = cli.main(["bench", str(demo_folder), "--threads", "1,2", "--json", "--plot", str(plot), *options])
    out = capsys.readouterr()
    assert (code, out.err) == (0, "")
    report = json.loads(out.out)
    assert report["models"] == ["tiny_vlm, 1 thread", "tiny_vlm, 2 threads"]
    assert report["task"] == {"prompt_tokens": 8, "new_tokens": 4, "conversations": 2}
    by_name = {measure["name"]: measure for measure in report["measures"]}
    assert by_name["decode_tokens_per_second"]["ratios"][0] == 1
    assert [len(rounds) for rounds in by_name["first_token_seconds"]["rounds"]] == [2, 2]
    assert "concurrent_tokens_per_second" in by_name
    ET.parse(plot)


def test_a_process_that_ends_is_an_error_and_leaves_nothing(demo_folder: Path) -> None:
    with Contender("tiny", find_model(demo_folder), 1) as contender:
        os.kill(contender._process, signal.SIGKILL)
        os.waitid(os.P_PID, contender._process, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ExecutionError, match="has ended"):
            contender.run(Task(8, 4, 1))
    with pytest.raises(ChildProcessError):
        os.waitpid(contender._process, 0)


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.pte").write_bytes(b"x" * 100)
    assert cli.main(["bench", str(tmp_path / "model.pte")]) == 1
    assert re.fullmatch(r"executorch-mm: .*model\.pte.*\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--rounds", "0"], "--rounds: expected 1 or more, got 0"),
        (["--new-tokens", "1"], "--new-tokens: expected 2 or more"),
        (["--threads", "0"], "--threads: expected"),
        (["--threads", "2,2"], "--threads: expected different numbers"),
        (["--threads", "two"], "--threads: expected"),
    ],
)
def test_wrong_options_are_usage_errors(
    options: list[str], words: str, demo_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", str(demo_folder), *options]) == 2
    assert words in capsys.readouterr().err


def test_more_tokens_than_the_context_has_are_refused(
    demo_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", str(demo_folder), "--prompt-tokens", "300"]) == 2
    assert "at most 256 tokens" in capsys.readouterr().err
