"""Tiny text-only exports, driven in each way a decoder may want; the eager model says what is right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from executorch_mm import CapacityError, GenerationConfig, MultimodalRunner, make_token_input
from executorch_mm.chat import ChatOptions
from number_tokenizer import NumberTokenizer, answer

FOLDER = Path(__file__).resolve().parents[2] / "models" / "text"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
NAMES = ["start", "planned_bfloat16", "range", "one_token", "no_cache"]


def load(name: str) -> MultimodalRunner:
    return MultimodalRunner(FOLDER / f"{name}.pte", NumberTokenizer())


@pytest.mark.parametrize("name", NAMES)
def test_every_export_gives_the_eager_models_tokens_over_two_turns_and_after_reset(name: str) -> None:
    with load(name) as runner:
        for _ in range(2):
            for prompt, expected in EXPECTED["turns"]:
                assert answer(runner, prompt, len(expected)) == expected
            runner.reset()


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_longer_than_one_call_gives_the_eager_models_tokens(name: str) -> None:
    prompt, expected = EXPECTED["long"]
    with load(name) as runner:
        assert answer(runner, prompt, len(expected)) == expected


@pytest.mark.parametrize(
    ("name", "style", "max_chunk"),
    [
        ("start", "start", 15),
        ("planned_bfloat16", "start", 15),
        ("range", "range", 15),
        ("one_token", "start", 1),
        ("no_cache", "none", 47),
    ],
)
def test_the_contract_is_read_from_the_program(name: str, style: str, max_chunk: int) -> None:
    with load(name) as runner:
        contract = runner.contract
        assert not contract.is_multimodal
        assert (contract.position_style, contract.max_chunk) == (style, max_chunk)
        assert contract.capacity == (47 if name == "no_cache" else 48)
        assert contract.vocab_size == 64
        assert contract.eos_ids == [EXPECTED["eos"]]
        assert contract.methods["forward"].inputs[0].is_planned == (name == "planned_bfloat16")


@pytest.mark.parametrize("name", NAMES)
def test_a_chat_knows_how_much_of_its_prompt_was_not_read(name: str) -> None:
    options = ChatOptions(template="{% for m in messages %}{{ m.content }} {% endfor %}")
    messages = [{"role": "user", "content": "5 6 7 8"}, {"role": "user", "content": "9 3"}]
    with load(name) as runner:
        first, second = (
            runner.chat(messages, chat_options=options, max_new_tokens=3).stats for _ in range(2)
        )
    assert (first.num_prompt_tokens, first.num_cached_tokens) == (6, 0)
    # The last token is read for its logits; without a cache everything is read again.
    assert (second.num_prompt_tokens, second.num_cached_tokens) == (6, 0 if name == "no_cache" else 5)


@pytest.mark.parametrize("name", NAMES)
def test_the_context_can_be_filled_to_the_last_position_and_not_further(name: str) -> None:
    with load(name) as runner:
        with pytest.raises(CapacityError):
            runner.prefill(make_token_input([3] * (runner.capacity + 1)))
        runner.prefill(make_token_input([3] * (runner.capacity - 2)))
        runner.generate([], GenerationConfig(ignore_eos=True))
        assert runner.stats.finish_reason == "capacity"
        assert runner.stats.num_generated_tokens == 3
        assert runner.position == runner.capacity
