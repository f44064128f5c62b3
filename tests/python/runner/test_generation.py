"""Options of a request on the shipped model: what they do to the answer and to what is known of it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from executorch_mm import BusyError, GenerationConfig, InputError, MultimodalRunner
from executorch_mm.demo import make_scene, render

IMAGE = render(make_scene(seed=950_000_007))
PROMPT = ["<|user|>", IMAGE, "Describe this picture.<|end|><|assistant|>"]
Logits = NDArray[np.float32]


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    row = logits.astype(np.float64)
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def test_a_result_agrees_with_the_other_forms(runner: MultimodalRunner) -> None:
    result = runner.generate_result(PROMPT)
    assert result.finish_reason == "stop"
    assert result.stopped_by == result.token_ids[-1]
    assert result.stopped_by in runner.tokenizer.eos_ids
    assert result.text == runner.tokenizer.decode(result.token_ids[:-1])
    assert result.stats == runner.stats
    assert len(result.token_ids) == len(result.token_times) == result.stats.num_generated_tokens
    assert list(result.token_times) == sorted(result.token_times)
    assert result.token_times[0] == pytest.approx(result.stats.time_to_first_token, abs=1e-3)
    assert result.logprobs is result.top_logprobs is None
    runner.reset()
    assert runner.generate_text(PROMPT) == result.text


def test_greedy_is_top_k_of_one_and_a_tiny_top_p(runner: MultimodalRunner) -> None:
    answers = set()
    for config in (
        GenerationConfig(),
        GenerationConfig(temperature=2.0, top_k=1),
        GenerationConfig(temperature=1.0, top_p=1e-9),
        GenerationConfig(temperature=1e-9),
    ):
        runner.reset()
        answers.add(runner.generate_result(PROMPT, config).token_ids)
    assert len(answers) == 1


def test_logprobs_are_those_of_the_logits_that_a_processor_sees(runner: MultimodalRunner) -> None:
    rows: list[NDArray[np.float64]] = []
    config = GenerationConfig(
        temperature=1.5,
        seed=4,
        logprobs=3,
        max_new_tokens=12,
        ignore_eos=True,
        logits_processors=[lambda tokens, logits: rows.append(log_softmax(logits))],
    )
    result = runner.generate_result(PROMPT, config)
    assert result.logprobs is not None
    assert result.top_logprobs is not None
    assert len(rows) == len(result.logprobs) == len(result.top_logprobs) == 12
    for row, token, logprob, top in zip(
        rows, result.token_ids, result.logprobs, result.top_logprobs, strict=True
    ):
        assert logprob == pytest.approx(row[token], abs=1e-4)
        best = np.argsort(-row, kind="stable")[:3]
        assert [token for token, _ in top] == best.tolist()
        assert [value for _, value in top] == pytest.approx(row[best].tolist(), abs=1e-4)
    runner.reset()
    only_chosen = runner.generate_result(PROMPT, config, logprobs=0, logits_processors=())
    assert only_chosen.logprobs == pytest.approx(result.logprobs)
    assert only_chosen.top_logprobs == ((),) * 12


def test_a_processor_changes_the_logits_in_place(runner: MultimodalRunner) -> None:
    addresses = set()
    histories = []

    def force(tokens: list[int], logits: Logits) -> None:
        addresses.add(logits.ctypes.data)
        histories.append(tokens)
        logits[:] = -np.inf
        logits[7 + len(histories)] = 0

    runner.prefill("red")
    before = runner.history
    result = runner.generate_result([], max_new_tokens=3, ignore_eos=True, logits_processors=[force])
    assert result.token_ids == (8, 9, 10)
    assert histories == [before, [*before, 8], [*before, 8, 9]]
    assert len(addresses) == 1


def test_processors_run_in_their_order(runner: MultimodalRunner) -> None:
    def to(token: int) -> Callable[[list[int], Logits], Logits]:
        def prefer(tokens: list[int], logits: Logits) -> Logits:
            logits *= 0
            logits[token] = 1
            return logits  # the array itself may be returned, as expressions do

        return prefer

    result = runner.generate_result("red", max_new_tokens=1, logits_processors=[to(4), to(9)])
    assert result.token_ids == (9,)


def test_an_exception_in_a_processor_comes_out_and_the_conversation_goes_on(
    runner: MultimodalRunner,
) -> None:
    calls = 0

    def fail_at_third(tokens: list[int], logits: Logits) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyError("third")

    pieces: list[str] = []
    with pytest.raises(KeyError, match="third"):
        runner.generate(PROMPT, None, pieces.append, logits_processors=[fail_at_third])
    assert runner.stats.num_generated_tokens == 2
    history = runner.history
    assert len(history) == runner.position
    rest = runner.generate_text([])

    runner.reset()
    assert runner.generate_text(PROMPT) == "".join(pieces) + rest


def test_a_processor_that_returns_another_array_is_told_so(runner: MultimodalRunner) -> None:
    with pytest.raises(
        InputError, match="logits_processors: expected number 1 to change the logits in place"
    ):
        runner.generate_text(
            "red", logits_processors=[lambda tokens, logits: None, lambda tokens, logits: logits * 2]
        )
    assert runner.generate_text([], max_new_tokens=2)


def test_logits_that_are_kept_beyond_the_call_stay_readable(runner: MultimodalRunner) -> None:
    kept: list[Logits] = []
    runner.generate_text("red", max_new_tokens=2, logits_processors=[lambda _, logits: kept.append(logits)])
    runner.generate_text(PROMPT)
    gc.collect()
    assert all(np.isfinite(row).all() for row in kept)


def test_a_processor_may_not_use_the_runner_but_may_stop_it(runner: MultimodalRunner) -> None:
    def intrude(tokens: list[int], logits: Logits) -> None:
        with pytest.raises(BusyError):
            runner.generate_text("red")
        runner.stop()

    runner.generate_text("red", logits_processors=[intrude])
    assert runner.stats.finish_reason == "cancelled"
    assert runner.stats.num_generated_tokens == 1


def test_a_stop_token_ends_the_answer_and_is_shown_only_if_asked_for(runner: MultimodalRunner) -> None:
    whole = runner.generate_result(PROMPT)
    stop = whole.token_ids[4]
    expected = whole.token_ids[: whole.token_ids.index(stop)]
    runner.reset()
    result = runner.generate_result(PROMPT, stop_token_ids=[stop])
    assert result.text == runner.tokenizer.decode(expected)
    assert result.token_ids == (*expected, stop)
    assert (result.finish_reason, result.stopped_by) == ("stop", stop)
    runner.reset()
    shown = runner.generate_result(PROMPT, stop_token_ids=[stop], include_stop=True)
    assert shown.text == runner.tokenizer.decode([*expected, stop])
    assert (shown.finish_reason, shown.stopped_by) == ("stop", stop)


def test_a_stop_string_is_reported_and_shown_only_if_asked_for(runner: MultimodalRunner) -> None:
    text = runner.generate_text(PROMPT)
    stop = text[6:9]
    for include_stop, end in ((False, 6), (True, 9)):
        runner.reset()
        result = runner.generate_result(PROMPT, stop=[stop, "never"], include_stop=include_stop)
        assert result.text == text[: text.index(stop)] + (stop if include_stop else "")
        assert len(result.text) <= end
        assert (result.finish_reason, result.stopped_by) == ("stop", stop)


def test_end_and_stop_tokens_wait_for_min_new_tokens(runner: MultimodalRunner) -> None:
    ends = runner.tokenizer.eos_ids | {30}
    result = runner.generate_result(PROMPT, min_new_tokens=60, max_new_tokens=70, stop_token_ids=[30])
    assert len(result.token_ids) >= 60
    assert not ends & set(result.token_ids[:60])


def test_ignored_end_tokens_are_part_of_the_answer_but_stop_tokens_still_end_it(
    runner: MultimodalRunner,
) -> None:
    short = runner.generate_result(PROMPT)
    runner.reset()
    ignoring = runner.generate_result(PROMPT, ignore_eos=True, max_new_tokens=len(short.token_ids) + 5)
    assert ignoring.token_ids[: len(short.token_ids)] == short.token_ids
    assert ignoring.finish_reason == "length"
    runner.reset()
    result = runner.generate_result(PROMPT, ignore_eos=True, stop_token_ids=[short.token_ids[-1]])
    assert result.token_ids == short.token_ids
    assert result.finish_reason == "stop"


def test_forced_suppressed_and_biased_tokens(runner: MultimodalRunner) -> None:
    result = runner.generate_result("red", forced_tokens=[20, 21], suppress_tokens=[5], max_new_tokens=4)
    assert result.token_ids[:2] == (20, 21)
    first = runner.generate_result("red", max_new_tokens=1).token_ids[0]
    runner.reset()
    runner.prefill("red")
    start = runner.save()
    usual = runner.generate_result([], max_new_tokens=1).token_ids
    runner.restore(start)
    assert runner.generate_result([], max_new_tokens=1, suppress_tokens=usual).token_ids != usual
    runner.restore(start)
    assert runner.generate_result([], max_new_tokens=1, logit_bias={first + 1: 1e4}).token_ids == (first + 1,)


def test_no_sequence_comes_twice(runner: MultimodalRunner) -> None:
    config = GenerationConfig(max_new_tokens=60, ignore_eos=True, no_repeat_ngram_size=2)
    result = runner.generate_result("red circle red circle", config)
    ids = [*runner.history, result.token_ids[-1]]
    pairs = list(pairwise(ids))
    num_prompt = len(ids) - 60
    for i in range(num_prompt, len(pairs)):
        assert pairs[i] not in pairs[:i]


def test_penalties_count_prompt_and_answer_as_documented(runner: MultimodalRunner) -> None:
    """A processor sees the penalised logits; without penalties it sees the model's."""
    rows: list[Logits] = []
    keep = GenerationConfig(
        max_new_tokens=3,
        ignore_eos=True,
        logits_processors=[lambda tokens, logits: rows.append(logits.copy())],
    )
    plain = runner.generate_result("red circle", keep, forced_tokens=[20, 20])
    runner.reset()
    options = {"repetition_penalty": 1.5, "frequency_penalty": 0.25, "presence_penalty": 0.5}
    runner.generate_result("red circle", keep, forced_tokens=[20, 20], **options)
    assert len(rows) == 2
    expected = rows[0].copy()
    for token in {*runner.tokenizer.encode("red circle"), 20}:
        expected[token] *= 1.5 if expected[token] < 0 else 1 / 1.5
    expected[20] -= 2 * 0.25 + 0.5
    np.testing.assert_allclose(rows[1], expected, rtol=1e-6)
    assert plain.token_ids[:2] == (20, 20)


def test_token_ids_that_the_model_does_not_have_are_refused_before_anything_runs(
    runner: MultimodalRunner,
) -> None:
    beyond = runner.contract.vocab_size
    for options in (
        {"stop_token_ids": [beyond]},
        {"suppress_tokens": [beyond]},
        {"forced_tokens": [beyond]},
        {"logit_bias": {beyond: 1.0}},
    ):
        with pytest.raises(InputError, match=rf"{next(iter(options))}: expected .* got {beyond}"):
            runner.generate_text("red", **options)
        assert runner.position == 0


def test_a_timeout_ends_an_answer(runner: MultimodalRunner) -> None:
    config = GenerationConfig(ignore_eos=True, timeout=30.0)
    unhurried = runner.generate_result("red", config)
    assert unhurried.finish_reason == "capacity"
    runner.reset()
    assert runner.generate_text("red", ignore_eos=True, timeout=1e-9) == ""
    assert runner.stats.finish_reason == "timeout"
    assert runner.position == 0


def test_warmup_leaves_a_conversation_as_it_was(runner: MultimodalRunner) -> None:
    expected = runner.generate_text(PROMPT)
    runner.reset()
    stats = runner.stats
    runner.warmup()
    assert runner.position == 0
    assert runner.stats is stats
    assert runner.generate_text(PROMPT) == expected
    position, history = runner.position, runner.history
    runner.warmup()
    assert (runner.position, runner.history) == (position, history)
