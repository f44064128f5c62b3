"""What came of a request, to compare ways of generating that promise the same."""

from __future__ import annotations

from typing import Any

from executorch_mm import MultimodalRunner, Session


def outcome_of(runner: MultimodalRunner | Session, prompt: object, **options: Any) -> dict[str, Any]:
    """An answer of 24 tokens, where nothing else is said, and all that is left of the request."""
    result = runner.generate_result(
        prompt,  # type: ignore[arg-type]
        **{"max_new_tokens": 24, "ignore_eos": True, "logprobs": 2, **options},
    )
    return {
        "text": result.text,
        "tokens": result.token_ids,
        "reason": result.finish_reason,
        "stopped_by": result.stopped_by,
        "history": runner.history,
        "position": runner.position,
        "logprobs": result.logprobs,
        "stats": result.stats,
    }
