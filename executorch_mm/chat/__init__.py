"""Chats: messages, a model's own template, and the runner's methods for them."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from executorch_mm.chat.chat import ChatOptions
    from executorch_mm.chat.template import ChatTemplate, Message
    from executorch_mm.chat.tools import Tool

# A runner comes with the methods; what makes prompts is imported with the first chat.
_LATER = {
    "ChatOptions": "executorch_mm.chat.chat",
    "ChatTemplate": "executorch_mm.chat.template",
    "Message": "executorch_mm.chat.template",
    "Tool": "executorch_mm.chat.tools",
}

__all__ = ["ChatOptions", "ChatTemplate", "Message", "Tool"]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
