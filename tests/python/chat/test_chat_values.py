"""What messages, tools and options are made of: the template sees plain data, exact, or nothing at all."""

from __future__ import annotations

import collections
import datetime as dt
import decimal
import enum
import json
import pathlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import MultimodalRunner
from executorch_mm.chat import ChatOptions, ChatTemplate
from executorch_mm.chat.messages import read_messages
from executorch_mm.errors import InputError
from message_cases import ASKED, CALL, CASES, THOUGHTS, Dumped, Part, Role, Said, Words

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "data" / "chat" / "messages.json").read_text(encoding="utf-8")
)
HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("name", CASES)
def test_a_template_gives_what_transformers_renders_of_values_of_any_kind(name: str) -> None:
    case = CASES[name]
    template = ChatTemplate(case.template)
    rendered = template.render(
        case.messages, tools=case.tools, documents=case.documents, options=case.options
    )
    assert rendered == GOLDEN[name]


class Plain(enum.Enum):  # transformers writes "<Plain>" of a member
    USER = "user"
    ONE = 1
    NESTED = ("a", {"b": 1.5})


def test_members_of_an_enum_of_no_type_are_their_values() -> None:
    template = ChatTemplate("{{ messages[0].role }} {{ x | tojson }}")
    messages: Any = [{"role": Plain.USER, "content": "a"}]
    assert (
        template.render(messages, options={"x": [Plain.ONE, Plain.NESTED]}) == 'user [1, ["a", {"b": 1.5}]]'
    )


def test_sequences_that_are_no_lists_are_lists() -> None:
    for given in (collections.deque([1, 2]), collections.UserList([1, 2])):
        assert ChatTemplate("{{ x | tojson }}").render(HELLO, options={"x": given}) == "[1, 2]"


@pytest.mark.parametrize(
    "name", [name for name in CASES if CASES[name].options == {} and not CASES[name].documents]
)
def test_a_chat_reads_the_same_messages(name: str) -> None:
    """Content is a list of parts where it was one, and images are left out here."""
    case = CASES[name]
    if "image" in name:
        return
    messages = read_messages(case.messages).messages
    assert ChatTemplate(case.template).render(messages, tools=case.tools) == GOLDEN[name]


REFUSED = [
    pathlib.PurePosixPath("x"),
    b"bytes",
    bytearray(b"bytes"),
    np.zeros(2),
    np.array(3),
    np.datetime64("2020-01-01"),
    np.timedelta64(3, "s"),
    np.complex64(1),
    np.void(b"a"),
    decimal.Decimal(1),
    dt.datetime(2020, 1, 1),
    {1, 2},
    range(3),
    (letter for letter in "ab"),
    {"a": 1}.keys(),
    1j,
    print,
    Said,
    object(),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_what_is_no_plain_data_is_refused_with_its_place(value: object) -> None:
    kind = type(value).__name__
    nested = {"a": [0, {"b c": value}]}
    template = ChatTemplate("{{ x }}")
    expected = "expected text, a number, a bool, None, or lists and mappings of them, got " + kind
    with pytest.raises(InputError, match=re.escape(f"template_options.x.a[1]['b c']: {expected}")):
        template.render(HELLO, options={"x": nested})
    with pytest.raises(InputError, match=re.escape(f"messages[1].extra.a[1]['b c']: {expected}")):
        template.render([*HELLO, {**HELLO[0], "extra": nested}])
    with pytest.raises(InputError, match=re.escape(f"messages[1].extra.a[1]['b c']: {expected}")):
        read_messages([*HELLO, {**HELLO[0], "extra": nested}])
    with pytest.raises(InputError, match=re.escape(f"tools[0].function.a[1]['b c']: {expected}")):
        template.render(HELLO, tools=[{"function": nested}])
    with pytest.raises(InputError, match=re.escape(f"documents[0].text.a[1]['b c']: {expected}")):
        template.render(HELLO, documents=[{"text": nested}])


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_text_of_no_plain_data_is_refused_with_its_place(value: Any) -> None:
    place = re.escape("messages[2].content[0].text")
    with pytest.raises(InputError, match=f"^{place}: expected a text, got {type(value).__name__}"):
        read_messages([*HELLO, *HELLO, {"role": "user", "content": [{"type": "text", "text": value}]}])
    with pytest.raises(InputError, match=f"^{place}: expected text"):
        ChatTemplate("x").render(
            [*HELLO, *HELLO, {"role": "user", "content": [{"type": "text", "text": value}]}]
        )
    with pytest.raises(InputError, match=r"^messages\[0\]\.role: expected text"):
        read_messages([{"role": value, "content": "a"}])
    with pytest.raises(
        InputError, match=r"^messages\[0\]\.content: expected a text or a list of parts, got "
    ):
        read_messages([{"role": "user", "content": value}])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({(1, 2): 3}, "x: expected keys that are text or numbers, got tuple"),
        ({b"a": 3}, "x: expected keys that are text or numbers, got bytes"),
        (Dumped(a=print), "x.a: expected text"),
        (Dumped(a=Dumped(b=[print])), "x.a.b[0]: expected text"),
        (Said(Role.USER, "a", [print]), "x.tool_calls[0]: expected text"),
    ],
)
def test_places_lead_through_keys_dataclasses_and_models(value: object, message: str) -> None:
    with pytest.raises(InputError, match=f"^template_options.{re.escape(message)}"):
        ChatTemplate("{{ x }}").render(HELLO, options={"x": value})


def test_values_without_an_end_and_models_that_fail_are_refused() -> None:
    around: list[object] = []
    around.append(around)

    class Failing:
        def model_dump(self) -> dict[str, object]:
            raise RuntimeError("no more")

    for value, message in ((around, "at most 200 lists and mappings in each other"), (Failing(), "no more")):
        with pytest.raises(InputError, match=message):
            ChatTemplate("{{ x }}").render(HELLO, options={"x": value})
        with pytest.raises(InputError, match=message):
            read_messages([{"role": "user", "content": "a", "x": value}])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"messages": "hello"}, "messages: expected a list of messages, got str"),
        (
            {"messages": (message for message in HELLO)},
            "messages: expected a list of messages, got generator",
        ),
        ({"messages": HELLO[0]}, "messages: expected a list of messages, got dict"),
        ({"messages": [5]}, "messages[0]: expected a mapping with role and content, got int"),
        ({"messages": [Said]}, "messages[0]: expected a mapping with role and content, got type"),
        ({"documents": {"a": 1}}, "documents: expected a list of mappings, got dict"),
        ({"documents": ["a"]}, "documents[0]: expected a mapping with title and text, got str"),
        ({"options": [1]}, "template_options: expected a mapping, got list"),
        ({"options": {1: 2}}, "template_options: expected names of variables"),
        ({"now": "today"}, "now: expected a datetime, got str"),
    ],
)
def test_other_things_than_lists_and_mappings_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        ChatTemplate("{{ x }}").render(**{"messages": HELLO, **given})


def test_values_of_the_caller_are_left_as_they_are() -> None:
    content = [Part("a")]
    message = Said(Role.ASSISTANT, content, [Dumped(**CALL)])  # type: ignore[arg-type]
    read_messages([message])
    ChatTemplate("{{ messages[0] | tojson }}").render([message])  # type: ignore[list-item]
    assert message.content is content
    assert message.role is Role.ASSISTANT
    assert isinstance(message.tool_calls[0], Dumped)  # type: ignore[index]


def test_models_of_pydantic_are_messages_parts_and_options() -> None:
    pydantic = pytest.importorskip("pydantic")
    Message = pydantic.create_model("Message", role=(Role, ...), content=(Any, None), tool_calls=(Any, None))  # noqa: N806
    TextPart = pydantic.create_model("TextPart", type=(str, "text"), text=(str, ...))  # noqa: N806
    Listed = pydantic.RootModel[list[int]]  # noqa: N806
    message = Message(role="user", content=[TextPart(text="a")])
    conversation = read_messages([message])
    assert conversation.messages[0]["role"] == "user"
    assert conversation.messages[0]["content"] == [{"type": "text", "text": "a"}]
    template = ChatTemplate("{{ messages[0] | tojson }} {{ x | tojson }}")
    assert template.render([message], options={"x": Listed([1, 2])}) == (
        '{"role": "user", "content": [{"type": "text", "text": "a"}]} [1, 2]'
    )


# Content of None.

DEEPSEEK = (  # as its templates ask: transformers has left None out and fails
    "{% for m in messages %}{% if m['role'] == 'assistant' and m['content'] is none %}"
    "{% for c in m['tool_calls'] %}calls {{ c['function']['name'] }}{% endfor %}{% endif %}"
    "{% if m['role'] == 'assistant' and m['content'] is not none %}says {{ m['content'] + '' }}"
    "{% endif %}{% endfor %}"
)
ASKS = {
    "is none": "{% if m.content is none %}N{% endif %}",
    "is not none": "{% if m.content is not none %}{% else %}N{% endif %}",
    "not ... is none": "{% if not m['content'] is none %}{% else %}N{% endif %}",
    "== none": "{% if m.content == none %}N{% endif %}",
    "!= None": "{% if None != m.content %}{% else %}N{% endif %}",
    "sameas": "{% if m.content is sameas none %}N{% endif %}",
    "get": "{% if m.get('content') is none %}N{% endif %}",
    "a variable": "{% set text = m.content %}{% set other = text %}{% if other is none %}N{% endif %}",
    "a namespace": "{% set ns = namespace() %}{% set ns.x = m.content %}{% if ns.x is none %}N{% endif %}",
    "a macro": "{% macro f(x, y) %}{% if y is none %}N{% endif %}{% endmacro %}{{ f(1, m.content) }}",
    "a macro's keyword": "{% macro f(y) %}{% if y is none %}N{% endif %}{% endmacro %}{{ f(y=m.content) }}",
}


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize("given", [{"content": None}, {}])
def test_content_of_none_stays_none_for_a_template_that_asks(name: str, given: dict[str, object]) -> None:
    message = {"role": "assistant", **given, "tool_calls": [CALL]}
    template = ChatTemplate("{% for m in messages %}" + ASKS[name] + "{% endfor %}")
    assert template.render(read_messages([message]).messages) == "N"


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ m.content is defined }}{{ m.content }}{% endfor %}",
        "{% if tools is none %}{% set m = messages[0] %}{{ m.content is defined }}{{ m.content }}{% endif %}",
        "{% set m = messages[0] %}{% if m.name is none %}x{% endif %}{{ 'content' in m }}{{ m.content }}",
    ],
)
def test_content_of_none_is_left_out_for_the_others(source: str) -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert ChatTemplate(source).render([message]) == "False"


def test_a_message_that_only_calls_tools_is_not_lost() -> None:
    messages = [ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    assert ChatTemplate(DEEPSEEK).render(messages) == "calls f"
    assert ChatTemplate(DEEPSEEK).render([{"role": "assistant", "content": "x"}]) == "says x"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        # Of templates that would fail, the next best: nothing instead of no content.
        ("{{ '<' + messages[0].content + '>' }}", "<>"),
        ("{{ messages[0].content | tojson }}", '""'),
        (
            "{% set m = messages[0] %}{{ m.content is none and m.content | length }}{{ m.content.strip() }}",
            "False",
        ),
        (
            "{% set part = messages[0].content[0] %}{{ part.type + part.text }}",
            "text",
        ),
    ],
)
def test_a_template_that_needs_content_gets_an_empty_one(source: str, expected: str) -> None:
    assert (
        ChatTemplate(source).render([{"role": "assistant", "content": None, "tool_calls": [CALL]}])
        == expected
    )


# What the model has thought.


@pytest.mark.parametrize("given", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_reach_a_template_that_reads_the_name_that_transformers_leaves_out(given: str) -> None:
    messages = [ASKED, {"role": "assistant", "content": "4", given: "Two and two."}]
    for read in ("m.reasoning", "m['reasoning']", "m.get('reasoning')", "(m.reasoning if 'reasoning' in m)"):
        source = THOUGHTS.replace("m.NAME", read)
        assert ChatTemplate(source).render(messages).endswith("[Two and two.]4")
    assert "reasoning" not in ChatTemplate("{{ messages[1].keys() | list }}").render(
        [ASKED, {"role": "assistant", "content": "4", "thinking": "a"}]
    ).replace("reasoning_content", "")


def test_thoughts_of_earlier_answers_reach_the_model(runner: MultimodalRunner) -> None:
    source = "{% for m in messages %}{{ m.reasoning or '' }}{{ m.content }} {% endfor %}"
    for given in ("reasoning_content", "thinking", "reasoning"):
        messages = [
            {"role": "assistant", "content": "red", given: "blue "},
            {"role": "user", "content": "circle"},
        ]
        runner.chat(messages, chat_options=ChatOptions(template=source), max_new_tokens=1)
        assert runner.tokenizer.decode(runner.history).startswith("blue red circle")
        runner.reset()


@dataclass
class Turn:
    role: Role
    content: Any


def test_a_chat_takes_messages_of_any_kind(runner: MultimodalRunner) -> None:
    plain = runner.chat([{"role": "user", "content": "how many shapes are there?"}], max_new_tokens=3)
    history = runner.history
    for message in (
        Turn(Role.USER, Words("how many shapes are there?")),
        Turn(Role.USER, [Part("how many shapes are there?")]),
        Dumped(role=Role.USER, content="how many shapes are there?", tool_calls=None),
        collections.UserDict(role=np.str_("user"), content="how many shapes are there?"),
    ):
        runner.reset()
        messages: Any = (message,)
        assert runner.chat(messages, max_new_tokens=3).token_ids == plain.token_ids
        assert runner.history == history
