"""Calls that are forced keep to the schemas of their tools, whatever the model would say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import jsonschema
import numpy as np
import pytest

from executorch_mm import GenerationResult, InputError, MultimodalRunner
from executorch_mm.chat import ChatOptions

pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")

SCHEMAS: dict[str, dict[str, Any]] = {
    "weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "minLength": 1, "maxLength": 6},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "unit": {"enum": ["C", 'F"']},
        },
        "required": ["city", "days"],
    },
    "clock": {"type": "object", "properties": {"zone": {"enum": ["CET", "UTC"]}}, "required": ["zone"]},
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()
]
# As many a model's files have it.
RESPONSE: dict[str, Any] = {
    "fields": {
        "thinking": {"open": "<think>", "close": "</think>"},
        "tool_calls": {
            "open": "<tool_call>",
            "close": "</tool_call>",
            "content": "json",
            "repeats": True,
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {},
    },
    "start_anchor": "x",
}
PROMPT = "{% for message in messages %}{{ message.content }}{% endfor %}"
SOURCES = {
    "Hermes": "<tool_call>",
    "Granite": "<|tool_call|>",
    "Mistral": "[TOOL_CALLS]",
    "Mistral, newer": "[TOOL_CALLS] [ARGS]",
    "Llama 3": "<|start_header_id|> parameters",
    "Qwen, XML": "<tool_call> <function= <parameter=",
}


def template(marks: str, ending: str = ":") -> str:
    return f"{PROMPT}{ending}{{# {marks} #}}"


@pytest.fixture(scope="module")
def runner() -> Iterator[MultimodalRunner]:
    with MultimodalRunner.demo(num_threads=1) as runner:
        yield runner


def by_chance(runner: MultimodalRunner, seed: int, options: ChatOptions, **more: Any) -> GenerationResult:
    """An answer of which every token that may come is equally likely."""
    return runner.chat(
        "how?", tools=TOOLS, chat_options=options, temperature=1e6, seed=seed, max_new_tokens=200, **more
    )


def expect_valid(result: GenerationResult) -> None:
    assert result.tool_calls
    for call in result.tool_calls:
        jsonschema.validate(dict(call.arguments), SCHEMAS[call.name] | {"additionalProperties": False})


@pytest.mark.parametrize("name", SOURCES)
def test_calls_by_chance_are_valid_in_every_form(runner: MultimodalRunner, name: str) -> None:
    complete = 0
    for seed in range(6):
        options = ChatOptions(template=template(SOURCES[name]), tool_choice="required")
        result = by_chance(runner, seed, options)
        if result.finish_reason == "stop":
            expect_valid(result)
            assert result.content == ""
            complete += 1
    assert complete >= (3 if name == "Qwen, XML" else 4)  # which takes more of the context


def test_a_response_template_says_how_calls_are_forced(runner: MultimodalRunner) -> None:
    fields = {name: field for name, field in RESPONSE["fields"].items() if name != "thinking"}
    with_tokens = fields["tool_calls"] | {"open": "<|user|>", "close": "<|assistant|>"}
    for calls in (fields["tool_calls"], with_tokens):
        response = RESPONSE | {"fields": fields | {"tool_calls": calls}}
        options = ChatOptions(response_template=response, tool_choice="required")
        expect_valid(by_chance(runner, 1, options))


def test_the_tool_that_is_named_is_called_once(runner: MultimodalRunner) -> None:
    for choice in ("clock", {"type": "function", "function": {"name": "clock"}}):
        for seed in range(3):
            options = ChatOptions(template=template("<tool_call>"), tool_choice=choice)
            (call,) = by_chance(runner, seed, options).tool_calls
            assert call.name == "clock"
            assert call.arguments["zone"] in ("CET", "UTC")


def test_none_does_not_tell_the_model_of_tools(runner: MultimodalRunner) -> None:
    source = "{{ tools | length if tools else 'none' }}" + template("<tool_call>")
    for choice, told in (("none", "none"), ("auto", "2"), (None, "2")):
        options = ChatOptions(template=source, tool_choice=choice)
        runner.chat("how?", tools=TOOLS, chat_options=options, max_new_tokens=1)
        assert runner.tokenizer.decode(runner.history).strip().startswith(told)


class Begins:
    """A logits processor that makes an answer begin with given tokens."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = iter(tokens)

    def __call__(self, ids: object, logits: np.ndarray) -> None:
        if (token := next(self._tokens, None)) is not None:
            likely = logits[token]
            logits[:] = -np.inf
            logits[token] = likely


@pytest.mark.parametrize("begin", ["Hm < see. <tool_call>", "<tool_call>"])
def test_strict_tools_keep_calls_valid_that_the_model_makes_as_it_wishes(
    runner: MultimodalRunner, begin: str
) -> None:
    options = ChatOptions(template=template("<tool_call>"), strict_tools=True)
    for seed in range(3):
        processor = Begins(runner.tokenizer.encode(begin))
        result = by_chance(runner, seed, options, logits_processors=[processor])
        expect_valid(result)
        assert result.content.startswith(begin.removesuffix("<tool_call>").strip())
    free = by_chance(runner, 1, options, logits_processors=[Begins(runner.tokenizer.encode("a red circle"))])
    assert free.content.startswith("a red circle")


@pytest.mark.parametrize(
    ("ending", "begin"), [(":", "<think>hm, hm</think>"), ("x<think>", "hm, hm</think>")]
)
def test_a_model_may_think_before_it_has_to_call(runner: MultimodalRunner, ending: str, begin: str) -> None:
    source = template("", ending if ending.startswith("x") else f"x{ending}")
    options = ChatOptions(template=source, response_template=RESPONSE, tool_choice="required")
    result = by_chance(runner, 2, options, logits_processors=[Begins(runner.tokenizer.encode(begin))])
    expect_valid(result)
    assert (result.thinking, result.content) == ("hm, hm", "")


def test_a_model_that_has_thought_does_not_think_again(runner: MultimodalRunner) -> None:
    source = template("", "x<think></think>")
    options = ChatOptions(template=source, response_template=RESPONSE, tool_choice="required")
    for seed in range(4):
        assert by_chance(runner, seed, options).text.startswith("<tool_call>")


HERMES = template("<tool_call>")


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        (
            {"tool_choice": "required"},
            {"tools": None},
            "tool_choice: expected tools with 'required', got none",
        ),
        ({"tool_choice": "fly"}, {}, "tool_choice: expected one of weather, clock, got fly"),
        ({"tool_choice": "required"}, {"response_format": {}}, "response_format: expected None where calls"),
        (
            {"tool_choice": "required", "template": PROMPT},
            {},
            "tool_choice: expected a model whose files say how it writes calls as JSON",
        ),
        (
            {"tool_choice": "required"},
            {"tools": [{"name": "f", "parameters": {"properties": {"a": {"uniqueItems": True}}}}]},
            r"tools\[0\] \(f\): .*uniqueItems",
        ),
        ({"tool_choice": "required"}, {"tools": [{"function": {}}]}, "function with a name"),
    ],
)
def test_calls_that_cannot_be_forced_are_refused(
    runner: MultimodalRunner, options: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        runner.chat(
            "how?", chat_options=ChatOptions(**{"template": HERMES} | options), **{"tools": TOOLS} | more
        )
    expect_valid(by_chance(runner, 1, ChatOptions(template=HERMES, tool_choice="clock")))


@pytest.mark.parametrize("choice", [3, "", {}, {"function": {"name": 3}}, ["auto"]])
def test_a_choice_that_is_none_is_refused(choice: Any) -> None:
    with pytest.raises(
        InputError, match='tool_choice: expected "auto", "none", "required", the name of a tool'
    ):
        ChatOptions(tool_choice=choice)
    with pytest.raises(InputError, match="strict_tools: expected a bool"):
        ChatOptions(strict_tools=choice)


def test_arguments_without_properties_are_any_object(runner: MultimodalRunner) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    options = ChatOptions(template=HERMES, tool_choice="f")
    result = runner.chat("how?", tools=tools, chat_options=options, max_new_tokens=60)
    assert [call.arguments for call in result.tool_calls] == [{}]
    assert json.loads(result.to_json())["message"]["tool_calls"]


def xml_tool(**properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": [*properties]}
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@pytest.mark.parametrize(
    "own",
    [
        {"type": "string", "maxLength": 5},
        {"type": "integer", "minimum": 1, "maximum": 9},
        {"type": "boolean"},
        {"type": "array", "items": {"enum": ["a", "<b>"]}, "minItems": 1, "maxItems": 2},
        {"enum": ["C", "F"]},
        {"type": ["integer", "null"], "maximum": 3, "minimum": 0},
    ],
    ids=str,
)
def test_arguments_between_tags_are_of_their_types(runner: MultimodalRunner, own: Any) -> None:
    tool = xml_tool(a=own)
    options = ChatOptions(
        template=template(SOURCES["Qwen, XML"]), tool_choice={"function": {"name": "f"}, "type": "function"}
    )
    complete = 0
    for seed in range(4):
        result = runner.chat(
            "how?", tools=[tool], chat_options=options, temperature=1e6, seed=seed, max_new_tokens=220
        )
        runner.reset()
        if result.finish_reason == "stop":
            complete += 1
            (call,) = result.tool_calls
            jsonschema.validate(dict(call.arguments), tool["function"]["parameters"])
    assert complete >= 1


def test_a_text_between_tags_has_line_ends_of_its_own(runner: MultimodalRunner) -> None:
    written = "<tool_call>\n<function=f>\n<parameter=a>\nB\n\nC\n</parameter>\n</function>\n</tool_call>"
    options = ChatOptions(template=template(SOURCES["Qwen, XML"]), tool_choice="f")
    ids = [*runner.tokenizer.encode(written), *sorted(runner.tokenizer.eos_ids)[:1]]
    result = runner.chat(
        "how?", tools=[xml_tool(a={"type": "string"})], chat_options=options, logits_processors=[Begins(ids)]
    )
    assert result.finish_reason == "stop"
    assert [dict(call.arguments) for call in result.tool_calls] == [{"a": "B\n\nC"}]


@pytest.mark.parametrize(
    "own",
    [
        {"type": "string", "pattern": "a"},
        {"type": "string", "enum": ["<"]},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {},
    ],
)
def test_arguments_that_no_text_between_tags_tells_are_refused(runner: MultimodalRunner, own: Any) -> None:
    options = ChatOptions(template=template(SOURCES["Qwen, XML"]), tool_choice="required")
    with pytest.raises(InputError, match=r"tools\[0\] \(f\): a: expected a text"):
        runner.chat("how?", tools=[xml_tool(a=own)], chat_options=options, max_new_tokens=1)
