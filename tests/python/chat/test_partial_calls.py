"""Calls are told of while they are written, in pieces that are what the whole call says."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_mm import CallPiece, Delta, InputError, ToolCall
from executorch_mm.chat import ChatOptions
from executorch_mm.chat.replies.formats import _PARSERS, FORMATS
from executorch_mm.chat.replies.reader import TemplateReader
from executorch_mm.chat.replies.template import ReplyTemplate

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "f",
        "parameters": {
            "type": "object",
            "properties": {
                "s": {"type": "string"},
                "n": {"type": "integer"},
                "o": {"type": ["string", "null"]},
            },
        },
    },
}


def template(family: str) -> ReplyTemplate:
    (chosen,) = (one for one in FORMATS if one.name.startswith(family))
    return ReplyTemplate.read(
        {"fields": {"content": {}, "tool_calls": chosen.calls}, **chosen.anchor}, _PARSERS
    )


def read(family: str, parts: list[str]) -> tuple[list[Delta], TemplateReader]:
    reader = TemplateReader(template(family), "", [TOOL], streams_arguments=True)
    deltas = [delta for part in parts for delta in reader.push(part)]
    return [*deltas, *reader.finish()], reader


def joined(deltas: list[Delta]) -> dict[str, str]:
    """The arguments of each call by its id, as its pieces tell them."""
    texts: dict[str, str] = {}
    for piece in (delta.call_piece for delta in deltas if delta.call_piece):
        texts[piece.id] = texts.get(piece.id, "") + piece.arguments
    return texts


def written(call: ToolCall) -> str:
    return str(call.to_dict()["function"]["arguments"])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ARGUMENTS = st.dictionaries(st.sampled_from(["s", "n", "o"]) | st.text(), VALUES, max_size=4)


@settings(deadline=None, max_examples=60)
@given(
    calls=st.lists(ARGUMENTS, min_size=1, max_size=3),
    family=st.sampled_from(["Hermes", "Mistral", "Granite"]),
    is_ascii=st.booleans(),
    indent=st.sampled_from([None, 1]),
    cuts=st.lists(st.integers(0, 200), max_size=20),
)
def test_pieces_joined_are_the_call(
    calls: list[Any], family: str, is_ascii: bool, indent: int | None, cuts: list[int]
) -> None:
    objects = [{"name": "f", "arguments": arguments} for arguments in calls]
    if family == "Hermes":
        texts = [json.dumps(each, ensure_ascii=is_ascii, indent=indent) for each in objects]
        text = "".join(f"<tool_call>{each}</tool_call>" for each in texts)
    else:
        begin = "[TOOL_CALLS]" if family == "Mistral" else "<|tool_call|>"
        text = begin + json.dumps(objects, ensure_ascii=is_ascii, indent=indent)
    places = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    parts = [text[start:end] for start, end in pairwise(places)]

    deltas, reader = read(family, parts)

    told = joined(deltas)
    # A delimiter in a text ends the part; then there may be calls that were begun and are none.
    for call in reader.reply().tool_calls:
        assert told[call.id] == written(call)
    if not any(mark in text for mark in ("</tool_call>}", "</s>", "\\ud", "<|end")):
        found = [dict(call.arguments) for call in reader.reply().tool_calls]
        assert len(found) in (0, len(calls))
    whole = TemplateReader(template(family), "", [TOOL])
    whole.push(text)
    whole.finish()
    assert [(each.name, each.arguments) for each in whole.reply().tool_calls] == [
        (each.name, each.arguments) for each in reader.reply().tool_calls
    ]
    assert whole.reply().content == reader.reply().content


def test_a_text_comes_character_by_character() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"s": "a\\n\\u00e4b", "n": "12", "o": "null"}}</tool_call>'

    deltas, reader = read("Hermes", list(text))

    pieces = [delta.call_piece.arguments for delta in deltas if delta.call_piece]
    assert pieces[:6] == ["{", '"s": "', "a", "\\n", 'äb"', ', "n": ']
    assert pieces[6:] == ["12", ', "o": ', "null", "}"]  # as the schema has them
    (call,) = reader.reply().tool_calls
    assert dict(call.arguments) == {"s": "a\n\u00e4b", "n": 12, "o": None}
    assert [delta.tool_call for delta in deltas if delta.tool_call] == [call]
    assert {delta.call_piece[:2] for delta in deltas if delta.call_piece} == {(call.id, "f")}


def test_newer_calls_of_mistral_are_told_too() -> None:
    deltas, reader = read("Mistral", list('[TOOL_CALLS]f[ARGS]{"n": 1}g[ARGS]{"a": [1, {"b": 2}]}'))
    calls = reader.reply().tool_calls
    assert [call.name for call in calls] == ["f", "g"]
    assert joined(deltas) == {call.id: written(call) for call in calls}


def test_what_turns_out_to_be_no_call_is_content_behind_its_pieces() -> None:
    deltas, reader = read("Hermes", ['<tool_call>{"name": "f", "arguments": {"s": "a', '" b}}</tool_call>x'])
    assert next(delta.call_piece for delta in deltas if delta.call_piece).arguments.startswith("{")
    assert reader.reply().tool_calls == ()
    assert reader.reply().content.startswith('<tool_call>{"name"')


@pytest.mark.parametrize("text", ['{"arguments": {"n": 1}, "name": "f"}', '{"name": "f"}', "[1"])
def test_other_forms_are_told_when_they_are_complete(text: str) -> None:
    deltas, _ = read("Hermes", list(f"<tool_call>{text}</tool_call>"))
    assert not [delta for delta in deltas if delta.call_piece]


def test_nothing_is_told_unless_it_is_asked_for() -> None:
    reader = TemplateReader(template("Hermes"), "", [TOOL])
    deltas = reader.push('<tool_call>{"name": "f", "arguments": {"n": 1}}</tool_call>')
    assert [delta.call_piece for delta in deltas] == [None]
    assert CallPiece._fields == ("id", "name", "arguments")
    with pytest.raises(InputError, match="stream_arguments: expected a bool"):
        ChatOptions(stream_arguments=1)  # type: ignore[arg-type]
