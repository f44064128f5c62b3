"""Probabilities of texts and answers that are given: softmax of the logits, whatever the cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_mm import (
    CapacityError,
    ExecutionError,
    GenerationConfig,
    InputError,
    MultimodalModel,
    MultimodalRunner,
    RequestStoppedError,
    TokenizerError,
    make_token_input,
)
from executorch_mm._engine import likelihood
from executorch_mm._engine.decisions import Choices, Decision, read_answers
from executorch_mm._engine.likelihood import normalized
from executorch_mm.chat import ChatOptions
from executorch_mm.chat.decision_methods import with_question
from executorch_mm.demo import make_scene, render
from executorch_mm.demo.audio import SPOKEN_FILE
from model_set import CACHE_KINDS, MODELS
from number_tokenizer import NumberTokenizer

# The eager networks' logits, by tools/fixtures/kvcache/record_logits.py with torch.
RECORDED = json.loads((MODELS / "kvcache" / "logits.json").read_text())
PROMPT, ANSWERS, END = RECORDED["prompt"], RECORDED["answers"], 1
# All rows of logits or the last only, calls of one token, a ring.
NETWORKS = {"flat": "flat", "last_row": "flat", "one_token": "flat", "no_metadata": "flat", "ring": "ring"}
NUMBERS = ChatOptions(template="{% for message in messages %}{{ message.content }}{% endfor %}")


class Words(NumberTokenizer):
    """Takes other texts, too, which have no tokens."""

    def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        return [int(word) for word in text.split() if word.isdigit()]


def load(name: str) -> MultimodalRunner:
    return MultimodalRunner(MODELS / "kvcache" / f"{name}.pte", Words(), max_context_len=64)


def log_softmax(logits: object) -> np.ndarray:
    row = np.asarray(logits, np.float64)
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def recorded_rows(network: str) -> dict[tuple[int, ...], np.ndarray]:
    return {tuple(tokens): log_softmax(logits) for tokens, logits in RECORDED[network]}


def spelled(tokens: Sequence[int]) -> str:
    return "".join(f" {token}" for token in tokens)


def expected_logprobs(
    answers: Sequence[Sequence[int]], row_after: Callable[[tuple[int, ...]], np.ndarray], end: int = END
) -> list[float]:
    """Of each answer: the sum over its tokens, and over an end token where another begins with it."""
    sums = []
    for answer in answers:
        path = [row_after(tuple(answer[:length]))[token] for length, token in enumerate(answer)]
        if any(other != answer and other[: len(answer)] == answer for other in answers):
            path.append(row_after(tuple(answer))[end])
        sums.append(float(np.sum(path)))
    return sums


def check(decision: Decision[Any], expected: Sequence[float], tolerance: float = 5e-4) -> None:
    np.testing.assert_allclose([*decision.logprobs.values()], expected, atol=tolerance)
    shares = np.exp(np.asarray(expected))
    np.testing.assert_allclose([*decision.probabilities.values()], shares / shares.sum(), atol=tolerance)
    assert sum(decision.probabilities.values()) == pytest.approx(1.0)
    assert decision.coverage == pytest.approx(shares.sum(), abs=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_text_scores_as_the_eager_networks_logits_say(name: str) -> None:
    rows = recorded_rows(NETWORKS[name])
    expected = [rows[tuple(PROMPT[:length])][PROMPT[length]] for length in range(1, len(PROMPT))]
    greedy = [rows[tuple(PROMPT[:length])].argmax() == PROMPT[length] for length in range(1, len(PROMPT))]
    with load(name) as runner:
        score = runner.score(make_token_input(PROMPT))
        assert score.token_ids == tuple(PROMPT)
        assert score.logprobs[0] is None
        np.testing.assert_allclose(score.logprobs[1:], expected, atol=2e-4)
        assert [*score.is_likeliest] == [False, *greedy]
        assert score.total == pytest.approx(sum(expected), abs=2e-3)
        assert score.perplexity == pytest.approx(np.exp(-np.mean(expected)), rel=1e-3)
        assert not score.is_greedy
        assert score.stats.num_prompt_tokens == len(PROMPT)
        assert runner.position == 0
        # The same text in two parts, of which the first is in the context.
        runner.prefill(make_token_input(PROMPT[:4]))
        for _ in range(2):
            rest = runner.score(spelled(PROMPT[4:]))
            np.testing.assert_allclose(rest.logprobs, expected[3:], atol=2e-4)
        assert runner.history == PROMPT[:4]


def test_what_the_model_says_is_greedy_and_scored_as_its_logprobs() -> None:
    with load("flat") as runner:
        result = runner.generate_result(make_token_input(PROMPT), max_new_tokens=6, logprobs=0)
        runner.rewind(len(PROMPT) - 1)
        runner.prefill(make_token_input(PROMPT[-1:]))
        score = runner.score(make_token_input(list(result.token_ids)))
        assert score.is_greedy
        assert result.logprobs is not None
        np.testing.assert_allclose(score.logprobs, result.logprobs, atol=1e-5)
        # An answer's last token, which the model has not read, comes before what follows.
        runner.reset()
        answer = runner.generate_result(make_token_input(PROMPT), max_new_tokens=2).token_ids
        behind = runner.score(make_token_input([3, 4])).logprobs
        assert len(runner.history) == len(PROMPT) + 1
        runner.reset()
        runner.prefill(make_token_input([*PROMPT, *answer]))
        np.testing.assert_allclose(runner.score(make_token_input([3, 4])).logprobs, behind, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_decisions_are_the_softmax_of_the_eager_networks_logits(name: str) -> None:
    rows = recorded_rows(NETWORKS[name])
    with load(name) as runner:
        decision = runner.decide(spelled(PROMPT), [*map(spelled, ANSWERS)], chat_options=NUMBERS)
        check(decision, expected_logprobs(ANSWERS, lambda answer: rows[(*PROMPT, *answer)]))
        assert runner.history == PROMPT
        assert decision.stats.num_prompt_tokens == len(PROMPT)
        assert decision.answer == max(decision.probabilities, key=decision.probabilities.__getitem__)


def test_any_of_the_answers_in_any_order_are_weighed_alike() -> None:
    rows = recorded_rows("flat")
    with load("flat") as runner:

        @given(st.lists(st.sampled_from(ANSWERS), min_size=2, unique_by=tuple))
        @settings(max_examples=25, deadline=None)
        def weigh(answers: list[list[int]]) -> None:
            decision = runner.decide(spelled(PROMPT), [*map(spelled, answers)], chat_options=NUMBERS)
            check(decision, expected_logprobs(answers, lambda answer: rows[(*PROMPT, *answer)]))

        weigh()


class Forced:
    """A logits processor that makes an answer of given tokens and keeps the logits before each."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = [*tokens, END]
        self.rows: list[np.ndarray] = []

    def __call__(self, ids: object, logits: np.ndarray) -> None:
        self.rows.append(log_softmax(logits))
        token = self.tokens[min(len(self.rows), len(self.tokens)) - 1]
        logits[:] = -np.inf
        logits[token] = 0.0


def generated_rows(
    generate: Callable[[GenerationConfig], object], answers: Sequence[Sequence[int]]
) -> dict[tuple[int, ...], np.ndarray]:
    """The logits before and after each token of the answers, one step of generation each."""
    rows = {}
    for answer in answers:
        forced = Forced(answer)
        generate(
            GenerationConfig(
                max_new_tokens=len(answer) + 1, logits_processors=[forced], temperature=0.0, ignore_eos=True
            )
        )
        rows |= {tuple(answer[:length]): row for length, row in enumerate(forced.rows)}
    return rows


@pytest.mark.parametrize("name", [*CACHE_KINDS, "llama_static", "llama_full_logits"])
def test_every_kind_of_cache_goes_back_to_where_answers_part(name: str) -> None:
    with MultimodalRunner(MODELS / "export_llm" / f"{name}.pte", Words()) as runner:
        rows = generated_rows(
            lambda config: runner.chat(spelled(PROMPT), config, chat_options=NUMBERS), ANSWERS
        )
        runner.reset()
        decision = runner.decide(spelled(PROMPT), [*map(spelled, ANSWERS)], chat_options=NUMBERS)
        check(decision, expected_logprobs(ANSWERS, rows.__getitem__), 2e-3)
        assert runner.history == PROMPT
        again = runner.decide(spelled(PROMPT), [*map(spelled, ANSWERS)], chat_options=NUMBERS)
        check(again, [*decision.logprobs.values()], 2e-3)


@pytest.mark.parametrize("name", ["llama", "llama_xnnpack_8da4w"])
def test_a_prompt_that_is_there_already_is_decided_on_to_the_bit(name: str) -> None:
    answers = [*map(spelled, ANSWERS)]
    with MultimodalRunner(MODELS / "export_llm" / f"{name}.pte", Words()) as runner:
        for length in (3, 9, 10, 20, 31):
            prompt = spelled((PROMPT * 8)[:length])
            runner.reset()
            fresh = runner.decide(prompt, answers, chat_options=NUMBERS)
            again = runner.decide(prompt, answers, chat_options=NUMBERS)
            assert again.logprobs == fresh.logprobs
            assert (again.stats.num_cached_tokens, again.stats.num_prompt_tokens) == (length, length)
            runner.generate_result(make_token_input([5, 6]), max_new_tokens=2)
            again = runner.decide(prompt, answers, chat_options=NUMBERS)
            assert again.logprobs == fresh.logprobs
            assert again.stats.num_cached_tokens == length - 2


def question(kind: str) -> list[dict[str, object]]:
    scene = make_scene(seed=7)
    media = {"type": "image", "image": render(scene)} if kind == "image" else None
    if kind == "audio":
        media = {"type": "audio", "path": str(SPOKEN_FILE)}
    text = {"type": "text", "text": "how many shapes are there?"}
    return [{"role": "user", "content": [part for part in (media, text) if part]}]


@pytest.mark.parametrize("kind", ["text", "image", "audio"])
def test_decisions_see_images_and_hear_audio(kind: str) -> None:
    answers = ["one", "two", "three", "a red circle", "a red square", "a"]
    with MultimodalRunner.demo(num_threads=1) as runner:
        ids = [runner.tokenizer.encode(answer) for answer in answers]
        (end,) = runner._requests.end_ids
        rows = generated_rows(lambda config: runner.chat(question(kind), config), ids)
        runner.reset()
        decision = runner.decide(question(kind), answers)
        check(decision, expected_logprobs(ids, rows.__getitem__, end), 1e-3)
        if kind == "image":
            assert decision.answer == "three"
        # The prompt and its image are in the context, for the chat that follows.
        chat = runner.chat(question(kind), max_new_tokens=3)
        assert chat.stats.num_cached_tokens == chat.stats.num_prompt_tokens - 1
        runner.reset()
        assert runner.chat(question(kind), max_new_tokens=3).text == chat.text


def test_a_scale_has_a_mean_and_a_statement_a_truth() -> None:
    with MultimodalRunner.demo(num_threads=1) as runner:
        scale = runner.decide("how many?", range(1, 6))
        assert [*scale.probabilities] == [1, 2, 3, 4, 5]
        values = scale.probabilities
        assert scale.mean == pytest.approx(sum(number * values[number] for number in values))
        statement = runner.decide("how many?", "there are shapes")
        spellings = runner.decide(with_question("how many?", "there are shapes"), ["Yes", "yes", "No", "no"])
        yes = spellings.probabilities["Yes"] + spellings.probabilities["yes"]
        assert statement.probabilities[True] == pytest.approx(yes, abs=1e-6)
        assert statement.mean == statement.probabilities[True]
        assert json.loads(json.dumps(statement.to_dict()))["answer"] is statement.answer
        with pytest.raises(InputError, match="mean: expected answers that are numbers"):
            _ = spellings.mean


def test_a_statement_is_asked_about_in_the_last_message_of_the_user() -> None:
    asked = "it rains\n\nIs this true? Answer yes or no."
    assert with_question("look", "it rains") == f"look\n\n{asked}"
    user, model = {"role": "user", "content": "look"}, {"role": "assistant", "content": "yes"}
    assert with_question([user], "it rains") == [{"role": "user", "content": f"look\n\n{asked}"}]
    assert with_question([user, model], "it rains") == [user, model, {"role": "user", "content": asked}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "look"}]}]
    assert with_question(parts, "it rains") == [
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "text", "text": asked}]}
    ]
    assert parts[0]["content"] == [{"type": "text", "text": "look"}]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ("", "answers: expected a statement, got an empty text"),
        ([], "answers: expected 2 to 256 of them, got 0"),
        (["one"], "answers: expected 2 to 256 of them, got 1"),
        (range(300), "answers: expected 2 to 256 of them, got 300"),
        (range(10**30), "answers: expected numbers of at most 1000000000"),
        (["one", 2], r"answers\[1\]: expected a str that is not empty, got 2"),
        (["one", ""], r"answers\[1\]: expected a str that is not empty, got ''"),
        (["one", "one"], "answers: expected each only once"),
        (None, r"answers: expected a statement \(a str\), answers \(a list of str\) or numbers \(a range\)"),
        (3.5, "answers: expected a statement"),
        (["one", "<|end|>"], "answers: expected texts that the tokenizer has plain tokens for"),
    ],
)
def test_answers_that_are_none_are_refused(answers: Any, message: str) -> None:
    with MultimodalRunner.demo(num_threads=1) as runner:
        with pytest.raises(InputError, match=message):
            runner.decide("how many?", answers)
        with pytest.raises(TokenizerError, match="lone surrogate"):
            runner.decide("how many?", ["one", "\ud800"])
        assert runner.position == 0
        assert sum(runner.decide("how many?", ["one", "two"]).probabilities.values()) == pytest.approx(1)


def test_answers_without_an_end_token_to_tell_them_apart_are_refused() -> None:
    with pytest.raises(InputError, match="' 7' is the beginning of ' 7 12', and the model has no end token"):
        Choices(read_answers([" 7", " 7 12"]), Words(), [])
    Choices(read_answers([" 7", " 8 12"]), Words(), [])


def test_logits_without_a_number_end_in_an_error() -> None:
    assert normalized([-1000.0, -1000.0]) == [0.5, 0.5]
    assert normalized([-np.inf, -2.0]) == [0.0, 1.0]
    for logprobs in ([np.nan, -1.0], [-np.inf, -np.inf]):
        with pytest.raises(ExecutionError, match="expected logits that give the answers a probability"):
            normalized(logprobs)


def test_requests_that_are_late_stopped_or_too_long_leave_the_conversation() -> None:
    with load("flat") as runner:
        runner.prefill(make_token_input(PROMPT))
        with pytest.raises(RequestStoppedError, match="no result after timeout=1e-09 seconds"):
            runner.score(" 3 4", timeout=1e-9)
        with pytest.raises(RequestStoppedError, match="no result after timeout"):
            runner.decide(" 3 4", [" 5", " 6"], chat_options=NUMBERS, timeout=1e-9)
        runner.prefill(make_token_input(PROMPT))
        with pytest.raises(CapacityError, match=f"{64 - runner.position}"):
            runner.score(make_token_input([3] * (64 - runner.position + 1)))
        with pytest.raises(InputError, match="inputs: expected texts and token ids, got one of kind 'image'"):
            runner.score([" 3", render(make_scene(seed=7))])
        with pytest.raises(InputError, match="timeout"):
            runner.score(" 3", timeout=-1)
        with pytest.raises(InputError, match="ids"):
            runner.score(make_token_input([3, 64]))
        runner.reset()
        rows = recorded_rows("flat")
        score = runner.score(make_token_input(PROMPT[:3]))
        assert score.logprobs[2] == pytest.approx(rows[tuple(PROMPT[:2])][PROMPT[2]], abs=2e-4)
        assert runner.score("").logprobs == ()
        assert np.isnan(runner.score("").perplexity)


def test_stop_ends_a_decision_between_calls() -> None:
    with load("one_token") as runner:
        core = runner._session
        calls = []
        real = likelihood.read_scored

        def stop_then_read(session: Any, ids: Sequence[int], limits: Any) -> Any:
            calls.append(ids)
            core.cancel()
            return real(session, ids, limits)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(likelihood, "read_scored", stop_then_read)
            with pytest.raises(RequestStoppedError, match=r"stop\(\) ended the request"):
                runner.decide(spelled(PROMPT), [" 3 4", " 5 6"], chat_options=NUMBERS)
        assert len(calls) == 1
        assert runner.history == PROMPT
        assert runner.decide(spelled(PROMPT), [" 3 4", " 5 6"], chat_options=NUMBERS).coverage > 0


def test_sessions_and_tasks_decide_alike() -> None:
    async def both(session: Any) -> tuple[Decision[Any], Any]:
        return await asyncio.gather(
            session.adecide("how many?", ["one", "two or three"]), session.ascore("how many shapes")
        )

    with MultimodalModel.demo(num_threads=1) as model, model.session() as session:
        decision = session.decide("how many?", ["one", "two or three"])
        session.reset()
        alone = session.score("how many shapes")
        with_tasks, _ = asyncio.run(both(session))
        check(with_tasks, [*decision.logprobs.values()], 1e-5)
        session.reset()
        again = asyncio.run(session.ascore("how many shapes"))
        np.testing.assert_allclose(again.logprobs[1:], alone.logprobs[1:], atol=1e-6)


def test_a_model_in_a_process_of_its_own_decides_too() -> None:
    path = MODELS / "export_llm" / "llama_full_logits.pte"
    answers = [*map(spelled, ANSWERS)]
    options = ChatOptions(template=NUMBERS.template, trusted_template=True)
    with MultimodalRunner(path, Words()) as runner:
        expected = runner.decide(spelled(PROMPT), answers, chat_options=options).logprobs
    with MultimodalRunner(path, Words(), isolate=True) as runner:
        decision = runner.decide(spelled(PROMPT), answers, chat_options=options)
        check(decision, [*expected.values()], 1e-5)
        assert runner.history == PROMPT
