"""Answers with guesses from the prompt (`prompt_lookup_num_tokens`): the same as without, in fewer calls.

The references are the same requests without guesses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from executorch_mm import DraftModel, GenerationConfig, InputError, MultimodalRunner, make_token_input
from number_tokenizer import NumberTokenizer
from outcomes import outcome_of
from stateful_models import MODELS

# Logits for each token of a call, over each kind of cache that can be gone back in.
NAMES = (
    *("text/no_cache", "export_llm/llama_full_logits", "optimum/llama", "optimum/llama_custom_bfloat16"),
    *("optimum/gemma3_window_custom", "exports/transformers_gemma3", "multimodal/gemma3_custom"),
    *("multimodal/image_audio", "multimodal/tiles"),
)


class Words(NumberTokenizer):
    """Takes part of a text, too, which is what llguidance asks for."""

    def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        return [int(word) for word in text.split() if word.isdigit()]


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest) -> Iterator[MultimodalRunner]:
    with MultimodalRunner(MODELS / f"{request.param}.pte", Words()) as runner:
        yield runner


def repeat(tokens: list[int], logits: np.ndarray) -> None:
    """Ten of eleven tokens are those of six tokens before, as these models would not do by themselves."""
    if len(tokens) >= 6 and len(tokens) % 11 and tokens[-6] > 1:
        logits[tokens[-6]] += 60


PROMPT = make_token_input([5, 9, 2, 33, 17, 21, 5, 9])
CONFIGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "greedy, repeating": {"logits_processors": [repeat]},
    "sampled": {"temperature": 0.9, "seed": 3},
    "sampled, repeating": {"temperature": 1.5, "seed": 4, "top_p": 0.95, "logits_processors": [repeat]},
    "penalties": {
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "min_new_tokens": 9,
        "temperature": 0.7,
        "top_k": 20,
        "seed": 5,
        "logits_processors": [repeat],
    },
    "no sequence twice": {"no_repeat_ngram_size": 3, "logits_processors": [repeat]},
    "a stop token": {"stop_token_ids": [33, 40], "logits_processors": [repeat]},
    "a stop text": {"stop": [" 17 21", " 3"], "logits_processors": [repeat], "include_stop": True},
    "a full context": {"max_new_tokens": -1, "logits_processors": [repeat]},
    "seq_len": {"seq_len": 19, "logits_processors": [repeat]},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_answer_is_the_one_without_guesses(model: MultimodalRunner, name: str) -> None:
    model.reset()
    # Two turns where the context is long enough.
    prompts = [PROMPT, make_token_input([5, 9, 2])] if name == "sampled, repeating" else [PROMPT]
    options = {"max_new_tokens": 12 if len(prompts) > 1 else 24, **CONFIGS[name]}
    expected = [outcome_of(model, prompt, **options) for prompt in prompts]
    model.reset()
    got = [outcome_of(model, prompt, **options, prompt_lookup_num_tokens=6) for prompt in prompts]
    for one, other in zip(got, expected, strict=True):
        stats, plain = one.pop("stats"), other.pop("stats")
        assert plain.num_drafted_tokens == plain.num_accepted_tokens == 0
        assert stats.num_accepted_tokens <= stats.num_drafted_tokens
        assert stats.num_decode_steps + stats.num_accepted_tokens == plain.num_decode_steps
        if name == "no sequence twice":
            assert stats.num_drafted_tokens == 0  # they would all be refused
        # Several tokens at once may be rounded differently where attention is not ours.
        assert one.pop("logprobs") == pytest.approx(other.pop("logprobs"), abs=0.05)
        assert one == other


@pytest.mark.parametrize(
    "name",
    [
        *("export_llm/llama_full_logits", "optimum/llama_custom_bfloat16", "optimum/gemma3_window_custom"),
        *("multimodal/gemma3_custom", "kvcache/flat", "kvcache/ring"),
    ],
)
def test_with_our_attention_logprobs_have_the_bits_of_those_without_guesses(name: str) -> None:
    with MultimodalRunner(MODELS / f"{name}.pte", Words()) as runner:
        found = []
        for num_tokens in (None, 6):
            runner.reset()
            options = {"max_new_tokens": 40, "logits_processors": [repeat], "temperature": 0.8, "seed": 1}
            found.append(outcome_of(runner, PROMPT, **options, prompt_lookup_num_tokens=num_tokens))
        assert found[1].pop("stats").num_drafted_tokens > found[0].pop("stats").num_drafted_tokens == 0
        assert found[0] == found[1]


# Beside a draft model whose cost is given no call is measured, and at the cost of a call it is never asked.
UNMEASURED = DraftModel(MODELS / "text/no_cache.pte", cost=1.0)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_that_repeats_itself_takes_few_calls(name: str) -> None:
    counts = []
    with MultimodalRunner(MODELS / f"{name}.pte", Words(), draft_model=UNMEASURED) as runner:
        for _ in range(2):
            runner.reset()
            stats = outcome_of(runner, PROMPT, prompt_lookup_num_tokens=6, logits_processors=[repeat])[
                "stats"
            ]
            assert stats.num_accepted_tokens >= 4
            assert stats.tokens_per_step == (stats.num_generated_tokens - 1) / stats.num_decode_steps > 1.2
            assert stats.to_dict()["num_drafted_tokens"] == stats.num_drafted_tokens
            counts.append((stats.num_drafted_tokens, stats.num_accepted_tokens, stats.num_decode_steps))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", ["text/no_cache", "optimum/llama"])
def test_without_our_attention_the_same_request_makes_the_same_calls(name: str) -> None:
    counts = []
    for _ in range(2):
        with MultimodalRunner(MODELS / f"{name}.pte", Words()) as runner:
            for _ in range(4):
                runner.reset()
                stats = outcome_of(runner, PROMPT, prompt_lookup_num_tokens=6, logits_processors=[repeat])[
                    "stats"
                ]
                counts.append((stats.num_drafted_tokens, stats.num_accepted_tokens, stats.num_decode_steps))
    assert len(set(counts)) == 1
    assert counts[0][1] >= 4


@pytest.mark.parametrize("count", [1, 3, 6, 7, 10])
def test_a_stream_that_is_left_leaves_what_one_without_guesses_does(
    model: MultimodalRunner, count: int
) -> None:
    seen = []
    for num_tokens in (None, 6):
        model.reset()
        options = GenerationConfig(
            ignore_eos=True, logits_processors=[repeat], prompt_lookup_num_tokens=num_tokens
        )
        with contextlib.closing(model.stream(PROMPT, options)) as stream:
            pieces = [next(stream) for _ in range(count)]
        history = model.history
        following = model.generate_result(make_token_input([8]), max_new_tokens=5, ignore_eos=True).token_ids
        seen.append((pieces, history, following))
    assert seen[0] == seen[1]


def test_an_exception_of_a_processor_leaves_the_conversation_to_go_on(model: MultimodalRunner) -> None:
    model.reset()
    expected = outcome_of(model, PROMPT, logits_processors=[repeat])["tokens"]
    model.reset()
    calls = iter(range(100))

    def fail(tokens: list[int], logits: np.ndarray) -> None:
        if next(calls) == 8:
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        outcome_of(model, PROMPT, logits_processors=[repeat, fail], prompt_lookup_num_tokens=6)
    assert model.generate_result([], max_new_tokens=8, logits_processors=[repeat], ignore_eos=True).token_ids
    said = model.history[8:]
    assert len(said) == 8 + 7  # the last one has not been read
    assert said == list(expected[: len(said)])


@pytest.mark.parametrize("name", NAMES)
def test_formats_hold_and_guesses_that_they_forbid_are_not_read(name: str) -> None:
    pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")
    from executorch_mm import Regex

    # One of two at each place, so that nothing is forced.
    wanted = Regex("(( 5| 8)( 9| 7)( 10| 11)( 12| 13)( 14| 15)( 16| 17)){4}")
    found = []
    with MultimodalRunner(MODELS / f"{name}.pte", Words(), draft_model=UNMEASURED) as model:
        for num_tokens in (None, 6):
            model.reset()
            config = GenerationConfig(
                response_format=wanted, logits_processors=[repeat], prompt_lookup_num_tokens=num_tokens
            )
            result = model.generate_result(PROMPT, config)
            found.append((result.text, result.token_ids, model.history, result.finish_reason))
            stats = result.stats
    assert found[0] == found[1]
    assert stats.num_accepted_tokens > 0


def test_several_answers_are_those_without_guesses(model: MultimodalRunner) -> None:
    answers = []
    for num_tokens in (None, 6):
        model.reset()
        config = GenerationConfig(
            temperature=1.2,
            seed=2,
            max_new_tokens=12,
            num_return_sequences=3,
            ignore_eos=True,
            logits_processors=[repeat],
            prompt_lookup_num_tokens=num_tokens,
        )
        result = model.generate_result(PROMPT, config)
        answers.append([result.token_ids, *(other.token_ids for other in result.alternatives)])
    assert answers[0] == answers[1]


def test_a_model_of_one_row_of_logits_is_refused_and_says_so(runner: MultimodalRunner) -> None:
    assert not runner.contract.all_logits
    with pytest.raises(InputError, match="expected a model that gives logits for each"):
        runner.generate_text("hello", prompt_lookup_num_tokens=4)
    assert runner.position == 0


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "4"])
def test_a_number_of_guesses_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="prompt_lookup_num_tokens: expected"):
        GenerationConfig(prompt_lookup_num_tokens=wrong)
