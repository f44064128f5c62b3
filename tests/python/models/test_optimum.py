"""Text models that optimum-executorch wrote; Hugging Face's model before export says what is right."""

from __future__ import annotations

import pytest

from executorch_mm import CapacityError, make_token_input
from model_set import ModelSet
from number_tokenizer import answer

MODELS = ModelSet("optimum")
ENDING_EARLY = [name for name in MODELS.names if MODELS.expected(name)["positions"] < 48]


def test_the_manifest_describes_the_files_beside_it() -> None:
    MODELS.expect_described()


@pytest.mark.parametrize("name", MODELS.names)
def test_three_turns_give_the_eager_models_tokens_again_after_reset(name: str) -> None:
    MODELS.expect_turns_twice(name, answer)


@pytest.mark.parametrize("name", MODELS.names)
def test_a_long_prompt_gives_the_eager_models_tokens(name: str) -> None:
    prompt, expected = MODELS.expected(name)["long"]
    positions = MODELS.expected(name)["positions"]
    with MODELS.load(name) as runner:
        # Some exports take all but one position in one call: nothing that can be answered is longer.
        assert len(prompt) > runner.contract.max_chunk or runner.contract.max_chunk == positions - 1
        assert answer(runner, prompt, len(expected)) == expected


@pytest.mark.parametrize(
    ("name", "style", "max_chunk"),
    [
        ("llama", "range", 47),
        ("llama_custom", "range", 47),
        ("llama_custom_bfloat16", "range", 47),
        ("llama_static", "start", 1),
        ("gemma3_window", "start", 1),
        ("gemma3_window_custom", "range", 7),
    ],
)
def test_shapes_and_end_token_are_read_from_the_program(name: str, style: str, max_chunk: int) -> None:
    with MODELS.load(name) as runner:
        contract = runner.contract
        assert (contract.position_style, contract.max_chunk) == (style, max_chunk)
        assert contract.vocab_size == 64
        assert contract.eos_ids == [1]


@pytest.mark.parametrize("name", ENDING_EARLY)
def test_a_window_without_a_ring_is_the_models_capacity(name: str) -> None:
    expected = MODELS.expected(name)
    (prompt, made), *_ = expected["turns"]
    with MODELS.load(name) as runner:
        assert runner.capacity == expected["positions"]
        with pytest.raises(CapacityError):
            runner.prefill(make_token_input([3] * (expected["positions"] + 1)))
        assert answer(runner, prompt, len(made)) == made
