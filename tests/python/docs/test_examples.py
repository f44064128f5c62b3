"""Every example runs without arguments on the model in the wheel and gives right answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from executorch_mm.demo import Scene, make_scene, render
from executorch_mm.demo.questions import NUMBERS

EXAMPLES = Path(__file__).parents[3] / "examples"


def run(name: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def names_every_shape(answer: str, scene: Scene) -> bool:
    return all(f"{shape.colour} {shape.shape}" in answer for shape in scene.shapes)


def test_every_example_is_tested_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "asyncio_streaming.py",
        "batch.py",
        "chat.py",
        "describe_image.py",
        "microphone.py",
        "sessions.py",
        "shared_image.py",
        "streaming.py",
        "text_generation.py",
        "tools.py",
    }


def test_the_microphone_needs_a_device_and_a_model_and_says_so() -> None:
    (line,) = run("microphone.py").splitlines()
    assert line.startswith(("no microphone: ", "no model: "))


def test_text_generation_counts_the_shapes_of_its_scene() -> None:
    prompt, answer, report = run("text_generation.py").splitlines()
    assert prompt == "prompt: How many shapes are there?"
    assert answer == NUMBERS[len(make_scene(900_000_021).shapes)]
    assert "tokens/s" in report


def test_shared_image_is_read_once_and_described_right() -> None:
    count, first, description, second, summary = run("shared_image.py").splitlines()
    scene = make_scene(900_000_001)
    assert count.endswith(NUMBERS[len(scene.shapes)])
    assert names_every_shape(description, scene)
    assert first.startswith("  0 of ")
    assert int(second.split()[0]) > 15  # the rows of the image
    assert summary.startswith("1 of 2 prompts")


def test_describe_image_names_every_shape_and_counts_them() -> None:
    description, count = run("describe_image.py").splitlines()
    scene = make_scene(900_000_001)
    assert names_every_shape(description, scene)
    assert count.endswith(NUMBERS[len(scene.shapes)])


def test_describe_image_takes_an_image_file(tmp_path: Path) -> None:
    scene = make_scene(900_000_005)
    render(scene).save(tmp_path / "scene.png")
    assert names_every_shape(run("describe_image.py", "--image", str(tmp_path / "scene.png")), scene)


def test_chat_keeps_the_image_in_mind() -> None:
    lines = run("chat.py").splitlines()
    scene = make_scene(900_000_001)
    assert lines[1] == f"assistant: {NUMBERS[len(scene.shapes)]}"
    assert names_every_shape(lines[4], scene)
    counts = [re.fullmatch(r"\(prompt of (\d+) positions, (\d+) cached\)", lines[i]) for i in (2, 5)]
    first, second = ([int(number) for number in match.groups()] for match in counts if match is not None)
    assert first[1] == 0
    assert second[1] > first[0]  # the first question with its image, which are not read again


def test_chat_takes_another_model_and_image(tmp_path: Path) -> None:
    folder = Path(sys.modules["executorch_mm"].__file__ or "").parent / "models" / "tiny_vlm"
    scene = make_scene(900_000_005)
    render(scene).save(tmp_path / "scene.png")
    options = ["--image", str(tmp_path / "scene.png"), "--question", "describe the picture"]
    assert names_every_shape(run("chat.py", "--model", str(folder), *options), scene)


def test_batch_describes_each_of_its_scenes_on_a_line_of_its_own() -> None:
    *lines, total = run("batch.py", "--count", "12").splitlines()
    right = 0
    for seed, line in zip(range(900_000_100, 900_000_112), lines, strict=True):
        name, answer, time = line.split("\t")
        assert name == f"scene {seed}"
        assert time.endswith(" ms")
        right += names_every_shape(answer, make_scene(seed))
    assert right >= 11  # the model is right 99 times in 100
    assert total.startswith("12 images, ")


def test_streaming_shows_the_whole_answer_and_then_only_its_beginning() -> None:
    whole, first_piece, beginning, reason = run("streaming.py").splitlines()
    answer = whole.removeprefix("whole answer: ")
    assert names_every_shape(answer, make_scene(900_000_002))
    assert first_piece.startswith("first piece after ")
    assert first_piece.endswith("stop")
    shown = beginning.removeprefix("first three pieces: ")
    assert shown
    assert answer.startswith(shown)
    assert reason == "finish reason: cancelled"


def test_tools_answers_by_itself_with_a_model_that_calls_none() -> None:
    answer, summary = run("tools.py").splitlines()
    assert answer
    assert summary == "answers of the model: 1, calls of tools: 0"


def test_asyncio_streaming_serves_its_tasks_and_cancels_one() -> None:
    streamed, *tasks, cancelled = run("asyncio_streaming.py").splitlines()
    assert [line.split(":")[0] for line in tasks] == ["task 1", "task 2", "task 3"]
    assert streamed.removeprefix("streamed: ") == tasks[0].removeprefix("task 1: ")
    assert cancelled.startswith("cancelled: True")


def test_sessions_answer_in_threads_and_a_fork_goes_on_as_its_session() -> None:
    count, description, likeliest, sampled = run("sessions.py").splitlines()
    scene = make_scene(900_000_002)
    number = NUMBERS[len(scene.shapes)]
    assert count == f"How many shapes are there? {number} (stop)"
    assert names_every_shape(description, scene)
    assert likeliest == f"likeliest: {number}"
    assert sampled.startswith("sampled: ")


@pytest.mark.parametrize(
    "name",
    [
        "asyncio_streaming.py",
        "sessions.py",
        "text_generation.py",
        "describe_image.py",
        "batch.py",
        "streaming.py",
    ],
)
def test_examples_take_another_model(name: str) -> None:
    folder = Path(sys.modules["executorch_mm"].__file__ or "").parent / "models" / "tiny_vlm"
    output = run(name, "--model", str(folder / "model.pte"), "--tokenizer", str(folder / "tokenizer.json"))
    assert output
