"""One of many requests that are answered independently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from executorch_mm.chat.chat import ChatOptions
from executorch_mm.config import GenerationConfig
from executorch_mm.errors import InputError, shown

if TYPE_CHECKING:
    from executorch_mm.chat.template import Message
    from executorch_mm.chat.tools import Tool
    from executorch_mm.inputs import Prompt


@dataclass(frozen=True)
class BatchRequest:
    """A request for `map`, with options of its own.

    Attributes:
        prompt: As in `generate`; it starts a conversation.
        messages: Instead of it, a conversation as in `chat`.
        config: Options of this answer; None for those of `map`.
        tools: As in `chat`.
        chat_options: As in `chat`; None for those of `map`.

    Raises:
        InputError: Not one of `prompt` and `messages` is given, or a field is of another type.
    """

    prompt: Prompt | None = None
    messages: Sequence[Message] | str | None = None
    config: GenerationConfig | None = None
    tools: Sequence[Tool] | None = None
    chat_options: ChatOptions | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.messages is None):
            raise InputError("BatchRequest: expected one of prompt and messages, got both or none")
        if not isinstance(self.config, (GenerationConfig, type(None))):
            raise InputError(f"config: expected a GenerationConfig or None, got {shown(self.config)}")
        if not isinstance(self.chat_options, (ChatOptions, type(None))):
            raise InputError(f"chat_options: expected ChatOptions or None, got {shown(self.chat_options)}")
        if self.tools is not None and self.messages is None:
            raise InputError("tools: expected messages beside them, got a prompt")


AnyRequest: TypeAlias = "BatchRequest | Prompt | Sequence[Message]"


def as_batch_request(request: AnyRequest) -> BatchRequest:
    """A request with all that belongs to it: a list that begins with a mapping is messages.

    Raises:
        InputError: It is neither a prompt nor messages.
    """
    if isinstance(request, BatchRequest):
        return request
    if isinstance(request, (list, tuple)) and request and isinstance(request[0], Mapping):
        return BatchRequest(messages=request)
    if request is None:
        raise InputError("request: expected a prompt, messages or a BatchRequest, got None")
    return BatchRequest(prompt=request)  # type: ignore[arg-type]
