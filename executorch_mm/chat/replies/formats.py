"""How answers are read whose model's files do not say it: by what its chat template writes itself."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, NamedTuple

from executorch_mm.chat.replies.call_lists import read_call_list
from executorch_mm.chat.replies.template import ReplyTemplate

_CALL = {"type": "function", "function": {"name": "{name}", "arguments": "{arguments}"}}
_AS_CALL = {"type": "function", "function": "{content}"}
_THINK: dict[str, Any] = {"open": "<think>", "close": "</think>"}
_MISTRAL_CALL = re.compile(r"\s*(?:\[TOOL_CALLS\]\s*)?([\w.-]+)\s*(?:\[CALL_ID\]\s*\w+\s*)?\[ARGS\]\s*")
_LLAMA_CALL = re.compile(r"\s*([\w.-]+)\.call\(")


class Format(NamedTuple):
    """Calls of tools as a family of models writes them.

    Attributes:
        name: Of the family.
        marks: Texts in its chat templates, all of which there must be.
        needs_tools: Whether an answer has calls only where it was given tools.
        calls: The field of a response template.
        anchor: Where an answer begins in a prompt.
    """

    name: str
    marks: tuple[str, ...]
    needs_tools: bool
    calls: dict[str, Any]
    anchor: dict[str, str]


def _json_calls(text: str) -> list[dict[str, object]]:
    """One call or a list of them, or several with ";" or line ends between."""
    decoder = json.JSONDecoder()
    calls: list[dict[str, object]] = []
    place, text = 0, text.strip()
    while place < len(text):
        value, place = decoder.raw_decode(text, place)
        for call in value if isinstance(value, list) else [value]:
            if not isinstance(call, dict) or "name" not in call:
                raise ValueError("no call")
            arguments = call.get("arguments", call.get("parameters", {}))
            calls.append({"name": call["name"], "arguments": arguments})
        while place < len(text) and text[place] in "; \n\t\r":
            place += 1
    return calls


def _mistral_calls(text: str) -> list[dict[str, object]]:
    """`[{"name": ..., "arguments": ...}]`, or `name[ARGS]{...}` as newer ones write it."""
    if (found := _MISTRAL_CALL.match(text)) is None:
        return _json_calls(text)
    calls: list[dict[str, object]] = []
    decoder = json.JSONDecoder()
    while found is not None:
        arguments, end = decoder.raw_decode(text, found.end())
        calls.append({"name": found[1], "arguments": arguments})
        found = _MISTRAL_CALL.match(text, end)
    if text[end:].strip():
        raise ValueError("more than calls")
    return calls


def _llama_calls(text: str) -> list[dict[str, object]]:
    """JSON, or `name.call(key="value")` for tools that the model knows by itself."""
    if (found := _LLAMA_CALL.match(text)) is None:
        return _json_calls(text)
    return read_call_list(f"[{found[1]}({text[found.end() :].strip()}]")


_HERMES = Format(
    "Hermes and Qwen, JSON",
    ("<tool_call>",),
    False,
    {
        "open": "<tool_call>",
        "close": "</tool_call>",
        "content": "json",
        "repeats": True,
        "transform": _AS_CALL,
    },
    {"start_anchor_pattern": r"<\|im_start\|>assistant\n|<\|start_of_role\|>assistant<\|end_of_role\|>"},
)
_QWEN_XML = _HERMES._replace(
    name="Qwen, XML",
    marks=("<tool_call>", "<function=", "<parameter="),
    calls={
        "open_pattern": r"<tool_call>\s*<function=(?P<name>[^>\s]+)>",
        "close_pattern": r"</function>\s*</tool_call>",
        "content": "xml-inline",
        "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\s]+)>\n?(?P<value>.*?)\n?</parameter>"},
        "repeats": True,
        "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
    },
)
_LISTED = {"repeats": True, "transform_each": True, "transform": _CALL}
_MISTRAL = Format(
    "Mistral",
    ("[TOOL_CALLS]",),
    False,
    {"open": "[TOOL_CALLS]", "close": "</s>", "content": "mistral calls", **_LISTED},
    {"start_anchor": "[/INST]"},
)
_LLAMA = Format(
    "Llama 3",
    ("<|start_header_id|>", "parameters"),
    True,
    {
        "open_pattern": r'<\|python_tag\|>|\A\s*(?=\{\s*"(?:name|type)"\s*:)',
        "close": ["<|eom_id|>", "<|eot_id|>"],
        "content": "llama calls",
        **_LISTED,
    },
    {"start_anchor": "<|start_header_id|>assistant<|end_header_id|>\n\n"},
)
_GEMMA_CALL = {
    "content": "json",
    "repeats": True,
    "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
}
_GEMMA = Format(
    "Gemma",
    ("<start_function_call>",),
    False,
    {
        "open_pattern": r"<start_function_call>\s*call:(?P<name>[^{\s]+)(?=\{)",
        "close": "<end_function_call>",
        "content_args": {"unquoted_keys": True, "string_delims": [["<escape>", "<escape>"]]},
        **_GEMMA_CALL,
    },
    {"start_anchor": "<start_of_turn>model\n"},
)
_GEMMA4 = _GEMMA._replace(
    name="Gemma 4",
    marks=("<|tool_call>",),
    calls={
        "open_pattern": r"<\|tool_call>\s*call:(?P<name>[^{\s]+)(?=\{)",
        "close": "<tool_call|>",
        "content_args": {"unquoted_keys": True, "string_delims": [['<|"|>', '<|"|>']]},
        **_GEMMA_CALL,
    },
    anchor={"start_anchor": "<|turn>model\n"},
)
_LFM2 = Format(
    "LFM2",
    ("<|tool_call_start|>",),
    False,
    {
        "open": "<|tool_call_start|>",
        "close": "<|tool_call_end|>",
        "content": "python-call-list",
        **_LISTED,
    },
    {"start_anchor": "<|im_start|>assistant\n"},
)
_GRANITE = _HERMES._replace(
    name="Granite",
    marks=("<|tool_call|>",),
    calls={"open": "<|tool_call|>", "close": "<|end_of_text|>", "content": "json calls", **_LISTED},
)
# Of two that fit, the first.
FORMATS = (_LFM2, _GEMMA4, _GEMMA, _GRANITE, _QWEN_XML, _HERMES, _MISTRAL, _LLAMA)
_PARSERS = {"json calls": _json_calls, "mistral calls": _mistral_calls, "llama calls": _llama_calls}
_CHANNEL = "<|channel>"  # Gemma 4's


@functools.lru_cache(maxsize=32)
def find_format(source: str, *, has_tools: bool) -> ReplyTemplate | None:
    """How a model's answers are read, going by its chat template; None where they are content alone.

    Args:
        source: Of the chat template.
        has_tools: Whether the model was given tools.
    """
    chosen = next((one for one in FORMATS if all(mark in source for mark in one.marks)), None)
    if chosen is not None and chosen.needs_tools and not has_tools:
        chosen = None
    thinks = "<think>" in source or "</think>" in source
    fields: dict[str, Any] = {"content": {}}
    if chosen is not None:
        fields["tool_calls"] = chosen.calls
    if _CHANNEL in source:
        fields["thinking"] = {"open_pattern": r"<\|channel>(?:thought)?\n?", "close": "<channel|>"}
    elif thinks:
        fields["thinking"] = _THINK
    if len(fields) == 1:
        return None
    anchor = _HERMES.anchor if chosen is None else chosen.anchor
    return ReplyTemplate.read({"fields": fields, **anchor}, _PARSERS)
