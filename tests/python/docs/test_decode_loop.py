"""The decode loop in docs/ is short, runs as it stands, and says what the package says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from executorch_mm import MultimodalRunner

PROGRAM = Path(__file__).parents[3] / "docs" / "reference-decode-loop" / "decode_loop.py"
QUESTION = "<|user|>how many shapes are there?<|end|><|assistant|>"


def run(folder: Path, prompt: str) -> str:
    command = [sys.executable, str(PROGRAM), str(folder), prompt]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_it_is_read_in_one_sitting() -> None:
    assert len(PROGRAM.read_text(encoding="utf-8").splitlines()) <= 120


def test_it_answers_as_the_runner_does(runner: MultimodalRunner, demo_folder: Path) -> None:
    expected = runner.generate_text(QUESTION, temperature=0.0, max_new_tokens=60)

    assert expected
    assert run(demo_folder, QUESTION) == expected + "\n"


@pytest.mark.real_model
def test_it_ends_a_real_answer_before_a_stop_text(real_models: Path) -> None:
    folder = real_models / "smollm2-135m-instruct-8da4w"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    prompt = "<|im_start|>user\nWrite two short paragraphs about the sea.<|im_end|>\n<|im_start|>assistant\n"
    with MultimodalRunner(folder / "model.pte", num_threads=1) as runner:
        expected = runner.generate_text(prompt, temperature=0.0, max_new_tokens=60, stop=["\n\n"])

    assert run(folder, prompt) == expected + "\n"
