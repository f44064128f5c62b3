"""Models that take images and audio, as exporters write them; the model before export says what is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from executorch_mm import (
    CapacityError,
    GenerationConfig,
    InputError,
    MultimodalInput,
    MultimodalRunner,
    make_audio_input,
    make_image_input,
    make_token_input,
)
from model_set import ModelSet

MODELS = ModelSet("multimodal")


def array(spec: dict[str, object]) -> np.ndarray:
    """What tools/fixtures/multimodal/prompts.py describes."""
    generator = np.random.default_rng(spec["seed"])
    if spec["dtype"] == "uint8":
        return generator.integers(0, 256, spec["shape"], dtype=np.uint8)
    return generator.standard_normal(spec["shape"]).astype(np.float32)


def parts(prompt: Sequence[dict[str, object]]) -> list[MultimodalInput]:
    make = {
        "tokens": make_token_input,
        "image": lambda spec: make_image_input(array(spec), layout="CHW"),
        "audio": lambda spec: make_audio_input(array(spec)),
    }
    return [make[kind](value) for item in prompt for kind, value in item.items()]


def answer(runner: MultimodalRunner, prompt: Sequence[dict[str, object]], count: int) -> list[int]:
    text = runner.generate_text(parts(prompt), GenerationConfig(max_new_tokens=count))
    return [int(word) for word in text.split()]


def test_the_manifest_describes_the_files_beside_it() -> None:
    MODELS.expect_described()


@pytest.mark.parametrize("name", MODELS.names)
def test_turns_of_text_and_media_give_the_eager_models_tokens_again_after_reset(name: str) -> None:
    MODELS.expect_turns_twice(name, answer)


@pytest.mark.parametrize("name", MODELS.names)
def test_a_long_prompt_gives_the_eager_models_tokens(name: str) -> None:
    prompt, expected = MODELS.expected(name)["long"]
    with MODELS.load(name) as runner:
        assert answer(runner, prompt, len(expected)) == expected


@pytest.mark.parametrize("name", MODELS.names)
def test_a_prompt_that_does_not_fit_changes_nothing(name: str) -> None:
    (prompt, expected), *_ = MODELS.expected(name)["turns"]
    with MODELS.load(name) as runner:
        with pytest.raises(CapacityError):
            runner.prefill(make_token_input([3] * (runner.capacity + 1)))
        assert runner.position == 0
        assert answer(runner, prompt, len(expected)) == expected


def test_tiles_are_read_one_below_the_other() -> None:
    (prompt, _), *_ = MODELS.expected("tiles")["turns"]
    with MODELS.load("tiles") as runner:
        tiles, rows, _ = runner.contract.methods["vision_encoder"].outputs[0].shape
        assert tiles == 4
        assert runner.prefill(parts(prompt)) == sum(len(item.get("tokens", ())) for item in prompt) + 4 * rows


@pytest.mark.parametrize("chunks", [1, 4, 10])
def test_every_chunk_of_a_clip_takes_its_rows(chunks: int) -> None:
    with MODELS.load("voxtral") as runner:
        most, bins, frames = runner.contract.methods["audio_encoder"].inputs[0].shape
        assert most == 10
        assert runner.prefill([make_audio_input(np.zeros((chunks, bins, frames), np.float32))]) == 5 * chunks


@pytest.mark.parametrize("shape", [(11, 16, 40), (1, 16, 41), (1, 17, 40)])
def test_a_clip_that_the_encoder_cannot_take_is_refused(shape: tuple[int, ...]) -> None:
    with MODELS.load("voxtral") as runner:
        with pytest.raises(InputError, match="audio_encoder expects float32"):
            runner.prefill([make_audio_input(np.zeros(shape, np.float32))])
        assert runner.position == 0


def test_a_bfloat16_encoder_takes_float32_and_says_that_it_was_converted() -> None:
    (prompt, _), *_ = MODELS.expected("gemma3_custom_bfloat16")["turns"]
    with MODELS.load("gemma3_custom_bfloat16") as runner:
        assert runner.contract.methods["vision_encoder"].inputs[0].dtype == "bfloat16"
        runner.prefill(parts(prompt))
        assert runner.stats.copied_input_bytes == 3 * 28 * 28 * 4


@pytest.mark.parametrize("name", ["gemma3_custom", "llava_clip", "image_audio"])
def test_a_prepared_image_goes_to_the_encoder_without_a_copy(name: str) -> None:
    (prompt, _), *_ = MODELS.expected(name)["turns"]
    with MODELS.load(name) as runner:
        runner.prefill(parts(prompt))
        assert runner.stats.copied_input_bytes == 0
