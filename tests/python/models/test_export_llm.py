"""Models that upstream's export_llm wrote, family by family; the model before export says what is right."""

from __future__ import annotations

import pytest

from executorch_mm import GenerationConfig, make_token_input
from model_set import ModelSet
from number_tokenizer import answer

MODELS = ModelSet("export_llm")


@pytest.mark.parametrize("name", MODELS.names)
def test_every_family_gives_the_eager_models_tokens_over_two_turns_and_again_after_reset(name: str) -> None:
    MODELS.expect_turns_twice(name, answer)


@pytest.mark.parametrize("name", MODELS.names)
def test_a_prompt_longer_than_one_call_gives_the_eager_models_tokens(name: str) -> None:
    prompt, expected = MODELS.expected(name)["long"]
    with MODELS.load(name) as runner:
        assert len(prompt) > runner.contract.max_chunk or "one call takes" in MODELS.entries[name]["notes"]
        assert answer(runner, prompt, len(expected)) == expected


@pytest.mark.parametrize("name", MODELS.names)
def test_a_long_prompt_after_another_conversation_gives_the_same_tokens(name: str) -> None:
    turn, (prompt, expected) = MODELS.expected(name)["turns"][0][0], MODELS.expected(name)["long"]
    with MODELS.load(name) as runner:
        answer(runner, turn, 3)
        runner.reset()
        assert answer(runner, prompt, len(expected)) == expected


@pytest.mark.parametrize("name", MODELS.names)
def test_rings_and_recurrences_are_recognised(name: str) -> None:
    # The rings hold two windows, the attention sink's also 4 positions that stay.
    rings = {"llama_attention_sink": 20, "gemma3": 32, "gemma3_narrow": 16, "gemma3_sdpa": 16}
    with MODELS.load(name) as runner:
        assert runner.contract.ring_rows == rings.get(name, 0)
        assert runner.contract.is_recurrent == (MODELS.entries[name]["family"] in {"LFM2", "Qwen3.5"})


def test_the_manifest_describes_the_files_beside_it() -> None:
    MODELS.expect_described()


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Phi", "Gemma3", "LFM2", "Qwen3.5"])
def test_every_family_is_there(family: str) -> None:
    assert any(MODELS.entries[name]["family"] == family for name in MODELS.names)


@pytest.mark.parametrize("name", ["llama_short_chunks", "llama_attention_sink", "lfm2", "qwen3_5"])
def test_several_answers_to_a_prompt_are_those_of_fresh_runners(name: str) -> None:
    config = GenerationConfig(temperature=1.5, seed=3, max_new_tokens=9, ignore_eos=True)
    turns = [make_token_input(prompt) for prompt, _ in MODELS.expected(name)["turns"]]
    with MODELS.load(name) as runner:
        runner.generate_text(turns[0], config)
        result = runner.generate_result(turns[1], config, num_return_sequences=3)
        following = runner.generate_result(turns[0], config)
        for index, made in enumerate((result, *result.alternatives)):
            runner.reset()
            runner.generate_text(turns[0], config)
            alone = runner.generate_result(turns[1], config, seed=3 + index)
            assert made.token_ids == alone.token_ids
            if index == 0:
                assert runner.generate_result(turns[0], config).token_ids == following.token_ids
