"""How long a model may think before it answers."""

from __future__ import annotations

from executorch_mm._engine.reply import ThinkingBudget
from executorch_mm._tokenizers.inside import encode_inside
from executorch_mm.errors import InputError
from executorch_mm.tokenizer import Tokenizer


def thinking_budget(num_tokens: int, end: str, tokenizer: Tokenizer) -> ThinkingBudget:
    """A budget with the tokens that end thinking.

    Args:
        num_tokens: Of an answer.
        end: What ends thinking; empty where nothing is known to.
        tokenizer: Of the model.

    Raises:
        InputError: There is no such text, or the tokenizer has no tokens for it.
    """
    token = tokenizer.token_to_id(end) if end else None
    ids = [token] if token is not None else encode_inside(tokenizer, end) if end else None
    if not ids:
        raise InputError(
            "thinking_budget: expected a model whose files say what ends its thinking (a chat template with "
            "<think>, or a response_template), got another"
        )
    return ThinkingBudget(num_tokens, tuple(ids))
