"""A request for /v1/responses, as one for a chat completion."""

from __future__ import annotations

from typing import Any, NamedTuple

from executorch_mm._openai import schemas
from executorch_mm._openai.chat_request import LABELS
from executorch_mm._openai.failures import invalid
from executorch_mm._openai.fields import Fields, Schema
from executorch_mm.errors import shown

_SAME = ("model", "temperature", "top_p", "tool_choice", "stream", "top_k", "seed", "chat_template_kwargs")
_SCHEMAS: dict[str, Schema] = {
    "model": {"type": "string"},
    "stream": {"type": "boolean"},
    "chat_template_kwargs": {"type": "object"},
    "tool_choice": schemas.RESPONSE_TOOL_CHOICE,
}
_TEXTS = ("input_text", "output_text", "text")


class Keeping(NamedTuple):
    """What a request says of what is kept.

    Attributes:
        previous: The id of the response from which it goes on; None for a new conversation.
        stores: Whether its own response is kept.
        instructions: The message that begins its prompt and is not kept; None where there is none.
        metadata: What the client notes with it.
    """

    previous: str | None
    stores: bool
    instructions: str | None
    metadata: dict[str, Any]


def as_chat(fields: Fields) -> tuple[Fields, Keeping]:
    """The same as fields of a chat completion, without instructions and what went before.

    Args:
        fields: Of the request's body.

    Raises:
        ApiError: 400, a field is wrong, or asks for something that is not there.
    """
    given = {name: fields.take(name, _SCHEMAS.get(name)) for name in _SAME}
    given["messages"] = _messages(fields)
    given["max_completion_tokens"] = fields.integer("max_output_tokens", 1)
    given["tools"] = [
        _tool(tool, index) for index, tool in enumerate(fields.items("tools", schemas.RESPONSE_TOOL) or ())
    ]
    choice = given["tool_choice"]
    if isinstance(choice, dict) and isinstance(choice.get("name"), str):
        given["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    text = fields.fields("text")
    if text is not None and (wanted := text.fields("format")) is not None:
        given["response_format"] = _format(wanted.values)
    metadata = fields.fields("metadata")
    keeping = Keeping(
        fields.text("previous_response_id"),
        fields.flag("store", default=True),
        fields.text("instructions"),
        {} if metadata is None else dict(metadata.values),
    )
    for name in ("conversation", "prompt"):
        fields.refuse(name, "expected none: previous_response_id names what is kept here")
    fields.refuse("background", "answers are given at once", False)
    fields.refuse("reasoning", "expected none: chat_template_kwargs has what the model knows", {})
    fields.ignore(*LABELS, "include", "truncation", "max_tool_calls", "stream_options")
    fields.finish()
    return Fields({name: value for name, value in given.items() if value is not None}), keeping


def _messages(fields: Fields) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    given = fields.take("input", schemas.RESPONSE_INPUT)
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if given is None:
        raise invalid("input", "expected a text or items, got none", "missing_required_parameter")
    if not isinstance(given, list) or not given:
        raise invalid("input", f"expected a text or a list of items, got {shown(given)}")
    for index, item in enumerate(given):
        _add(item, f"input[{index}]", messages)
    return messages


def _add(item: Any, where: str, messages: list[dict[str, Any]]) -> None:
    """Adds an item of the input to the messages."""
    if not isinstance(item, dict):
        raise invalid(where, f"expected an object, got {shown(item)}")
    kind = item.get("type", "message")
    if kind == "message":
        messages.append({"role": item.get("role"), "content": _content(item.get("content"), where)})
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        if messages and "tool_calls" in messages[-1]:
            messages[-1]["tool_calls"].append(call)
        else:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    elif kind == "function_call_output":
        content = _content(item.get("output"), where)
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
    elif kind != "reasoning":  # which is the model's own, and of an answer that is over
        expected = "expected message, function_call, function_call_output or reasoning"
        raise invalid(f"{where}.type", f"{expected}, got {shown(kind)}")


def _content(content: Any, where: str) -> Any:
    if not isinstance(content, list):
        return content
    return [_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)]


def _part(part: Any, where: str) -> Any:
    if not isinstance(part, dict):
        raise invalid(where, f"expected an object, got {shown(part)}")
    kind = part.get("type")
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part.get("image_url")}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part.get("input_audio")}
    raise invalid(f"{where}.type", f"expected input_text, input_image or input_audio, got {shown(kind)}")


def _tool(tool: Any, index: int) -> Any:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        raise invalid(f"tools[{index}]", f"expected an object of the type function, got {shown(tool)}")
    names = ("name", "description", "parameters", "strict")
    return {
        "type": "function",
        "function": {name: tool[name] for name in names if tool.get(name) is not None},
    }


def _format(wanted: Any) -> Any:
    if wanted.get("type") != "json_schema":
        return wanted
    return {
        "type": "json_schema",
        "json_schema": {"name": wanted.get("name"), "schema": wanted.get("schema")},
    }
