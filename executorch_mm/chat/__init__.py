"""Chats: messages, a model's own template, and the runner's methods for them."""

from executorch_mm.chat.chat import ChatOptions
from executorch_mm.chat.template import ChatTemplate, Message, Tool

__all__ = ["ChatOptions", "ChatTemplate", "Message", "Tool"]
