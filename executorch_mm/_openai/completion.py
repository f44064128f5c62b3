"""Answers to requests for chat completions."""

from __future__ import annotations

import secrets
import time

from executorch_mm._engine.result import GenerationResult
from executorch_mm.stats import Stats

# All that ends an answer before its end, but the end of the connection, is a limit.
_REASONS = {"stop": "stop"}


def completion(model: str, result: GenerationResult) -> dict[str, object]:
    """A whole answer.

    Args:
        model: Its name, as it was asked for.
        result: What it has said.
    """
    choice = {"message": message_of(result), "logprobs": None, "finish_reason": reason_of(result)}
    return {
        "id": new_id("chatcmpl-"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, **choice}],
        "usage": usage_of(result.stats),
    }


def reason_of(result: GenerationResult | None) -> str:
    """Why an answer ended; of one that has not begun, that it was cut short."""
    if result is not None and result.tool_calls and result.finish_reason == "stop":
        return "tool_calls"
    reason = None if result is None else result.finish_reason
    return _REASONS.get(reason or "", "length")


def message_of(result: GenerationResult) -> dict[str, object]:
    """An answer as a message: its content, what the model thought, what it calls."""
    message: dict[str, object] = {"role": "assistant", "content": result.content, "refusal": None}
    if result.thinking is not None:
        message["reasoning_content"] = result.thinking
    if result.tool_calls:
        message["content"] = result.content or None
        message["tool_calls"] = [call.to_dict() for call in result.tool_calls]
    return message


def usage_of(stats: Stats) -> dict[str, object]:
    """Counts of tokens as OpenAI's API gives them. Images and audio count by their positions.

    Args:
        stats: Of the answer.
    """
    prompt, answer = stats.num_prompt_tokens, stats.num_generated_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": stats.num_cached_tokens},
    }


def new_id(kind: str) -> str:
    """A name for an answer, or for a part of one.

    Args:
        kind: That it begins with, such as "chatcmpl-".
    """
    return f"{kind}{secrets.token_hex(12)}"
