"""Several answers to one prompt, which is read once."""

from __future__ import annotations

import asyncio

import pytest

from executorch_mm import GenerationConfig, InputError, MultimodalRunner

PROMPT = "<|user|>what is this?<|end|><|assistant|>"
SAMPLED = GenerationConfig(temperature=3.0, max_new_tokens=6, seed=5, num_return_sequences=4)


def test_each_answer_is_that_of_a_request_of_its_own_with_the_next_seed(runner: MultimodalRunner) -> None:
    result = runner.generate_result(PROMPT, SAMPLED)
    answers = [result, *result.alternatives]
    assert len({answer.token_ids for answer in answers}) > 1
    for index, answer in enumerate(answers):
        runner.reset()
        alone = runner.generate_result(PROMPT, SAMPLED, num_return_sequences=1, seed=5 + index)
        assert (answer.text, answer.token_ids, answer.finish_reason, answer.stopped_by) == (
            alone.text,
            alone.token_ids,
            alone.finish_reason,
            alone.stopped_by,
        )
        assert answer.stats.num_generated_tokens == alone.stats.num_generated_tokens
        assert answer.stats.num_decode_steps == alone.stats.num_decode_steps


def test_the_prompt_is_read_once_and_the_conversation_goes_on_from_the_first_answer(
    runner: MultimodalRunner,
) -> None:
    result = runner.generate_result([PROMPT], SAMPLED)
    history, stats = runner.history, runner.stats
    assert stats == result.stats
    assert {answer.stats.prefill_ns for answer in result.alternatives} == {stats.prefill_ns}
    following = runner.generate_text("<|user|>and now?<|end|><|assistant|>", max_new_tokens=6)
    runner.reset()
    runner.generate_result(PROMPT, SAMPLED, num_return_sequences=1)
    assert runner.history == history
    assert runner.generate_text("<|user|>and now?<|end|><|assistant|>", max_new_tokens=6) == following


def test_a_prompt_that_was_prefilled_before_is_answered_several_times(runner: MultimodalRunner) -> None:
    runner.prefill(PROMPT)
    continued = runner.generate_result([], SAMPLED)
    runner.reset()
    whole = runner.generate_result(PROMPT, SAMPLED)
    assert [answer.token_ids for answer in (continued, *continued.alternatives)] == [
        answer.token_ids for answer in (whole, *whole.alternatives)
    ]


def test_every_answer_echoes_the_prompt(runner: MultimodalRunner) -> None:
    result = runner.generate_result(PROMPT, SAMPLED, echo=True)
    assert all(answer.text.startswith(PROMPT) for answer in (result, *result.alternatives))


def test_a_task_gets_the_same_answers(runner: MultimodalRunner) -> None:
    here = runner.generate_result(PROMPT, SAMPLED)
    runner.reset()
    there = asyncio.run(runner.agenerate_result(PROMPT, SAMPLED))
    assert [answer.text for answer in there.alternatives] == [answer.text for answer in here.alternatives]


def test_an_exception_in_a_later_answer_leaves_the_first_one_in_the_conversation(
    runner: MultimodalRunner,
) -> None:
    runner.generate_result(PROMPT, SAMPLED, num_return_sequences=1)
    history = runner.history
    runner.reset()
    calls = 0

    def fail_in_the_second_answer(ids: list[int], logits: object) -> None:
        nonlocal calls
        calls += 1
        if calls > len(history):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        runner.generate_result(
            PROMPT, SAMPLED, logits_processors=[fail_in_the_second_answer], num_return_sequences=100
        )
    assert runner.history == history


def test_answers_after_a_stop_are_empty_and_say_so(runner: MultimodalRunner) -> None:
    def stop(ids: list[int], logits: object) -> None:
        runner.stop()

    result = runner.generate_result(PROMPT, SAMPLED, logits_processors=[stop])
    assert [answer.finish_reason for answer in (result, *result.alternatives)] == ["cancelled"] * 4
    assert all(answer.token_ids == () for answer in result.alternatives)


def test_one_text_cannot_be_several(runner: MultimodalRunner) -> None:
    for call in (runner.generate_text, runner.generate, runner.stream, runner.astream):
        with pytest.raises(InputError, match="num_return_sequences: expected 1 where text is returned"):
            call(PROMPT, SAMPLED)
    with pytest.raises(InputError, match="num_return_sequences: expected 1 where text is returned"):
        asyncio.run(runner.agenerate_text(PROMPT, SAMPLED))
    assert runner.position == 0


@pytest.mark.parametrize(("count", "temperature"), [(0, 1.0), (-1, 1.0), (2, 0.0), (True, 1.0)])
def test_a_wrong_number_is_refused(count: int, temperature: float) -> None:
    with pytest.raises(InputError, match="num_return_sequences"):
        GenerationConfig(num_return_sequences=count, temperature=temperature)
