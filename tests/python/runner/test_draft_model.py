"""Answers that a draft model drafts (`draft_model=`): the same as without, whatever it guesses.

The references are the same requests without a draft model. All of these models have 64 tokens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    BusyError,
    DraftModel,
    GenerationConfig,
    InputError,
    ModelLoadError,
    MultimodalModel,
    MultimodalRunner,
    Session,
    Stats,
    make_image_input,
    make_token_input,
)
from number_tokenizer import NumberTokenizer
from outcomes import outcome_of
from stateful_models import MODELS

# Logits for each token of a call, over each kind of cache that can be gone back in.
NAMES = (
    *("text/no_cache", "export_llm/llama_full_logits", "optimum/gemma3_window_custom"),
    "multimodal/image_audio",
)
OTHER = "text/no_cache"  # of other weights
LAST_LOGITS = "export_llm/llama_quantized_kv_cache"
CHEAP = 0.05  # so that drafting is worth it


class Words(NumberTokenizer):
    """Takes part of a text, too, which is what llguidance asks for."""

    def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        return [int(word) for word in text.split() if word.isdigit()]


def path_of(name: str) -> Path:
    return MODELS / f"{name}.pte"


def load(name: str, draft: str | None, cost: float = CHEAP, **options: Any) -> MultimodalRunner:
    given = None if draft is None else DraftModel(path_of(draft), cost=cost)
    return MultimodalRunner(path_of(name), Words(), draft_model=given, **options)


class Both:
    """A model without a draft model, with itself for one, and with another one."""

    def __init__(self, name: str) -> None:
        self.plain = load(name, None)
        self.itself = load(name, name)
        self.other = load(name, LAST_LOGITS if name == OTHER else OTHER)

    @property
    def all(self) -> tuple[MultimodalRunner, ...]:
        return self.plain, self.itself, self.other

    def reset(self) -> None:
        for runner in self.all:
            runner.reset()


@pytest.fixture(scope="module", params=NAMES)
def models(request: pytest.FixtureRequest) -> Iterator[Both]:
    both = Both(request.param)
    with contextlib.ExitStack() as stack:
        for runner in both.all:
            stack.enter_context(runner)
        yield both


PROMPT = make_token_input([5, 9, 2, 33, 17, 21, 5, 9])
CONFIGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.9, "seed": 3},
    "filtered": {"temperature": 1.5, "seed": 4, "top_p": 0.95, "top_k": 20, "min_p": 0.01},
    "penalties": {
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "min_new_tokens": 9,
        "temperature": 0.7,
        "seed": 5,
    },
    "no sequence twice": {"no_repeat_ngram_size": 2},
    "forced and biased": {"forced_tokens": [7, 8, 9], "logit_bias": {11: 3.0}, "suppress_tokens": [12]},
    "a stop token": {"stop_token_ids": [33, 40, 21], "temperature": 1.0, "seed": 8},
    "a full context": {"max_new_tokens": -1},
    "seq_len": {"seq_len": 19},
    "with guesses from the prompt": {"prompt_lookup_num_tokens": 6},
    "one at a time": {"num_assistant_tokens": 1},
    "many at a time": {"num_assistant_tokens": 30},
}


def outcome(runner: MultimodalRunner | Session, prompt: object = PROMPT, **options: Any) -> dict[str, Any]:
    return outcome_of(runner, prompt, **options)


def expect_same(got: dict[str, Any], expected: dict[str, Any]) -> None:
    got, expected = dict(got), dict(expected)
    del got["stats"], expected["stats"]
    # Several tokens at once are rounded differently.
    assert got.pop("logprobs") == pytest.approx(expected.pop("logprobs"), abs=0.05)
    assert got == expected


def without_draft(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "num_assistant_tokens"}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_answer_is_the_one_without_a_draft_model(models: Both, name: str) -> None:
    models.reset()
    options = CONFIGS[name]
    expected = outcome(models.plain, **without_draft(options))
    for runner in models.all[1:]:
        got = outcome(runner, **options)
        expect_same(got, expected)
        stats, plain = got["stats"], expected["stats"]
        assert stats.num_accepted_tokens <= stats.num_drafted_tokens
        assert stats.num_decode_steps + stats.num_accepted_tokens == (
            plain.num_decode_steps + plain.num_accepted_tokens
        )


@pytest.mark.parametrize("options", [{}, {"temperature": 1.1, "seed": 6}], ids=["greedy", "sampled"])
def test_a_model_that_drafts_for_itself_is_always_right(models: Both, options: dict[str, Any]) -> None:
    models.reset()
    stats = outcome(models.itself, **options)["stats"]
    assert stats.num_drafted_tokens == stats.num_accepted_tokens >= 10
    assert stats.tokens_per_step > 1.5
    assert stats.draft_seconds > 0
    assert stats.to_dict()["draft_seconds"] == stats.draft_seconds
    models.reset()
    stats = outcome(models.itself, **options, num_assistant_tokens=0)["stats"]
    assert stats.num_drafted_tokens == stats.draft_ns == 0


def test_wrong_guesses_are_soon_given_up(models: Both) -> None:
    models.reset()
    stats = outcome(models.other)["stats"]
    assert stats.num_decode_steps >= 20  # of 23 without guesses
    assert stats.num_drafted_tokens <= 24


def test_the_gain_is_that_over_calls_for_one_token_as_they_were_measured() -> None:
    stats = Stats(num_decode_steps=4, num_accepted_tokens=6, num_drafted_tokens=9, step_ns=30)
    stats = dataclasses.replace(stats, decode_ns=150, draft_ns=50)
    assert stats.guessing_gain == 10 * 30 / 200
    assert "6 of 9 guesses right, 1.50 times as fast" in str(stats)
    assert stats.to_dict()["guessing_gain"] == stats.guessing_gain
    assert dataclasses.replace(stats, num_drafted_tokens=0, draft_ns=0).guessing_gain == 0
    assert dataclasses.replace(stats, step_ns=0).guessing_gain == 0
    assert "fast" not in str(dataclasses.replace(stats, step_ns=0))


@pytest.mark.parametrize("name", ["kvcache/flat", "text/no_cache"])
def test_calls_are_measured_where_attention_is_ours(name: str) -> None:
    with MultimodalRunner(path_of(name), Words()) as runner:
        stats = outcome(runner, prompt_lookup_num_tokens=4)["stats"]
        assert (stats.step_ns > 0) == (name != "text/no_cache")
        assert stats.step_ns < stats.total_ns


def test_a_draft_model_that_costs_as_much_is_not_asked() -> None:
    name = "export_llm/llama_full_logits"
    with MultimodalRunner(path_of(name), Words(), draft_model=path_of(name)) as runner:
        stats = outcome(runner)["stats"]
        assert stats.num_drafted_tokens == 0


def test_a_long_prompt_is_not_drafted_for_a_short_answer(models: Both) -> None:
    models.reset()
    long = make_token_input([*range(2, 32)])
    with load("export_llm/llama_full_logits", "export_llm/llama_full_logits", cost=0.4) as runner:
        stats = outcome(runner, long, max_new_tokens=3)["stats"]
        assert stats.num_drafted_tokens == 0


def test_turns_go_on_and_rewinds_are_followed(models: Both) -> None:
    models.reset()
    found = []
    for runner in models.all:
        seen: list[object] = [outcome(runner, max_new_tokens=7)["tokens"]]
        seen.append(outcome(runner, make_token_input([8, 4]), max_new_tokens=5)["tokens"])
        snapshot = runner.save()
        if runner.contract.max_chunk > 11:  # no ring
            runner.rewind(9)
        else:
            runner.reset()
        seen.append(
            outcome(runner, make_token_input([3]), max_new_tokens=6, temperature=1.0, seed=1)["tokens"]
        )
        runner.restore(snapshot)
        seen.append(outcome(runner, make_token_input([6, 6]), max_new_tokens=5)["tokens"])
        seen.append(runner.history)
        found.append(seen)
    assert found[0] == found[1] == found[2]


def test_forks_and_several_answers(models: Both) -> None:
    found = []
    models.reset()
    for runner in models.all:
        outcome(runner, max_new_tokens=6)
        with runner.fork() as fork:
            one = outcome(fork, make_token_input([8]), max_new_tokens=8)["tokens"]
            other = outcome(runner, make_token_input([4]), max_new_tokens=8)["tokens"]
        result = runner.generate_result(
            make_token_input([7]),
            max_new_tokens=6,
            temperature=1.2,
            seed=2,
            num_return_sequences=3,
            ignore_eos=True,
        )
        several = [result.token_ids, *(answer.token_ids for answer in result.alternatives)]
        found.append((one, other, several, runner.history))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_stream_that_is_left_leaves_what_one_without_a_draft_does(models: Both, count: int) -> None:
    found = []
    models.reset()
    for runner in models.all:
        with contextlib.closing(runner.stream(PROMPT, ignore_eos=True)) as stream:
            pieces = [next(stream) for _ in range(count)]
        history = runner.history
        found.append((pieces, history, outcome(runner, make_token_input([8]), max_new_tokens=5)["tokens"]))
    assert found[0] == found[1] == found[2]


def test_stop_texts_formats_and_callbacks(models: Both) -> None:
    pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")
    from executorch_mm import Regex

    # One of two at each place, so that nothing is forced.
    wanted = Regex("(( 5| 8)( 9| 7)( 10| 11)( 12| 13)( 14| 15)( 16| 17)){3}")
    found = []
    models.reset()
    for runner in models.all:
        seen: list[object] = []
        result = runner.generate_result(PROMPT, GenerationConfig(response_format=wanted))
        seen += [result.text, result.token_ids, runner.history, result.finish_reason]
        runner.reset()
        stop = " " + " ".join(result.text.split()[6:8])
        seen.append(outcome(runner, stop=[stop], logits_processors=[prefer(result.token_ids)])["text"])
        pieces: list[str] = []
        runner.reset()
        runner.generate(PROMPT, GenerationConfig(max_new_tokens=9, ignore_eos=True), pieces.append)
        seen.append(pieces)
        runner.reset()
        found.append(seen)
    assert found[0] == found[1] == found[2]


def prefer(wanted: tuple[int, ...] | list[int]) -> Callable[[list[int], np.ndarray], None]:
    """Eight of nine tokens are these in their order."""

    def edit(tokens: list[int], logits: np.ndarray) -> None:
        if len(tokens) % 9:
            logits[wanted[len(tokens) % len(wanted)]] += 40

    return edit


def test_stop_ends_a_drafted_answer_where_it_is_called(models: Both) -> None:
    found = []
    models.reset()
    for runner in models.all:
        calls = iter(range(100))

        def stop(tokens: list[int], logits: np.ndarray, runner: Any = runner, calls: Any = calls) -> None:
            if next(calls) == 9:
                runner.stop()

        result = runner.generate_result(PROMPT, max_new_tokens=24, ignore_eos=True, logits_processors=[stop])
        found.append((result.token_ids, result.finish_reason, runner.history))
        assert result.finish_reason == "cancelled"
    assert found[0] == found[1] == found[2]


def test_an_exception_leaves_the_conversation_to_go_on(models: Both) -> None:
    models.reset()
    expected = outcome(models.plain)["tokens"]
    for runner in models.all[1:]:
        calls = iter(range(100))

        def fail(tokens: list[int], logits: np.ndarray, calls: Any = calls) -> None:
            if next(calls) == 8:
                raise ValueError("no more")

        with pytest.raises(ValueError, match="no more"):
            outcome(runner, logits_processors=[fail])
        outcome(runner, [], max_new_tokens=8)
        said = runner.history[8:]
        assert said == list(expected[: len(said)])


def test_images_are_not_shown_to_the_draft_model() -> None:
    name = "multimodal/image_audio"
    image = make_image_input(np.full((28, 28, 3), 90, np.uint8))
    found = []
    for draft in (None, name, OTHER):
        with load(name, draft) as runner:
            prompt = [make_token_input([4, 5]), image, make_token_input([6, 7])]
            result = outcome(runner, prompt, max_new_tokens=12)
            found.append((result["tokens"], result["history"]))
            if draft == name:
                assert result["stats"].draft_ns > 0
    assert found[0] == found[1] == found[2]


class Talk:
    """A random conversation."""

    def __init__(self, runner: MultimodalRunner) -> None:
        self.runner = runner
        self._saved: dict[int, Any] = {}
        self._has_ring = "ring" in {piece[0] for piece in runner.contract.state_layout(8)}

    def do(self, choice: random.Random) -> object:
        action = choice.choice(["say", "say", "say", "rewind", "reset", "save", "restore", "leave"])
        runner = self.runner
        try:
            if action == "say":
                sampled = {"temperature": 1.1, "seed": choice.randrange(100)} if choice.random() < 0.5 else {}
                prompt = make_token_input([choice.randrange(2, 60) for _ in range(choice.randrange(1, 6))])
                return outcome(runner, prompt, max_new_tokens=choice.randrange(1, 12), **sampled)["tokens"]
            if action == "leave":
                prompt = make_token_input([choice.randrange(2, 60)])
                with contextlib.closing(runner.stream(prompt, ignore_eos=True)) as stream:
                    return [piece for piece, _ in zip(stream, range(choice.randrange(1, 6)), strict=False)]
            if action == "rewind" and not self._has_ring:  # where guesses take rows that it would need
                runner.rewind(max(0, runner.position - choice.randrange(6)))
            elif action == "reset" and choice.random() < 0.4:
                runner.reset()
            elif action == "save":
                self._saved[choice.randrange(2)] = runner.save()
            elif action == "restore" and (slot := choice.randrange(2)) in self._saved:
                runner.restore(self._saved[slot])
        except InputError as error:
            return type(error)
        return None


def test_random_conversations_are_those_without_a_draft_model(models: Both) -> None:
    models.reset()
    talks = [Talk(runner) for runner in models.all]
    num_accepted = 0
    for seed in range(4):
        models.reset()
        choice = random.Random(f"{seed}")
        for step in range(20):
            state = choice.getstate()
            seen = []
            for talk in talks:
                choice.setstate(state)
                try:
                    seen.append((talk.do(choice), talk.runner.history))
                except Exception as error:  # noqa: BLE001 (whatever the plain one does)
                    seen.append((type(error), talk.runner.history))
            assert seen[0] == seen[1] == seen[2], (seed, step)
            num_accepted += models.itself.stats.num_accepted_tokens
    assert num_accepted > 0


# The second one reads tokens of several sessions in one call.
@pytest.mark.parametrize("name", ["export_llm/llama_full_logits", "kvcache/flat"])
def test_sessions_in_threads_draft_each_for_itself(name: str) -> None:
    draft = DraftModel(path_of(name), cost=CHEAP)
    prompts = [make_token_input([3 + index, 9, 2, 33]) for index in range(6)]
    with load(name, None) as plain:
        expected = []
        for prompt in prompts:
            plain.reset()
            expected.append(outcome(plain, prompt)["tokens"])
    with MultimodalModel(path_of(name), Words(), draft_model=draft) as model:
        got: list[object] = [None] * len(prompts)

        def talk(index: int) -> None:
            with model.session() as session:
                result = outcome(session, prompts[index])
                assert result["stats"].num_accepted_tokens > 0
                got[index] = result["tokens"]

        threads = [threading.Thread(target=talk, args=(index,)) for index in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == expected


def test_an_isolated_model_has_an_isolated_draft_model() -> None:
    name = "export_llm/llama_full_logits"
    with load(name, None) as plain, load(name, name, isolate=True) as runner:
        expected = outcome(plain)
        got = outcome(runner)
        expect_same(got, expected)
        assert got["stats"].num_accepted_tokens > 0


def test_models_that_do_not_fit_are_refused_and_say_why(tmp_path: Path) -> None:
    good = "export_llm/llama_full_logits"
    for name, draft, message in (
        (LAST_LOGITS, good, "draft_model: expected with it a model that gives logits for each token"),
        (good, "export_llm/lfm2", "draft_model: expected a model that can go back in its context"),
        (good, "speech/optimum", "draft_model: expected a model that goes on with a text"),
    ):
        with pytest.raises(InputError, match=message):
            load(name, draft).close()
    for wrong in (3, object(), [str(path_of(good))]):
        with pytest.raises(InputError, match="draft_model: expected a path, a DraftModel or None, got"):
            MultimodalRunner(path_of(good), Words(), draft_model=wrong)  # type: ignore[arg-type]
    with pytest.raises(ModelLoadError, match=r"nothing_here\.pte"):
        MultimodalRunner(path_of(good), Words(), draft_model=tmp_path / "nothing_here.pte")

    class Fewer(NumberTokenizer):
        vocab_size = 60

    class Others(NumberTokenizer):
        def id_to_token(self, token_id: int) -> str | None:
            return f"other {token_id}"

    for tokenizer, message in (
        (Fewer(), "expected the model's tokenizer of 64 tokens, got one of 60"),
        (Others(), "expected the model's tokenizer, got one with other tokens"),
    ):
        draft_model = DraftModel(path_of(good), tokenizer_path=tokenizer)
        with pytest.raises(InputError, match=f"draft_model: {message}"):
            MultimodalRunner(path_of(good), Words(), draft_model=draft_model)
    with pytest.raises(InputError, match="draft_model: expected logits of 64 tokens where it has no"):
        MultimodalRunner(path_of(good), Words(), draft_model=MODELS / "behaviour" / "full_logits.pte")


@pytest.mark.parametrize("wrong", [0, -1, True, "1", float("nan"), float("inf")])
def test_a_cost_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="cost: expected a number above 0"):
        DraftModel("model.pte", cost=wrong)


@pytest.mark.parametrize("wrong", [-1, True, 1.5, "4"])
def test_a_number_of_guesses_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="num_assistant_tokens: expected"):
        GenerationConfig(num_assistant_tokens=wrong)


def test_guesses_of_a_draft_model_that_is_not_there_are_refused(runner: MultimodalRunner) -> None:
    with pytest.raises(InputError, match="num_assistant_tokens: expected a model that was loaded with draft"):
        runner.generate_text("hello", num_assistant_tokens=4)
    assert runner.position == 0
    runner.generate_text("hello", num_assistant_tokens=0, max_new_tokens=1)


def test_a_closed_runner_lets_its_draft_model_go() -> None:
    name = "export_llm/llama_full_logits"
    runner = load(name, name)
    fork = runner.fork()
    outcome(runner)
    runner.close()
    assert outcome(fork)["stats"].num_accepted_tokens > 0  # the fork keeps both models
    fork.close()
    with contextlib.suppress(BusyError):
        fork.close()
