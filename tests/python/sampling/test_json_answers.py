"""What a complete answer in JSON is checked for, and `result.parsed`."""

from __future__ import annotations

import asyncio
import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from executorch_mm import (
    ExecutionError,
    GenerationConfig,
    InputError,
    MultimodalRunner,
    Regex,
    ResponseFormatError,
)
from executorch_mm._engine.json_answer import read_answer
from json_writer import PROMPT, writer, written
from random_schemas import ROOTS

pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")
jsonschema = pytest.importorskip("jsonschema")

HOT = GenerationConfig(temperature=1e6, max_new_tokens=200)  # all that is allowed is equally likely
Schema = dict[str, object]


# Complete answers.

TWO_KEYS: Schema = {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 2}
NAMED: Schema = {"type": "object", "properties": {"name": {"type": "integer"}}}
ESCAPES = {"json_allowed_escapes": 'nrbtf\\"u', "whitespace_flexible": False, "key_separator": ": "}


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"type": "object"}, '{"a": 1, "a": 2}', {"a": 2}),
        (NAMED, '{"x": 1, "x": {"x": 1, "x": null}}', {"x": {"x": None}}),
        (TWO_KEYS, '{"a": 1, "b": 2, "a": 3}', {"a": 3, "b": 2}),
        ({"patternProperties": {"^a": {"type": "null"}}}, '{"ab": null, "ab": null}', {"ab": None}),
        ({"type": "object"}, r'{"a\"\\\n": "\t"}', {'a"\\\n': "\t"}),
        ({"const": "\x01\x1f"}, r'"\u0001\u001f"', "\x01\x1f"),
        (
            {"type": "object", "properties": {"a\x02": {"type": "null"}}},
            r'{"a\u0002": null}',
            {"a\x02": None},
        ),
        ({"type": "integer"}, "-12", -12),
        ({"type": ["null", "string"]}, "null", None),
        ({"type": "number"}, "1e999", float("inf")),
    ],
)
def test_what_is_written_twice_or_with_escapes_counts_as_json_has_it(
    runner: MultimodalRunner, schema: Schema, text: str, value: object
) -> None:
    result = written(runner, text, response_format=schema)
    assert (result.finish_reason, result.text, result.parsed) == ("stop", text, value)
    jsonschema.validate(result.parsed, schema)


@pytest.mark.parametrize(
    ("schema", "text", "reason"),
    [
        (TWO_KEYS, '{"a": 1, "a": 2}', r"\$: expected 2 different keys or more, got 1"),
        ({"items": TWO_KEYS}, '[{"a": 1, "b": 2}, {"b": 1, "b": 2}]', r"\$/1: expected 2 different keys"),
        (
            {**NAMED, "x-guidance": ESCAPES},
            r'{"n\u0061me": "x"}',
            r'\$/name: expected integer, got "x"',
        ),
        ({"type": "number", "exclusiveMinimum": 0}, "0." + "0" * 400 + "1", "between the bounds"),
        ({"type": "number", "exclusiveMaximum": 1}, "0." + "9" * 30, "between the bounds"),
        ({"type": "integer"}, "1" * 5000, "cannot be read as JSON: .*4300"),
    ],
)
def test_an_answer_that_the_schema_does_not_accept_once_it_is_read_is_a_typed_error(
    runner: MultimodalRunner, schema: Schema, text: str, reason: str
) -> None:
    if len(text) > runner.capacity:
        with pytest.raises(ResponseFormatError, match=reason):
            read_answer(text, schema, schema)
        return
    with pytest.raises(ResponseFormatError, match=f"^response_format: .*{reason}") as caught:
        written(runner, text, response_format=schema)
    assert caught.value.text == text
    assert (runner.stats.finish_reason, runner.stats.stopped_by) == ("stop", min(runner.tokenizer.eos_ids))
    assert pickle.loads(pickle.dumps(caught.value)).text == text
    assert runner.tokenizer.decode(runner.history).endswith(text[-5:])  # the conversation holds the answer
    assert runner.generate_text([], response_format=Regex("7")) == "7"


def test_a_key_has_one_spelling(runner: MultimodalRunner) -> None:
    """llguidance takes "n\\u0061me" for another key than "name"; it is refused, or told at the end."""
    for text in (r'{"n\u0061me": "x"}', r'{"\u006eame": "x"}', r'{"name": 1, "nam\u0065": 2}'):
        try:
            parsed = written(runner, text, response_format=NAMED).parsed
        except (ExecutionError, ResponseFormatError):
            continue
        jsonschema.validate(parsed, NAMED)


def test_the_check_comes_with_every_form(runner: MultimodalRunner) -> None:
    text = '{"a": 1, "a": 2}'
    shown: list[str] = []

    def stream() -> None:
        shown.extend(runner.stream(PROMPT, **options()))  # type: ignore[arg-type]

    async def astream() -> None:
        stream = runner.astream(PROMPT, **options())  # type: ignore[arg-type]
        async for piece in stream:
            shown.append(piece)  # noqa: PERF401  # kept where the stream raises

    def options() -> dict[str, object]:
        runner.reset()
        shown.clear()
        return {"response_format": TWO_KEYS, "logits_processors": [writer(runner, text)]}

    messages = [{"role": "user", "content": PROMPT}]
    calls: list[Callable[[], object]] = [
        stream,
        lambda: asyncio.run(astream()),
        lambda: runner.generate(PROMPT, None, shown.append, **options()),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(ResponseFormatError, match="different keys"):
            call()
        assert "".join(shown) == text
    for call in (
        lambda: runner.generate_text(PROMPT, **options()),  # type: ignore[arg-type]
        lambda: runner.chat(messages, **options()),  # type: ignore[arg-type]
        lambda: asyncio.run(runner.agenerate_text(PROMPT, **options())),  # type: ignore[arg-type]
    ):
        with pytest.raises(ResponseFormatError, match="different keys") as caught:
            call()
        assert caught.value.text == text


def test_random_answers_parse_to_what_the_schema_accepts(runner: MultimodalRunner) -> None:
    rng = random.Random(10)
    num_parsed = 0
    for seed in range(150):
        schema = rng.choice(ROOTS[:-1])(rng, 2)
        if seed % 3 == 0:  # objects with keys of the model's own
            schema = {"type": "object", "additionalProperties": schema, "maxProperties": 2}
        runner.reset()
        result = runner.generate_result(PROMPT, HOT, response_format=schema, seed=seed)
        if result.finish_reason == "stop":
            assert result.parsed == json.loads(result.text)
            jsonschema.Draft202012Validator(schema).validate(result.parsed)
            num_parsed += 1
        else:
            assert result.parsed is None
    assert num_parsed > 100


def random_value(rng: random.Random, depth: int = 3) -> object:
    """A document of what the random schemas are about, and so often one that keeps to them."""
    words = ("red", "blue", "name", "one two", "café", "a/b", 'say "hi"', "日本", "", "x")
    kinds = rng.randrange(6 if depth else 4)
    if kinds == 0:
        return rng.choice([None, True, False, 1, -2.5, 12, 0, 1.0, 300, 2.0])
    if kinds in (1, 2):
        return rng.choice([rng.choice(words), rng.randrange(-300, 300), rng.randrange(50) / 2])
    if kinds == 3:
        return rng.choice(words) + rng.choice(words)
    if kinds == 4:
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(words): random_value(rng, depth - 1) for _ in range(rng.randrange(4))}


MORE: list[Schema] = [
    {"minProperties": 1, "maxProperties": 2, "additionalProperties": {"type": ["integer", "string"]}},
    {"type": "array", "items": [{"type": "string"}], "additionalItems": {"type": "integer"}},
    {"enum": [1, True, [1, {"a": None}], {"red": 1.0}, "x"]},
    {"type": "integer"},
    {"multipleOf": 0.5, "exclusiveMaximum": 10},
    {"properties": {"red": {"$ref": "#"}}, "required": ["red"], "additionalProperties": {"type": "null"}},
    {"allOf": [{"minLength": 2}, {"maxLength": 4}], "anyOf": [{"type": "string"}, {"minimum": 3}]},
    {"oneOf": [{"type": "string"}, {"type": "boolean"}, {"type": "array", "maxItems": 1}]},
    {"properties": {"name": False, "red": True}},
    {"const": {"name": [1, 2.0]}},
    {"const": False},
]


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"anyOf": [{"$ref": "#"}, {"const": 1}]}, "1"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]}}}, "null"),
        ({"type": "array"}, "[" * 600 + "]" * 600),
        ({"items": {"$ref": "#"}, "type": "array"}, "[" * 600 + "]" * 600),
        ({"anyOf": [{"items": {"$ref": "#"}, "type": "array"}, {"type": "null"}]}, "[[[null]], []]"),
    ],
)
def test_what_goes_too_deep_to_be_looked_at_is_no_fault(schema: Schema, text: str) -> None:
    assert read_answer(text, schema, schema).parsed() == json.loads(text)


def test_the_check_refuses_what_jsonschema_refuses() -> None:
    rng = random.Random(3)
    counts = {True: 0, False: 0}
    for number in range(6000):
        schema = MORE[number % len(MORE)] if number % 2 else rng.choice(ROOTS)(rng, 2)
        if "pattern" in json.dumps(schema) or "format" in json.dumps(schema):
            continue  # of texts, which the grammar sees to
        draft = (
            jsonschema.Draft7Validator
            if isinstance(schema.get("items"), list)
            else jsonschema.Draft202012Validator
        )
        value = random_value(rng)
        text = json.dumps(value)
        accepted = draft(schema).is_valid(value)
        counts[accepted] += 1
        if accepted:
            assert read_answer(text, schema, schema).parsed() == value
        else:
            with pytest.raises(ResponseFormatError, match="does not accept"):
                read_answer(text, schema, schema)
    assert min(counts.values()) > 300


# result.parsed


def test_an_answer_that_is_cut_short_or_free_has_nothing_parsed(runner: MultimodalRunner) -> None:
    schema: Schema = {"const": {"a": [1, 2]}}
    assert runner.generate_result(PROMPT, max_new_tokens=5).parsed is None
    assert runner.generate_result(PROMPT, response_format=Regex("7")).parsed is None
    runner.reset()
    assert runner.generate_result(PROMPT, max_new_tokens=3, response_format=schema).parsed is None
    runner.reset()
    cut = runner.generate_result(PROMPT, stop=["}"], response_format=schema)
    assert (cut.text, cut.parsed) == ('{"a": [1, 2]', None)
    runner.reset()
    result = runner.generate_result(PROMPT, response_format=schema)
    assert result.parsed == {"a": [1, 2]}
    assert pickle.loads(pickle.dumps(result)).parsed == {"a": [1, 2]}


@pytest.mark.parametrize("include_stop", [False, True])
def test_a_stop_text_at_the_end_token_leaves_the_document_whole(
    runner: MultimodalRunner, include_stop: bool
) -> None:
    schema: Schema = {"const": {"a": [1, 2]}}
    end = runner.tokenizer.id_to_token(min(runner.tokenizer.eos_ids))
    assert end is not None
    result = runner.generate_result(
        PROMPT, stop=["x", end], include_stop=include_stop, response_format=schema
    )
    assert result.text == '{"a": [1, 2]}' + (end if include_stop else "")
    assert (result.stopped_by, result.parsed) == (end, {"a": [1, 2]})


def test_every_answer_of_several_is_parsed(runner: MultimodalRunner) -> None:
    schema: Schema = {"type": "object", "properties": {"n": {"enum": [1, 2, 3]}}, "required": ["n"]}
    schema["additionalProperties"] = False
    config = HOT.replace(response_format=schema, num_return_sequences=4, seed=2)
    result = runner.generate_result(PROMPT, config)
    for answer in (result, *result.alternatives):
        assert answer.parsed == json.loads(answer.text)
    chat = runner.chat([{"role": "user", "content": PROMPT}], response_format=schema)
    assert chat.parsed == json.loads(chat.text)


def test_a_model_without_an_end_token_has_its_answer_parsed(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from executorch_mm._engine.constraint import Constraints

    constraints = Constraints(runner.tokenizer, [], runner.contract.vocab_size)
    monkeypatch.setattr(runner._requests, "_constraints", constraints)
    monkeypatch.setattr(runner._requests, "eos_ids", [])
    assert runner.generate_result(PROMPT, response_format={"const": [1]}).parsed == [1]


# pydantic, which is not a dependency.


def test_a_pydantic_class_makes_objects(runner: MultimodalRunner) -> None:
    pydantic = pytest.importorskip("pydantic")

    class Person(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")
        path: Path
        secret: pydantic.SecretStr
        data: bytes
        age: int = pydantic.Field(ge=0, le=120, alias="how old")

    text = '{"path": "a/b", "secret": "s", "data": "x", "how old": 7}'
    for value in (Person, GenerationConfig(response_format=Person).response_format):
        result = written(runner, text, response_format=value)
        assert isinstance(result.parsed, Person)
        assert result.parsed is result.parsed
        assert result.parsed.path == Path("a/b")
        assert (result.parsed.secret.get_secret_value(), result.parsed.data) == ("s", b"x")
        assert result.parsed.age == 7
    runner.reset()
    assert runner.generate_result(PROMPT, response_format=Person, max_new_tokens=3).parsed is None


def test_what_only_the_class_refuses_is_told_when_it_is_asked_for(runner: MultimodalRunner) -> None:
    pydantic = pytest.importorskip("pydantic")

    class Even(pydantic.BaseModel):
        n: int

        @pydantic.field_validator("n")
        @classmethod
        def is_even(cls, n: int) -> int:
            if n % 2:
                raise ValueError("odd")
            return n

    result = written(runner, '{"n": 3}', response_format=Even)
    assert result.text == '{"n": 3}'
    with pytest.raises(ResponseFormatError, match=r"(?s)Even refuses the answer: .*odd") as caught:
        _ = result.parsed
    assert caught.value.text == '{"n": 3}'
    assert written(runner, '{"n": 4}', response_format=Even).parsed.n == 4


def test_a_class_without_a_schema_is_refused(runner: MultimodalRunner) -> None:
    pydantic = pytest.importorskip("pydantic")

    class Odd(pydantic.BaseModel):
        call: Callable[[], int]

    with pytest.raises(InputError, match=r"^response_format: .*Odd.* has no JSON schema"):
        runner.generate_text(PROMPT, response_format=Odd)
    assert runner.position == 0
