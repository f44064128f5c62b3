"""The shipped model answers what is new to it, and only because it sees and hears it right."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.demo import QA, SPOKEN_FILE, SPOKEN_WORDS, Scene, ask_pair, make_scene, render
from executorch_mm.utils import make_audio_input, make_image_input

Pixels = npt.NDArray[np.generic]
Questions = list[tuple[Scene, QA]]
Clips = list[tuple[Pixels, str]]
GREEDY = GenerationConfig(max_new_tokens=60)


def share_right(runner: MultimodalRunner, questions: Questions, change: Callable[[Pixels], Pixels]) -> float:
    num_right = 0
    for scene, qa in questions:
        runner.reset()
        image = make_image_input(change(np.asarray(render(scene))))
        answer = runner.generate_text(["<|user|>", image, f"{qa.question}<|end|><|assistant|>"], GREEDY)
        num_right += answer == qa.answer
    return num_right / len(questions)


def normalized(pixels: Pixels, mean: float, std: float) -> Pixels:
    """What the processor does to a 64 x 64 image, written out; the runner takes it as prepared."""
    scaled = pixels.astype(np.float32).transpose(2, 0, 1) / 255
    return np.ascontiguousarray((scaled - mean) / std, dtype=np.float32)


def test_fresh_scenes_are_answered_exactly(runner: MultimodalRunner, questions: Questions) -> None:
    assert share_right(runner, questions, lambda pixels: pixels) >= 0.95


def test_two_images_in_one_prompt_are_told_apart(runner: MultimodalRunner) -> None:
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
    assert share_right(runner, questions, lambda pixels: normalized(pixels, 0.5, 0.5)) >= 0.95


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("channels swapped", lambda pixels: pixels[:, :, ::-1]),
        ("transposed", lambda pixels: pixels.transpose(1, 0, 2)),
        ("not normalized", lambda pixels: normalized(pixels, 0.0, 1.0)),
        ("not rescaled", lambda pixels: normalized(pixels.astype(np.float32) * 255, 0.5, 0.5)),
        ("black", np.zeros_like),
    ],
)
def test_a_wrongly_prepared_image_is_noticed(
    runner: MultimodalRunner, questions: Questions, what: str, change: Callable[[Pixels], Pixels]
) -> None:
    assert share_right(runner, questions, change) < 0.95, what


LISTEN = "What do you hear?<|end|><|assistant|>"


@pytest.fixture(scope="module")
def clips() -> Clips:
    """Voices that training never used, at 16 kHz, and their words; tools/tiny_model/make_clips.py."""
    with np.load(Path(__file__).parents[2] / "data" / "speech" / "clips.npz") as file:
        parts = np.split(file["samples"], file["starts"][1:-1])
        return [(samples, str(words)) for samples, words in zip(parts, file["words"], strict=True)]


def share_heard(runner: MultimodalRunner, clips: Clips, change: Callable[[Pixels], Pixels]) -> float:
    num_right = 0
    for samples, words in clips:
        runner.reset()
        audio = make_audio_input(change(samples), sampling_rate=16000)
        num_right += runner.generate_text(["<|user|>", audio, LISTEN], GREEDY) == words
    return num_right / len(clips)


def test_new_voices_are_heard_exactly(runner: MultimodalRunner, clips: Clips) -> None:
    assert share_heard(runner, clips, lambda samples: samples) >= 0.9


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("backwards", lambda samples: samples[::-1].copy()),
        ("twice as fast", lambda samples: samples[::2].copy()),
        ("silence", lambda samples: np.full_like(samples, 128)),
    ],
)
def test_a_wrongly_prepared_audio_clip_is_noticed(
    runner: MultimodalRunner, clips: Clips, what: str, change: Callable[[Pixels], Pixels]
) -> None:
    assert share_heard(runner, clips, change) < 0.7, what


def test_an_image_and_a_voice_in_one_conversation(runner: MultimodalRunner, questions: Questions) -> None:
    scene, qa = questions[0]
    image, voice = render(scene), make_audio_input(SPOKEN_FILE)
    assert runner.generate_text(["<|user|>", voice, LISTEN], GREEDY) == SPOKEN_WORDS
    runner.reset()
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "audio", "path": SPOKEN_FILE},
                {"type": "text", "text": "What do you hear?"},
            ],
        }
    ]
    assert runner.chat(messages, GREEDY).text == SPOKEN_WORDS
    assert runner.generate_text(["<|user|>", image, f"{qa.question}<|end|><|assistant|>"], GREEDY)
