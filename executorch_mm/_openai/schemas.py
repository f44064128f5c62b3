"""JSON schemas of fields that are more than a type and a range, for the description of the server.

What they say is checked where the fields are read; tests hold them to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executorch_mm._openai.fields import Schema

_TEXT: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}


def _typed(kind: str, **fields: Schema) -> Schema:
    """An object with a type and with fields."""
    return {
        "type": "object",
        "properties": {"type": {"const": kind}, **fields},
        "required": ["type", *fields],
    }


def _several(*each: Schema) -> Schema:
    return {"type": "array", "items": each[0] if len(each) == 1 else {"anyOf": list(each)}}


_URL: Schema = {"anyOf": [_TEXT, {"type": "object", "properties": {"url": _TEXT}, "required": ["url"]}]}
_CLIP: Schema = {"type": "object", "properties": {"data": _TEXT, "format": _TEXT}, "required": ["data"]}
_IMAGE_PART = _typed("image_url", image_url=_URL)
_PART: Schema = {
    "anyOf": [_typed("text", text=_TEXT), _IMAGE_PART, _typed("input_audio", input_audio=_CLIP), _TEXT]
}
_IDS: Schema = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}

MESSAGE: Schema = {
    "type": "object",
    "properties": {
        "role": {"type": "string", "minLength": 1, "examples": ["user", "assistant", "system", "tool"]},
        "content": {"anyOf": [_TEXT, {"type": "null"}, _several(_PART)]},
        "tool_calls": {"type": ["array", "null"], "items": _OBJECT},
        "tool_call_id": {"type": ["string", "null"]},
    },
    "required": ["role"],
}
TOOL: Schema = _typed(
    "function",
    function={
        "type": "object",
        "properties": {
            "name": _TEXT,
            "description": {"type": ["string", "null"]},
            "parameters": _OBJECT,
            "strict": {"type": ["boolean", "null"]},
        },
        "required": ["name"],
    },
)
RESPONSE_TOOL: Schema = _typed("function", name=_TEXT)
_NAMED: Schema = {"type": "object", "properties": {"name": _TEXT}, "required": ["name"]}
TOOL_CHOICE: Schema = {"anyOf": [_TEXT, _typed("function", function=_NAMED)]}
RESPONSE_TOOL_CHOICE: Schema = {"anyOf": [_TEXT, _typed("function", name=_TEXT)]}
STOP: Schema = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 64}]}
LOGIT_BIAS: Schema = {
    "type": "object",
    "patternProperties": {"^[0-9]{1,9}$": {"type": "number", "minimum": -100, "maximum": 100}},
    "additionalProperties": False,
}
FORMAT_TYPE: Schema = {"enum": ["text", "json_object", "json_schema"]}
PROMPT: Schema = {
    "anyOf": [
        _TEXT,
        _IDS,
        {"type": "array", "items": {"anyOf": [_TEXT, _IDS]}, "minItems": 1, "maxItems": 64},
    ]
}
EMBEDDED: Schema = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        _IMAGE_PART,
        {
            "type": "array",
            "items": {"anyOf": [{"type": "string", "minLength": 1}, _IMAGE_PART]},
            "minItems": 1,
            "maxItems": 2048,
        },
    ]
}
RESPONSE_INPUT: Schema = {
    "anyOf": [
        _TEXT,
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {
                            "type": {"const": "message"},
                            "role": {"type": "string", "minLength": 1},
                            "content": {
                                "anyOf": [
                                    _TEXT,
                                    _several(
                                        _typed("input_text", text=_TEXT),
                                        _typed("output_text", text=_TEXT),
                                        _typed("input_image", image_url=_TEXT),
                                        _typed("input_audio", input_audio=_CLIP),
                                    ),
                                ]
                            },
                        },
                        "required": ["role", "content"],
                    },
                    _typed("function_call", name=_TEXT, arguments=_TEXT, call_id=_TEXT),
                    _typed("function_call_output", output=_TEXT, call_id=_TEXT),
                    _typed("reasoning"),
                ]
            },
        },
    ]
}
TOKEN_ID: Schema = {"type": "integer", "minimum": 0}
FILE: Schema = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
