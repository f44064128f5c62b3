"""What a request for a chat completion asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from executorch_mm._openai import schemas
from executorch_mm._openai.failures import ApiError, invalid
from executorch_mm._openai.fields import Fields
from executorch_mm.chat import ChatOptions
from executorch_mm.config import GenerationConfig, GenerationOptions, with_options
from executorch_mm.errors import shown

# Of OpenAI's API, and those of `GenerationConfig` that it does not have; checked by `GenerationConfig`.
_SAMPLING = (
    *("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed"),
    *("top_k", "min_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size"),
    *("min_new_tokens", "include_stop", "ignore_eos"),
    *("prompt_lookup_num_tokens", "num_assistant_tokens"),
)
# They change nothing about an answer: labels, and where and how OpenAI's own machines compute it.
LABELS = (
    *("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"),
    *("store", "prediction", "parallel_tool_calls", "verbosity"),
)
_MOST_STOPS = 64
_MOST_TOP = 20
MOST_ANSWERS = 16
"""To one prompt."""
_TEXT_PARTS = ("text", None)


@dataclass(frozen=True)
class ChatRequest:
    """A chat that is to go on.

    Attributes:
        model: Its name.
        messages: The conversation.
        tools: What the model may call; None for nothing.
        config: How the answer is generated.
        count: Answers that are asked for.
        chat_options: How messages become a prompt.
        is_streamed: Whether the answer comes piece by piece.
        has_usage: Whether the counts of tokens end a stream.
    """

    model: str
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    config: GenerationConfig
    count: int
    chat_options: ChatOptions
    is_streamed: bool
    has_usage: bool


class ChatLimits(Protocol):
    """What may be asked for."""

    @property
    def max_media(self) -> int:
        """Images and audio clips in a request."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Tokens of an answer, whatever the request says; None for what the context holds."""
        ...

    @property
    def media_folder(self) -> str | os.PathLike[str] | None:
        """The folder of which messages may name files; None for none."""
        ...


def read_chat(
    fields: Fields, limits: ChatLimits, defaults: GenerationConfig | None = None, *, is_served: bool = False
) -> ChatRequest:
    """A request for /v1/chat/completions.

    Args:
        fields: Of its body.
        limits: What may be asked for.
        defaults: Of what the body does not say; None for those of `GenerationConfig`.
        is_served: Whether tools, several answers and logprobs may be asked for.

    Raises:
        ApiError: 400, a field is wrong; 413, there are too many images and audio clips.
        InputError: The same, of the fields of `GenerationConfig`.
    """
    model, messages, chat_options = read_prompt(fields, limits)
    if not is_served:
        fields.refuse("tools", "expected none: there are no tools here", [])
        fields.refuse("logprobs", "expected false: they are not given here", False)
    tools = _tools(fields)
    is_strict = any(tool["function"].get("strict") is True for tool in tools or ())
    chat_options = replace(
        chat_options, tool_choice=fields.take("tool_choice", schemas.TOOL_CHOICE), strict_tools=is_strict
    )
    count = fields.integer("n", 1, MOST_ANSWERS if is_served else 1) or 1
    logprobs = _logprobs(fields)
    fields.refuse("modalities", "expected ['text']", ["text"])
    fields.refuse("audio", "answers are text")
    fields.refuse("web_search_options", "nothing is searched here")
    fields.refuse("reasoning_effort", "expected none: chat_template_kwargs has what the model knows", "none")
    fields.ignore(*LABELS)
    is_streamed, has_usage = read_stream_options(fields)
    config = read_config(fields, ("max_completion_tokens", "max_tokens"), limits.max_tokens, defaults)
    config = config.replace(logprobs=logprobs)
    fields.finish()
    return ChatRequest(model, messages, tools, config, count, chat_options, is_streamed, has_usage)


def read_prompt(fields: Fields, limits: ChatLimits) -> tuple[str, list[dict[str, Any]], ChatOptions]:
    """The model's name, the conversation, and how it becomes a prompt.

    Args:
        fields: Of a request's body.
        limits: What may be asked for.

    Raises:
        ApiError: 400, a field is wrong; 413, there are too many images and audio clips.
    """
    model = required_model(fields)
    messages = _messages(fields, limits.max_media)
    template_options = fields.fields("chat_template_kwargs")
    chat_options = ChatOptions(
        allowed_local_media_path=limits.media_folder or "",
        template_options=None if template_options is None else template_options.values,
    )
    return model, messages, chat_options


def required_model(fields: Fields) -> str:
    """The name of the model.

    Raises:
        ApiError: 400, it is missing.
    """
    model = fields.text("model")
    if model is None:
        raise invalid(
            "model", "expected the name of a model: /v1/models lists them", "missing_required_parameter"
        )
    return model


def read_stream_options(fields: Fields) -> tuple[bool, bool]:
    """Whether an answer is streamed, and whether counts of tokens end it.

    Raises:
        ApiError: 400, a field is wrong.
    """
    is_streamed = fields.flag("stream")
    given = fields.fields("stream_options")
    if given is None:
        return is_streamed, False
    if not is_streamed:
        raise invalid("stream_options", "expected stream: true with it")
    has_usage = given.flag("include_usage")
    given.flag("include_obfuscation")
    given.finish()
    return is_streamed, has_usage


def read_config(
    fields: Fields,
    limit_names: tuple[str, ...],
    max_tokens: int | None = None,
    defaults: GenerationConfig | None = None,
) -> GenerationConfig:
    """How the answer is generated.

    Args:
        fields: Of the request's body.
        limit_names: Of the field that bounds the answer's tokens.
        max_tokens: As in `ChatLimits`.
        defaults: As in `read_chat`.

    Raises:
        ApiError, InputError: A field is wrong.
    """
    asked: dict[str, object] = {name: value for name in _SAMPLING if (value := fields.take(name)) is not None}
    if (ids := fields.items("stop_token_ids", schemas.TOKEN_ID)) is not None:
        asked["stop_token_ids"] = ids
    if (stop := _stops(fields.take("stop", schemas.STOP))) is not None:
        asked["stop"] = stop
    if (bias := fields.take("logit_bias", schemas.LOGIT_BIAS)) is not None:
        asked["logit_bias"] = _logit_bias(bias)
    if (wanted := fields.fields("response_format")) is not None:
        asked["response_format"] = _response_format(wanted)
    given = [limit for name in limit_names if (limit := fields.integer(name, 1)) is not None]
    if not given and defaults is not None and defaults.max_new_tokens != -1:
        given.append(defaults.max_new_tokens)
    if max_tokens is not None:
        given.append(max_tokens)
    if given:
        asked["max_new_tokens"] = min(given)
    return with_options(defaults, cast(GenerationOptions, asked))


def _tools(fields: Fields) -> list[dict[str, Any]] | None:
    fields.refuse("functions", "expected tools in their place", [])
    fields.refuse("function_call", "expected tool_choice in its place", "none", "auto")
    tools = fields.items("tools", schemas.TOOL)
    for index, tool in enumerate(tools or ()):
        where = f"tools[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise invalid(where, f"expected an object of the type function, got {shown(tool)}")
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise invalid(f"{where}.function", f"expected an object with a name, got {shown(function)}")
        if not isinstance(function.get("parameters", {}), dict):
            raise invalid(f"{where}.function.parameters", "expected a JSON schema in an object")
    return tools or None


def _logprobs(fields: Fields) -> int | None:
    is_asked, top = fields.flag("logprobs"), fields.integer("top_logprobs", 0, _MOST_TOP)
    if top is not None and not is_asked:
        raise invalid("top_logprobs", "expected logprobs: true with it")
    return (top or 0) if is_asked else None


def _messages(fields: Fields, max_media: int) -> list[dict[str, Any]]:
    messages = fields.items("messages", schemas.MESSAGE)
    if not messages:
        raise invalid("messages", "expected a list of messages, got none", "missing_required_parameter")
    read: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise invalid(f"messages[{index}]", f"expected an object, got {shown(message)}")
        if message.get("role") == "developer":  # OpenAI's newer word, which templates do not know
            message = {**message, "role": "system"}
        read.append(message)
    expect_few_media(read, max_media)
    return read


def expect_few_media(messages: Sequence[Mapping[str, Any]], most: int) -> None:
    """Refuses a conversation with too many images and audio clips.

    Args:
        messages: The conversation.
        most: Of them.

    Raises:
        ApiError: 413.
    """
    contents = [content for each in messages if isinstance(content := each.get("content"), list)]
    num_media = sum(_num_media(part) for content in contents for part in content)
    if num_media > most:
        message = f"messages: expected at most {most} images and audio clips, got {num_media}"
        raise ApiError(413, message, "messages", "too_many_media")


def _num_media(part: object) -> int:
    if not isinstance(part, dict) or part.get("type") in _TEXT_PARTS:
        return 0
    frames = part.get("video")
    return len(frames) if isinstance(frames, list) else 1


def _stops(value: object) -> object:
    if not isinstance(value, (str, list)) and value is not None:
        raise invalid("stop", f"expected a text or a list of texts, got {shown(value)}")
    if isinstance(value, list) and len(value) > _MOST_STOPS:
        raise invalid("stop", f"expected at most {_MOST_STOPS} texts, got {len(value)}")
    return value if value != [] else None


def _logit_bias(value: object) -> Mapping[int, object]:
    if not isinstance(value, dict):
        raise invalid("logit_bias", f"expected an object of token ids and numbers, got {shown(value)}")
    for token, bias in value.items():
        if not (token.isascii() and token.isdecimal() and len(token) < 10):
            raise invalid("logit_bias", f"expected token ids, got {shown(token)}")
        if isinstance(bias, bool) or not isinstance(bias, (int, float)) or not -100 <= bias <= 100:
            raise invalid("logit_bias", f"expected numbers of -100 to 100, got {shown(bias)}")
    return {int(token): bias for token, bias in value.items()}


def _response_format(wanted: Fields) -> dict[str, Any]:
    kind = wanted.take("type", schemas.FORMAT_TYPE)
    if kind not in ("text", "json_object", "json_schema"):
        raise invalid("response_format.type", f"expected text, json_object or json_schema, got {shown(kind)}")
    return dict(wanted.values)
