"""`executorch-mm batch`: what it says while it runs, and what it refuses."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from executorch_mm import cli
from executorch_mm.batch import BatchProgress
from executorch_mm.cli import batch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_is_written_over() -> None:
    stream = Terminal()
    progress = batch._Progress(stream)

    progress(BatchProgress(processes="2 processes"))
    progress(BatchProgress(40, 30, 0, 0, 160, 2.0, 5.0, 24.0, "2 processes"))
    progress(BatchProgress(80, 30, 1, 0, 160, 20.0, 2.5, 3700.0, "2 processes"))
    progress.clear()
    progress.finish(BatchProgress(160, 30, 1, 0, 160, 60.0, 2.1667, 0.0, "2 processes"))

    shown = stream.getvalue().replace("\r", "\n").split("\n")
    assert [line.rstrip() for line in shown if line.strip()] == [
        "2 processes",
        "0 rows, 0 rows/s",
        "[#####---------------] 40 of 160 rows, 5 rows/s, 0:24 left",
        "[##########----------] 80 of 160 rows, 2.5 rows/s, 1:01:40 left, 1 error",
        "160 rows done, 30 of them before, 1 error, 2.17 rows/s",
    ]
    written = [line for line in stream.getvalue().split("\r") if " of 160 rows, " in line]
    assert len(written[1].rstrip()) > len(written[0])


def test_elsewhere_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, now = io.StringIO(), [100.0]
    monkeypatch.setattr(batch.time, "monotonic", lambda: now[0])
    progress = batch._Progress(stream)

    for second in range(25):
        now[0] = 100.0 + second
        progress(BatchProgress(second, 0, 0, 0, 100, float(second), 1.0, None, "1 process"))

    assert stream.getvalue().splitlines() == [
        "1 process",
        "[##------------------] 10 of 100 rows, 1 rows/s",
        "[####----------------] 20 of 100 rows, 1 rows/s",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.jsonl", "-o", "in.jsonl"], "--output: expected another file than that of the rows"),
        (["in.jsonl", "-o", "out.jsonl", "--workers", "0"], "workers: expected 1 to 256"),
        (["in.jsonl", "-o", "out.jsonl", "--workers", "few"], "workers: expected 1 to 256"),
        (["in.jsonl", "-o", "out.jsonl", "--media-folder", "none"], "media_folder: expected a folder"),
        (["in.jsonl", "-o", "out.jsonl", "--temperature", "-1"], "temperature: expected 0 or more"),
        (
            ["in.jsonl", "-o", "out.jsonl", "--endpoint", "embeddings", "--top-k", "3"],
            "config: expected none",
        ),
    ],
)
def test_wrong_usage_is_said_in_a_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text('{"prompt": "a"}\n')

    assert cli.main(["batch", *arguments, "-m", "none.pte"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_rows_that_are_not_there_are_the_systems_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["batch", "none.jsonl", "-o", "-", "-m", "none.pte"]) == 1
    assert "none.jsonl" in capsys.readouterr().err
