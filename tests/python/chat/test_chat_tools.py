"""Tools: JSON schemas, functions, pydantic's models; and the arguments of calls in earlier answers."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executorch_mm import MultimodalRunner
from executorch_mm.chat import ChatOptions, ChatTemplate
from executorch_mm.chat.tools import read_tools
from executorch_mm.errors import InputError
from tool_functions import FUNCTIONS, REFUSED, Shop, weather

DATA = Path(__file__).parents[2] / "data" / "chat"
GOLDEN = json.loads((DATA / "functions.json").read_text(encoding="utf-8"))
HELLO = [{"role": "user", "content": "hello"}]


# Functions.


def test_there_are_functions_of_many_kinds() -> None:
    assert len(FUNCTIONS) >= 15
    assert set(FUNCTIONS) == set(GOLDEN)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_schema_that_transformers_makes(name: str) -> None:
    assert read_tools([FUNCTIONS[name]]) == [GOLDEN[name]]
    # Templates print it, so the order of its keys counts.
    assert json.dumps(read_tools([FUNCTIONS[name]])) == json.dumps([GOLDEN[name]])


@pytest.mark.parametrize("function", REFUSED, ids=lambda function: function.__name__)
def test_a_function_that_does_not_say_what_it_takes_is_refused(function: Callable[..., Any]) -> None:
    place = re.escape(f"tools[1]: function {function.__name__}: ")
    with pytest.raises(InputError, match=f"^{place}.*{REFUSED[function]}"):
        read_tools([weather, function])


def test_functions_reach_the_template_and_the_model(runner: MultimodalRunner) -> None:
    template = "{% for t in tools %}{{ t | tojson }}{% endfor %}"
    assert json.loads(ChatTemplate(template).render(HELLO, tools=[weather])) == GOLDEN["weather"]
    source = "{% for t in tools %}{{ t.function.name }} {% endfor %}"
    options = ChatOptions(template=source)
    prompts = []
    for tool in (weather, GOLDEN["weather"]):
        runner.reset()
        runner.chat(HELLO, tools=[tool], chat_options=options, max_new_tokens=1)
        prompts.append(runner.history)
    assert prompts[0] == prompts[1]


# Models and mappings.


class Look:
    """As pydantic's classes are."""

    SCHEMA = {  # noqa: RUF012
        "title": "Look",
        "description": "Looks.",
        "type": "object",
        "properties": {"city": {"title": "City", "type": "string"}},
        "required": ["city"],
    }

    def __init__(self, **fields: object) -> None:
        self.fields = fields

    def model_dump(self) -> dict[str, object]:
        return self.fields

    @classmethod
    def model_json_schema(cls) -> dict[str, object]:
        return cls.SCHEMA


def test_a_model_s_class_is_a_tool_whose_arguments_are_its_fields() -> None:
    expected = {"name": "Look", "description": "Looks.", "parameters": Look.SCHEMA}
    assert read_tools([Look]) == [{"type": "function", "function": expected}]


def test_an_object_with_fields_is_the_schema_that_it_holds() -> None:
    assert read_tools([Look(name="look", parameters=Look(type="object"))]) == [  # type: ignore[list-item]
        {"name": "look", "parameters": {"type": "object"}}
    ]


def test_models_of_pydantic_are_tools() -> None:
    pydantic = pytest.importorskip("pydantic")
    Search = pydantic.create_model(  # noqa: N806
        "Search", __doc__="Searches.", query=(str, pydantic.Field(description="What for")), limit=(int, 5)
    )
    [tool] = read_tools([Search]) or []
    assert tool["function"] == {
        "name": "Search",
        "description": "Searches.",
        "parameters": Search.model_json_schema(),
    }
    with pytest.raises(InputError, match=r"^tools\[0\]: Bad has no JSON schema"):
        read_tools([pydantic.create_model("Bad", f=(Callable[[int], int], ...))])


def call() -> None:
    """Is a function."""


class CallableObject:
    def __call__(self, x: int) -> int:
        """Is called."""
        return x


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (GOLDEN["weather"], "tools: expected a list, .*got dict"),
        ("weather", "tools: expected a list, .*got str"),
        (weather, "tools: expected a list, .*got function"),
        ((tool for tool in [weather]), "tools: expected a list, .*got generator"),
        ({weather}, "tools: expected a list, .*got set"),
        (
            ["weather"],
            r"tools\[0\]: expected a JSON schema in a mapping, a function or a pydantic model, got str",
        ),
        ([None], r"tools\[0\]: .*got NoneType"),
        ([weather, 5], r"tools\[1\]: .*got int"),
        ([print], r"tools\[0\]: .*got builtin_function_or_method"),
        ([functools.partial(weather, unit="C")], r"tools\[0\]: .*got partial"),
        ([CallableObject()], r"tools\[0\]: .*got CallableObject"),
        ([Shop], r"tools\[0\]: .*got type"),
        ([[GOLDEN["weather"]]], r"tools\[0\]: .*got list"),
        ([{"name": "f", "function": call}], r"tools\[0\].function: expected text.*got function"),
        ([Look(function=call)], r"tools\[0\].function: expected text.*got function"),
        ([{"parameters": Look}], r"tools\[0\].parameters: expected text.*got type"),
    ],
)
def test_anything_else_is_refused_and_never_written_by_its_type(tools: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        ChatTemplate("{{ tools }}").render(HELLO, tools=tools)


def test_tools_are_checked_before_anything_runs(runner: MultimodalRunner) -> None:
    for tools in (GOLDEN["weather"], "weather", [print]):
        with pytest.raises(InputError, match=r"^tools"):
            runner.chat(HELLO, tools=tools)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"^tools"):
            runner.stream_chat(HELLO, tools=tools)  # type: ignore[arg-type]
    assert runner.position == 0


# Arguments of calls. A text stays one where the template writes it as it is, and is an object where the
# template dumps it or walks through it; the prompts below are what transformers renders of that form.

JSON = '{"city":  "paris", "n": [1, 2.0]}'
OBJECT = {"city": "paris", "n": [1, 2.0]}
DUMPED = '{"city": "paris", "n": [1, 2.0]}'
CALLS = "{% for m in messages %}{% for c in m.tool_calls or [] %}BODY{% endfor %}{% endfor %}"
FORMS = {
    # body: what a text gives, what an object gives
    "{{ '' + c.function.arguments }}": (JSON, DUMPED),
    "{{ c.function.arguments }}": (JSON, str(OBJECT)),
    "{{ c.function.arguments | tojson }}": (DUMPED, DUMPED),
    "{{ c.function | tojson }}": (f'{{"name": "f", "arguments": {DUMPED}}}',) * 2,
    "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }};{% endfor %}": ("city=paris;n=[1, 2.0];",)
    * 2,
    "{% for k, v in c.function.arguments | items %}{{ k }}={{ v }};{% endfor %}": ("city=paris;n=[1, 2.0];",)
    * 2,
    "{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}"
    "{{ c.function.arguments | tojson }}{% endif %}": (JSON, DUMPED),
    "{% if c.function.arguments is mapping %}{{ c.function.arguments | tojson }}{% else %}"
    "{{ raise_exception('no object') }}{% endif %}": (DUMPED, DUMPED),
    "{% if c.function.arguments is mapping %}{{ raise_exception('no text') }}{% else %}"
    "{{ c.function.arguments }}{% endif %}": (JSON, DUMPED),
    "{{ c.function.name }}": ("f", "f"),
}


def prompt(runner: MultimodalRunner, source: str, messages: list[dict[str, Any]]) -> str:
    """The template's text, which the tokenizer of the shipped model writes in words of its own."""
    seen: list[str] = []
    tokenizer = runner.tokenizer
    encode = tokenizer.encode
    try:
        tokenizer.encode = lambda text, **more: seen.append(text) or encode("hello")  # type: ignore[assignment, func-returns-value, method-assign]
        runner.chat(messages, chat_options=ChatOptions(template=source), max_new_tokens=1)
    finally:
        del tokenizer.encode  # type: ignore[attr-defined]
    return seen[0]


@pytest.mark.parametrize("body", FORMS)
def test_arguments_come_in_the_form_that_the_template_takes(body: str, runner: MultimodalRunner) -> None:
    for arguments, expected in zip((JSON, OBJECT), FORMS[body], strict=True):
        calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]
        messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": calls}]
        assert prompt(runner, CALLS.replace("BODY", body), messages) == expected
        assert calls[0]["function"]["arguments"] is arguments  # type: ignore[index]


@pytest.mark.parametrize("body", ["{{ '' + c.arguments }}", "{{ c.arguments | tojson }}"])
def test_a_call_without_a_function_around_it_is_one_too(body: str, runner: MultimodalRunner) -> None:
    messages = [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": JSON}]}]
    expected = JSON if "+" in body else DUMPED
    assert prompt(runner, CALLS.replace("BODY", body), messages) == expected


@pytest.mark.parametrize(
    "body", ["{{ '' + m.function_call.arguments }}", "{{ m.function_call.arguments | tojson }}"]
)
def test_openai_s_older_form_is_one_too(body: str, runner: MultimodalRunner) -> None:
    messages = [{"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": JSON}}]
    expected = JSON if "+" in body else DUMPED
    assert prompt(runner, "{% for m in messages %}" + body + "{% endfor %}", messages) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"), [("", "{}"), (" ", "{}"), ("[1]", "[1]"), ("null", "null")]
)
def test_texts_that_are_no_objects_are_what_they_say(
    arguments: str, expected: str, runner: MultimodalRunner
) -> None:
    messages = [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": arguments}]}]
    assert prompt(runner, CALLS.replace("BODY", "<{{ c.arguments | tojson }}>"), messages) == f"<{expected}>"
    assert prompt(runner, CALLS.replace("BODY", "<{{ '' + c.arguments }}>"), messages) == f"<{arguments}>"


def test_a_text_that_is_no_json_is_refused_where_an_object_is_wanted(runner: MultimodalRunner) -> None:
    messages = [*HELLO, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]
    body = "{{ c.function.arguments | tojson }}"
    with pytest.raises(
        InputError, match=r"^messages\[1\].tool_calls\[0\].function.arguments: expected JSON \("
    ):
        prompt(runner, CALLS.replace("BODY", body), messages)
    assert prompt(runner, CALLS.replace("BODY", "{{ '' + c.function.arguments }}"), messages) == "{"


ENDLESS = "{% for n in range(9999) %}{% for m in range(9999) %}{% endfor %}{% endfor %}"


def test_a_template_that_is_stopped_is_not_tried_on_other_messages(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered = []
    render = ChatTemplate._render
    monkeypatch.setattr(ChatTemplate, "_render", lambda *args: rendered.append(1) or render(*args))  # type: ignore[func-returns-value]
    calls = [{"function": {"name": "f", "arguments": JSON}}]
    messages = [{"role": "assistant", "content": None, "tool_calls": calls}]
    with pytest.raises(InputError, match="stopped"):
        prompt(runner, f"{{{{ messages[0].content is none }}}}{ENDLESS}", messages)
    assert len(rendered) == 2  # whether it takes parts, and the messages


def test_a_template_that_fails_whatever_the_arguments_says_why(runner: MultimodalRunner) -> None:
    messages = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": JSON}}]}]
    with pytest.raises(InputError, match="chat template: never"):
        prompt(runner, "{{ raise_exception('never') }}", messages)
