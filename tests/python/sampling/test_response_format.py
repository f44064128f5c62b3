"""Answers that keep to a format: schemas, regular expressions and grammars on the shipped model."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import (
    ExecutionError,
    GenerationConfig,
    InputError,
    LarkGrammar,
    MissingDependencyError,
    MultimodalRunner,
    Regex,
    make_token_input,
)
from executorch_mm._engine import constraint
from executorch_mm._engine.constraint import Constraints
from executorch_mm.response_format import ResponseFormat
from random_schemas import ROOTS

pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")
jsonschema = pytest.importorskip("jsonschema")

PERSON: dict[str, object] = {
    "type": "object",
    "properties": {
        "first_name": {"type": "string", "maxLength": 12},
        "favourite_colour": {"enum": ["red", "green", "blue"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
    },
    "required": ["first_name", "favourite_colour", "age"],
    "additionalProperties": False,
}
FORMATS = jsonschema.FormatChecker(["date", "ipv4", "uuid"])  # those that need no more packages
PROMPT = "how many shapes are there?"
HOT = GenerationConfig(temperature=1e6, max_new_tokens=200)  # all that is allowed is equally likely


class Person:
    """As a pydantic model class."""

    @classmethod
    def model_json_schema(cls) -> dict[str, object]:
        return PERSON


def check(text: str, schema: dict[str, object]) -> None:
    jsonschema.Draft202012Validator(schema, format_checker=FORMATS).validate(json.loads(text))


def test_answers_of_random_logits_keep_to_500_random_schemas(runner: MultimodalRunner) -> None:
    rng = random.Random(6)
    num_finished = num_forced = 0
    for seed in range(500):
        schema = rng.choice(ROOTS)(rng, 2)
        runner.reset()
        result = runner.generate_result(PROMPT, HOT, response_format=schema, seed=seed)
        num_forced += result.stats.num_forced_tokens
        if result.finish_reason == "stop":
            num_finished += 1
            check(result.text, schema)
    assert num_finished > 450
    assert num_forced > 1000


@pytest.mark.parametrize(
    "pattern",
    [r"(red|green) (circle|square)s?", r"[0-9]{1,4}", r"é{2,5}\n?", r"[^a-z]{3}", r"a", r"(日本語|🦊)+x"],
)
def test_answers_match_a_regular_expression(runner: MultimodalRunner, pattern: str) -> None:
    for seed in range(10):
        runner.reset()
        result = runner.generate_result(PROMPT, HOT, response_format=Regex(pattern), seed=seed)
        if result.finish_reason == "stop":
            assert re.fullmatch(pattern, result.text)
        else:
            assert result.finish_reason == "length"


def test_answers_are_derived_by_a_grammar(runner: MultimodalRunner) -> None:
    grammar = LarkGrammar(
        'start: sum\nsum: term ("+" term)*\nterm: NUMBER | "(" sum ")"\nNUMBER: /[1-9]{1,2}/'
    )
    answers = set()
    for seed in range(20):
        runner.reset()
        result = runner.generate_result(PROMPT, HOT, response_format=grammar, seed=seed, max_new_tokens=60)
        if result.finish_reason == "stop":
            answers.add(result.text)
            assert set(result.text) <= set("123456789+()")
            assert eval(result.text) > 0
    assert len(answers) > 3


@pytest.mark.parametrize(
    "form",
    [
        PERSON,
        Person,
        {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}},
    ],
)
def test_each_form_of_a_schema_means_the_same(runner: MultimodalRunner, form: ResponseFormat) -> None:
    text = runner.generate_text(PROMPT, max_new_tokens=80, response_format=form)
    check(text, PERSON)
    runner.reset()
    assert runner.generate_text(PROMPT, max_new_tokens=80, response_format=PERSON) == text


def test_a_json_object_is_one_and_text_is_anything(runner: MultimodalRunner) -> None:
    found = []
    for seed in range(10):
        runner.reset()
        config = HOT.replace(response_format={"type": "json_object"}, seed=seed)
        result = runner.generate_result(PROMPT, config)
        assert result.text.startswith("{")
        if result.finish_reason == "stop":
            found.append(json.loads(result.text))
    assert found
    assert all(isinstance(value, dict) for value in found)
    runner.reset()
    free = runner.generate_text(PROMPT)
    runner.reset()
    assert runner.generate_text(PROMPT, response_format={"type": "text"}) == free


def test_the_layout_of_json_is_the_schema_s_to_change(runner: MultimodalRunner) -> None:
    schema: dict[str, object] = {"const": {"a": [1, 2]}}
    assert runner.generate_text(PROMPT, response_format=schema) == '{"a": [1, 2]}'
    runner.reset()
    compact = schema | {"x-guidance": {"item_separator": ",", "key_separator": ":"}}
    assert runner.generate_text(PROMPT, response_format=compact) == '{"a":[1,2]}'


def test_every_call_that_answers_takes_it(runner: MultimodalRunner) -> None:
    config = GenerationConfig(max_new_tokens=80, response_format=PERSON)
    messages = [{"role": "user", "content": PROMPT}]
    expected = runner.generate_text(PROMPT, config)
    check(expected, PERSON)

    async def stream() -> str:
        return "".join([piece async for piece in runner.astream(PROMPT, config)])

    pieces: list[str] = []
    calls = (
        lambda: runner.generate(PROMPT, config, token_callback=pieces.append) or "".join(pieces),
        lambda: "".join(runner.stream(PROMPT, config)),
        lambda: asyncio.run(stream()),
        lambda: asyncio.run(runner.agenerate_text(PROMPT, config)),
    )
    for call in calls:
        runner.reset()
        assert call() == expected
    assert len(pieces) > 10  # forced ones come piece by piece too
    check(runner.chat(messages, config).text, PERSON)
    check("".join(runner.stream_chat(messages, config)), PERSON)


def test_several_answers_each_keep_to_it(runner: MultimodalRunner) -> None:
    config = HOT.replace(response_format=PERSON, num_return_sequences=4, seed=1)
    result = runner.generate_result(PROMPT, config)
    answers = [result, *result.alternatives]
    for answer in answers:
        check(answer.text, PERSON)
        assert answer.stats.num_forced_tokens > 0
    assert len({answer.text for answer in answers}) == 4


# Forced tokens.


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_forced_tokens_change_nothing_but_the_number_of_steps(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    config = GenerationConfig(temperature=temperature, seed=3, max_new_tokens=80, response_format=PERSON)
    forced = runner.generate_result(PROMPT, config)
    history = runner.history
    following = runner.generate_result("red", max_new_tokens=10).token_ids
    runner.reset()
    monkeypatch.setattr(constraint, "_may_force", lambda config: False)
    sampled = runner.generate_result(PROMPT, config)
    assert forced.text == sampled.text
    assert forced.token_ids == sampled.token_ids
    assert forced.stats.num_forced_tokens > 10 > sampled.stats.num_forced_tokens == 0
    assert forced.stats.num_generated_tokens == sampled.stats.num_generated_tokens
    saved = sampled.stats.num_decode_steps - forced.stats.num_decode_steps
    assert saved >= forced.stats.num_forced_tokens - 3
    assert history == runner.history[: len(history)]  # the end token and what was forced before it are unread
    assert runner.generate_result("red", max_new_tokens=10).token_ids == following


def test_logprobs_are_there_for_every_token(runner: MultimodalRunner) -> None:
    config = GenerationConfig(temperature=3.0, seed=3, max_new_tokens=80, response_format=PERSON)
    plain = runner.generate_result(PROMPT, config)
    runner.reset()
    result = runner.generate_result(PROMPT, config, logprobs=2)
    assert result.token_ids == plain.token_ids
    assert result.logprobs is not None
    assert len(result.logprobs) == len(result.token_ids)
    assert all(logprob < 0 for logprob in result.logprobs)
    assert result.stats.num_forced_tokens == 0


def test_processors_see_every_token(runner: MultimodalRunner) -> None:
    steps: list[int] = []
    config = GenerationConfig(max_new_tokens=80, response_format=PERSON)
    result = runner.generate_result(
        PROMPT, config, logits_processors=[lambda ids, logits: steps.append(len(ids))]
    )
    assert len(steps) == len(result.token_ids)
    check(result.text, PERSON)


def test_a_stream_left_at_any_token_goes_on_as_a_fresh_runner_would(runner: MultimodalRunner) -> None:
    config = GenerationConfig(max_new_tokens=80, response_format=PERSON)
    num_pieces = len(list(runner.stream(PROMPT, config)))
    runner.reset()
    num_prompt = runner.prefill(PROMPT)
    for count in range(1, num_pieces, 3):
        runner.reset()
        with contextlib.closing(runner.stream(PROMPT, config)) as pieces:
            text = "".join(itertools.islice(pieces, count))
        said = [*runner.history, *runner._session.pending_tokens][num_prompt:]
        assert runner.tokenizer.decode(said) == text
        assert len(runner.history) == runner.position
        following = runner.generate_result("red circle", max_new_tokens=5).token_ids
        runner.reset()
        prompt = [PROMPT, make_token_input(said), "red circle"]
        assert runner.generate_result(prompt, max_new_tokens=5).token_ids == following


# The end of an answer.


def test_a_complete_answer_ends_with_the_end_token(runner: MultimodalRunner) -> None:
    result = runner.generate_result(PROMPT, response_format=Regex("red|blue"))
    assert result.finish_reason == "stop"
    assert result.stopped_by in runner.tokenizer.eos_ids
    assert result.token_ids[-1] == result.stopped_by
    assert result.text in ("red", "blue")


def test_a_complete_answer_of_a_model_without_an_end_token_ends_too(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    constraints = Constraints(runner.tokenizer, [], runner.contract.vocab_size)
    monkeypatch.setattr(runner._requests, "_constraints", constraints)
    monkeypatch.setattr(runner._requests, "eos_ids", [])
    result = runner.generate_result(PROMPT, response_format=Regex("red|blue"))
    assert (result.finish_reason, result.stopped_by) == ("stop", None)
    assert result.text in ("red", "blue")
    endless = runner.generate_result(PROMPT, response_format=Regex("[ab]+"), max_new_tokens=20)
    assert endless.finish_reason == "length"
    assert set(endless.text) <= {"a", "b"}


def test_an_answer_that_would_not_end_is_cut_at_max_new_tokens(runner: MultimodalRunner) -> None:
    whole = runner.generate_result(PROMPT, response_format=PERSON)
    for count in (0, 1, 2, 5, len(whole.token_ids) - 1):
        runner.reset()
        result = runner.generate_result(PROMPT, response_format=PERSON, max_new_tokens=count)
        assert (result.finish_reason, len(result.token_ids)) == ("length", count)
        assert result.token_ids == whole.token_ids[:count]
    runner.reset()
    endless = runner.generate_result(PROMPT, response_format=Regex("(ab)*"), logit_bias={4: -1e9})
    assert endless.finish_reason == "capacity"
    assert endless.text.startswith("abab")


def test_stop_texts_and_stop_tokens_end_an_answer_early(runner: MultimodalRunner) -> None:
    result = runner.generate_result(PROMPT, response_format=PERSON, stop=["t_na"])
    assert (result.text, result.finish_reason, result.stopped_by) == ('{"firs', "stop", "t_na")
    runner.reset()
    quote = runner.tokenizer.encode("{")[-1]
    result = runner.generate_result(PROMPT, response_format=PERSON, stop_token_ids=[quote])
    assert result.finish_reason == "stop"
    assert not result.text.count("}")


def test_a_format_that_other_options_leave_no_token_for_is_an_error(runner: MultimodalRunner) -> None:
    sevens = [token for token in range(640) if b"7" in runner.tokenizer.token_bytes(token)]
    with pytest.raises(ExecutionError, match="no option forbids"):
        runner.generate_text(PROMPT, response_format=Regex("67"), suppress_tokens=sevens)
    assert runner.generate_text([], response_format=Regex("7")) == "7"


@pytest.mark.parametrize("endless", [LarkGrammar('start: "a" start'), Regex(r"[^\x00-\U0010ffff]")])
def test_a_format_that_nothing_can_keep_to_is_an_error(
    runner: MultimodalRunner, endless: ResponseFormat
) -> None:
    with pytest.raises(ExecutionError, match=r"^response_format: the answer cannot go on: .{1,200}$"):
        runner.generate_text(PROMPT, response_format=endless)
    assert runner.generate_text([], response_format=Regex("7")) == "7"


def test_penalties_and_suppressed_tokens_act_within_the_format(runner: MultimodalRunner) -> None:
    config = HOT.replace(response_format=Regex("[ab]{6}"), seed=1)
    with_a = [token for token in range(640) if b"a" in runner.tokenizer.token_bytes(token)]
    assert runner.generate_text(PROMPT, config, suppress_tokens=with_a) == "bbbbbb"
    runner.reset()
    assert runner.generate_text(PROMPT, config, logit_bias=dict.fromkeys(with_a, -np.inf)) == "bbbbbb"


# What is refused.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Regex("(a"), "regex"),
        (Regex("(?=a)b"), "regex"),
        (LarkGrammar("start: missing"), "missing"),
        ({"type": "integers"}, "integers"),
        ({"not": {"type": "string"}}, "not"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength"),
        ({"$ref": "#/$defs/missing"}, "missing"),
    ],
)
def test_a_wrong_format_is_told_before_anything_has_changed(
    runner: MultimodalRunner, wrong: ResponseFormat, message: str
) -> None:
    runner.prefill("red")
    with pytest.raises(InputError, match=f"(?s)^response_format: .*{message}"):
        runner.generate_text(PROMPT, response_format=wrong)
    assert runner.position == 1
    assert runner.generate_text(PROMPT, response_format=Regex("7")) == "7"


@pytest.mark.parametrize(
    "wrong",
    [
        "json",
        5,
        ["a"],
        str,
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"schema": 5}},
        {"const": {1, 2}},
        Person(),
    ],
)
def test_what_is_no_format_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(InputError, match=r"^response_format: "):
        GenerationConfig(response_format=wrong)  # type: ignore[arg-type]
    for kind in (Regex, LarkGrammar):
        with pytest.raises(InputError, match=r"^response_format: "):
            kind("")


@pytest.mark.parametrize(
    ("field", "value"), [("forced_tokens", [5]), ("min_new_tokens", 3), ("ignore_eos", True)]
)
def test_options_at_odds_with_a_format_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^{field}: .*response_format"):
        GenerationConfig(response_format=PERSON).replace(**{field: value})  # type: ignore[arg-type]


def test_the_extra_is_named_where_it_is_missing(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependencyError, match=r"executorch_mm\[guidance\]"):
        runner.generate_text(PROMPT, response_format=PERSON)
    assert runner.position == 0
    assert runner.generate_text(PROMPT, max_new_tokens=3)


def test_statistics_tell_the_time_for_masks(runner: MultimodalRunner) -> None:
    runner.generate_text(PROMPT, max_new_tokens=5)
    assert runner.stats.mask_seconds == runner.stats.num_forced_tokens == 0
    assert "forced" not in repr(runner.stats)
    result = runner.generate_result(PROMPT, response_format=PERSON)
    stats = result.stats
    assert 0 < stats.mask_seconds < stats.total_seconds
    assert stats.to_dict()["mask_seconds"] == stats.mask_ns / 10**9
    assert stats.to_dict()["num_forced_tokens"] == stats.num_forced_tokens > 0
    assert f"({stats.num_forced_tokens} forced, masks " in repr(stats)
    busy = stats.decode_seconds + stats.sample_seconds + stats.mask_seconds
    assert stats.tokens_per_second == pytest.approx((len(result.token_ids) - 1) / busy)


# A real model.

NAMES = ("Anna", "Bob", "Carla", "Dmitri", "Emma", "Farid", "Grace", "Hugo", "Ines", "Jo")
ODD = ("Who are you?", "Write JSON.", "", "1 + 1", "日本語で答えて", "{", '"', "🦊" * 5, "a\n\nb", "No JSON!")
CHAT_PROMPTS = [*(f"Tell me about {name}." for name in NAMES), *ODD]


@pytest.mark.real_model
def test_smollm2_keeps_to_a_schema_for_20_prompts(real_models: Path) -> None:
    folder = real_models / "smollm2-135m-instruct-8da4w"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    assert len(CHAT_PROMPTS) == 20
    config = GenerationConfig(max_new_tokens=100, response_format=PERSON)
    with MultimodalRunner(folder / "model.pte", folder) as runner:
        answers = [runner.chat([{"role": "user", "content": prompt}], config) for prompt in CHAT_PROMPTS]
        for answer in answers:
            assert answer.finish_reason == "stop"
            check(answer.text, PERSON)
