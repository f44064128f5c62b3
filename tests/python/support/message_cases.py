"""Messages of many kinds; tools/fixtures/chat/make_messages_golden.py has transformers render them."""

from __future__ import annotations

import collections
import enum
import types
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Role(str, enum.Enum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 7


class Share(float, enum.Enum):
    HALF = 0.5


class Words(str):
    """A text with a name of its own."""

    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


class Number(int):
    def __str__(self) -> str:
        return "not this"

    __repr__ = __str__


@dataclass
class Part:
    text: str
    type: str = "text"


@dataclass
class Said:
    role: Role
    content: str | list[Part] | None
    tool_calls: list[Any] | None = None
    name: str | None = None


class Dumped:
    """As pydantic's models are."""

    def __init__(self, **fields: object) -> None:
        self.fields = fields

    def model_dump(self) -> dict[str, object]:
        return self.fields


@dataclass
class Document:
    title: str
    text: str
    scores: list[Any] = field(default_factory=list)


class Pair(NamedTuple):
    left: int
    right: str


class Case(NamedTuple):
    template: str
    messages: list[Any]
    tools: list[Any] | None = None
    documents: list[Any] | None = None
    options: dict[str, Any] = {}  # noqa: RUF012


def _said(role: str, content: object, **more: object) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


SAID = (
    "{% for m in messages %}{% if m.role == 'user' %}U{% elif m.role == 'assistant' %}A{% else %}{{ m.role }}"
    "{% endif %}:{{ m.content }};{% endfor %}"
)
PARTS = (
    "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{{ p.type }}={{ p.text }},{% endfor %}"
    "{% endfor %}"
)
AS_JSON = "{% for m in messages %}{{ m | tojson }}{% endfor %}"
HAS = (
    "{% for m in messages %}{{ m.role }} {{ 'content' in m }} {{ m.content is defined }} "
    "{{ m.tool_calls is defined }} {{ m.name is defined }} {{ m.content }};{% endfor %}"
)
VALUES = (
    "{{ x }} {{ x | tojson }} {% if x %}yes{% else %}no{% endif %} {{ x is string }} {{ x is number }} "
    "{{ x is mapping }}"
)
THOUGHTS = "{% for m in messages %}[{{ m.NAME }}]{{ m.content }}{% endfor %}"
HELLO = [_said("user", "hello")]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
ASKED = _said("user", "where")
ANSWER = _said("tool", "here", tool_call_id="1")


def _value(value: object) -> Case:
    return Case(VALUES, HELLO, options={"x": value})


CASES = {
    "roles of an enum": Case(
        SAID, [_said(Role.USER, "a"), _said(Role.ASSISTANT, "b"), _said(Role.SYSTEM, "c")]
    ),
    "texts of an enum": Case(SAID, [_said("user", Role.TOOL)]),
    "texts of a class of its own": Case(SAID, [_said("user", Words("a < b"))]),
    "texts of numpy": Case(SAID, [_said(np.str_("user"), np.str_("a"))]),
    "types and texts of parts of an enum": Case(
        PARTS,
        [_said("user", [{"type": Words("text"), "text": Role.USER}, {"type": "text", "text": np.str_("b")}])],
    ),
    "messages of a dataclass": Case(SAID, [Said(Role.USER, "a"), Said(Role.ASSISTANT, "b")]),
    "parts of a dataclass": Case(PARTS, [Said(Role.USER, [Part("a"), Part("b")])]),
    "messages with model_dump": Case(SAID, [Dumped(role=Role.USER, content="a", refusal=None)]),
    "parts with model_dump": Case(PARTS, [_said("user", [Dumped(type="text", text="a")])]),
    "mappings that are no dict": Case(
        AS_JSON,
        [
            types.MappingProxyType(_said("user", "a")),
            collections.UserDict(_said("assistant", "b")),
            collections.ChainMap({"role": "user"}, {"content": "c"}),
        ],
    ),
    "a tuple of messages": Case(SAID, [_said("user", "a"), _said("user", "b")]),
    "fields of None are left out": Case(HAS, [_said("assistant", "a", tool_calls=None, name=None)]),
    "a dataclass's fields of None are left out": Case(HAS, [Said(Role.ASSISTANT, "a")]),
    "content of None, for a template that does not ask": Case(
        HAS, [_said("assistant", None, tool_calls=[CALL])]
    ),
    "as JSON, without None": Case(AS_JSON, [_said("assistant", None, tool_calls=[CALL], refusal=None)]),
    "a call in a dataclass": Case(AS_JSON, [ASKED, Said(Role.ASSISTANT, None, [Dumped(**CALL)]), ANSWER]),
    "numbers of an enum": _value(Level.HIGH),
    "a number of a class of its own": _value(Number(5)),
    "a float of an enum": _value(Share.HALF),
    "True of numpy": _value(np.bool_(True)),
    "False of numpy": _value(np.bool_(False)),
    "an integer of numpy": _value(np.int64(-3)),
    "an unsigned integer of numpy": _value(np.uint8(200)),
    "a float of numpy": _value(np.float32(0.1)),
    "a double of numpy": _value(np.float64(0.1)),
    "a half of numpy": _value(np.float16(0.5)),
    "zero of numpy": _value(np.int32(0)),
    "a tuple": _value((1, Role.USER, (np.int8(2), None))),
    "a named tuple": _value(Pair(1, "b")),
    "a list of everything": _value([Role.USER, Level.LOW, np.bool_(False), None, True, 1.5, {"a": (1,)}]),
    "a mapping of everything": _value(
        {Role.USER: Level.LOW, "b": np.float64(2.5), "c": Dumped(d=Document("t", "x"))}
    ),
    "numbers for keys": _value({1: "a", np.int64(2): "b"}),
    "a dataclass": _value(Document("t", Words("x"), [np.float32(0.5)])),
    "documents of enums and numpy": Case(
        "{% for d in documents %}{{ d.title }}/{{ d.text }}/{{ d | tojson }}{% endfor %}",
        HELLO,
        documents=[{"title": Words("t"), "text": "x", "score": np.float32(0.25), "level": Level.LOW}],
    ),
    "tools of enums and numpy": Case(
        "{{ tools | tojson }}",
        HELLO,
        tools=[
            {
                "type": Words("function"),
                "function": {"name": Role.TOOL, "strict": np.bool_(False), "n": np.int64(1)},
            }
        ],
    ),
    "an image is told by its type": Case(
        "{% for p in messages[0].content %}{{ p.type }} {{ 'image' in p }} {{ p.image is defined }};"
        "{% endfor %}",
        [
            _said(
                "user",
                [{"type": "image", "image": np.zeros((2, 2, 3), np.uint8)}, {"type": "text", "text": "a"}],
            )
        ],
    ),
    **{
        f"{given} for a template that reads {read}": Case(
            THOUGHTS.replace("NAME", read), [ASKED, _said("assistant", "4", **{given: "Two and two."}), ASKED]
        )
        for given in ("reasoning_content", "thinking", "reasoning")
        for read in ("reasoning_content", "thinking")
    },
    "two names of thoughts": Case(
        "{{ messages[0].reasoning_content }}/{{ messages[0].thinking }}",
        [_said("assistant", "4", thinking="a", reasoning="b")],
    ),
    "thoughts of None": Case(HAS, [_said("assistant", "4", thinking=None, reasoning_content=None)]),
    "thoughts as JSON": Case(AS_JSON, [_said("assistant", "4", reasoning_content="a")]),
    "arguments in a text, joined": Case(
        "{{ 'call ' + messages[0].tool_calls[0].function.arguments }}",
        [_said("assistant", "", tool_calls=[{"function": {"name": "f", "arguments": '{"a":  1}'}}])],
    ),
    "arguments in an object, as JSON": Case(
        "{{ messages[0].tool_calls[0].function.arguments | tojson }}",
        [
            _said(
                "assistant",
                "",
                tool_calls=[{"function": {"name": Role.TOOL, "arguments": {"a": np.int64(1)}}}],
            )
        ],
    ),
}
