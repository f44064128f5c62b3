"""Tokens that a format forces, in every kind of cache: the answer is the one that single steps give."""

from __future__ import annotations

import pytest

from executorch_mm import GenerationConfig, MultimodalRunner, Regex, make_token_input
from executorch_mm._engine import constraint
from model_set import CACHE_KINDS, MODELS
from number_tokenizer import NumberTokenizer

pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")

PROMPT = make_token_input([5, 9, 2, 33, 17])
# Runs longer than a decoder call and than a ring's window, with a choice before and after them. No token is
# the beginning of another one but 1, the end token, which no text can be.
FORMAT = Regex("( 5| 6| 8)( 7){6}( 8| 9)( 10| 11)( 12){17}( 10| 12| 13)( 6| 9)")


class Words(NumberTokenizer):
    """Takes part of a text, too, which is what llguidance asks for."""

    def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        return [int(word) for word in text.split() if word.isdigit()]


@pytest.mark.parametrize("name", [*CACHE_KINDS, "llama_static"])
def test_forced_tokens_leave_the_answer_of_single_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with MultimodalRunner(MODELS / "export_llm" / f"{name}.pte", Words()) as runner:
        config = GenerationConfig(response_format=FORMAT)
        forced = runner.generate_result(PROMPT, config)
        position = runner.position
        following = runner.generate_result(make_token_input([8]), max_new_tokens=6).token_ids
        runner.reset()
        monkeypatch.setattr(constraint, "_may_force", lambda config: False)
        sampled = runner.generate_result(PROMPT, config)
        assert forced.token_ids == sampled.token_ids
        assert forced.finish_reason == sampled.finish_reason == "stop"
        assert forced.stats.num_forced_tokens == 6 + 17 + 1  # and the end token
        num_steps = sampled.stats.num_decode_steps
        if runner.contract.max_chunk == 1:
            assert forced.stats.num_decode_steps >= num_steps - 1
        else:
            assert forced.stats.num_decode_steps < num_steps - 15
        assert position + 2 >= runner.position >= position
        assert runner.generate_result(make_token_input([8]), max_new_tokens=6).token_ids == following
