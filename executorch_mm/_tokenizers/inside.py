"""Texts as a model writes them in the middle of others."""

from __future__ import annotations

from executorch_mm._tokenizers.hf import HFWindowTokenizer
from executorch_mm._tokenizers.protocol import Tokenizer
from executorch_mm.errors import InputError

_MARK = "\x02"  # begins a text, so that what follows it is encoded as the middle of one
_MOST_MARK_TOKENS = 4


def expect_texts_of_tokens(tokenizer: Tokenizer, what: str) -> None:
    """Refuses tokenizers whose tokens have no text each.

    Args:
        tokenizer: Any.
        what: The argument that needs one that has, for messages.

    Raises:
        InputError: It decodes tokens together.
    """
    if isinstance(tokenizer, HFWindowTokenizer):
        raise InputError(
            f"{what}: expected a tokenizer whose tokens have a text each, got {tokenizer!r}, which decodes "
            "them together"
        )


def encode_inside(tokenizer: Tokenizer, text: str) -> list[int] | None:
    """Tokens with exactly the bytes of a text; None where there are none, or a control token is among them.

    Args:
        tokenizer: One whose tokens have a text each.
        text: Not the beginning of another, where some tokenizers add a space.

    Raises:
        TokenizerError: The text has a lone surrogate.
    """
    ids = tokenizer.encode(text)  # which refuses halves of surrogate pairs
    wanted = text.encode("utf-8")
    if _spells(tokenizer, ids, wanted):
        return ids
    # Tokenizers that begin a text with a space, which they do only there.
    marked = tokenizer.encode(_MARK + text)
    for begin in range(1, _MOST_MARK_TOKENS + 1):
        if _spells(tokenizer, marked[begin:], wanted):
            return marked[begin:]
    return None


def _spells(tokenizer: Tokenizer, ids: list[int], wanted: bytes) -> bool:
    return not any(map(tokenizer.is_special, ids)) and b"".join(map(tokenizer.token_bytes, ids)) == wanted
