"""The shipped model answers questions about pictures it has not seen, and only because it sees them right."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.demo import QA, Scene, ask_pair, make_scene, render
from executorch_mm.utils import make_image_input

Pixels = npt.NDArray[np.generic]
Questions = list[tuple[Scene, QA]]
GREEDY = GenerationConfig(max_new_tokens=60)


def share_right(runner: MultimodalRunner, questions: Questions, change: Callable[[Pixels], Pixels]) -> float:
    num_right = 0
    for scene, qa in questions:
        runner.reset()
        image = make_image_input(change(np.asarray(render(scene))))
        answer = runner.generate_text(["<|user|>", image, f"{qa.question}<|end|><|assistant|>"], GREEDY)
        num_right += answer == qa.answer
    return num_right / len(questions)


def normalised(pixels: Pixels, mean: float, std: float) -> Pixels:
    """What the processor does to a 64 x 64 picture, written out; the runner takes it as prepared."""
    scaled = pixels.astype(np.float32).transpose(2, 0, 1) / 255
    return np.ascontiguousarray((scaled - mean) / std, dtype=np.float32)


def test_fresh_scenes_are_answered_exactly(runner: MultimodalRunner, questions: Questions) -> None:
    assert share_right(runner, questions, lambda pixels: pixels) >= 0.95


def test_two_pictures_in_one_prompt_are_told_apart(runner: MultimodalRunner) -> None:
    rng = random.Random(61)
    num_right = 0
    for seed in range(960_000_000, 960_000_040, 1):
        a, b = make_scene(seed), make_scene(seed + 1000)
        qa = ask_pair(a, b, rng)
        runner.reset()
        prompt = ["<|user|>", render(a), render(b), f"{qa.question}<|end|><|assistant|>"]
        num_right += runner.generate_text(prompt, GREEDY) == qa.answer
    assert num_right / 40 >= 0.9


def test_prepared_arrays_are_what_the_processor_makes(runner: MultimodalRunner, questions: Questions) -> None:
    assert share_right(runner, questions, lambda pixels: normalised(pixels, 0.5, 0.5)) >= 0.95


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("channels swapped", lambda pixels: pixels[:, :, ::-1]),
        ("transposed", lambda pixels: pixels.transpose(1, 0, 2)),
        ("not normalised", lambda pixels: normalised(pixels, 0.0, 1.0)),
        ("not rescaled", lambda pixels: normalised(pixels.astype(np.float32) * 255, 0.5, 0.5)),
        ("black", np.zeros_like),
    ],
)
def test_a_wrongly_prepared_picture_is_noticed(
    runner: MultimodalRunner, questions: Questions, what: str, change: Callable[[Pixels], Pixels]
) -> None:
    assert share_right(runner, questions, change) < 0.95, what
