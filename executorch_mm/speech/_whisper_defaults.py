"""What OpenAI's decoder does where no generation_config.json says anything; faster-whisper does the same.

transformers without that file takes the lists of config.json, and with neither it forbids nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from executorch_mm.tokenizer import Tokenizer

# Steps of 0.02 s that the first time may be from the beginning: one second.
MAX_INITIAL_TIME = 50

# Signs that are written but not spoken: names of speakers, remarks, music.
_SIGNS = (
    *'"#()*+/:;<=>@[\\]^_`{|}~\u300c\u300d\u300e\u300f',
    *("<<", ">>", "<<<", ">>>", "--", "---", "-(", "-[", "('", '("', "((", "))", "(((", ")))", "[[", "]]"),
    *("{{", "}}", "\u266a\u266a", "\u266a\u266a\u266a"),
)
# Of several tokens each in most vocabularies, which have the first of them in common, and with nothing else.
_NOTES = "\u2669\u266a\u266b\u266c\u266d\u266e\u266f"
# Allowed in a word, not before one.
_INNER_SIGNS = (" -", " '")


def unspoken_tokens(tokenizer: Tokenizer, control: Iterable[int | None]) -> tuple[int, ...]:
    """Tokens that are never chosen.

    Args:
        tokenizer: Of the model.
        control: Tokens that steer the decoder and are no answer; None for one that the model has not.
    """
    tokens = {token for token in control if token is not None}
    for text in (*_INNER_SIGNS, *_SIGNS, *(f" {sign}" for sign in _SIGNS)):
        ids = tokenizer.encode(text)
        if len(ids) == 1:
            tokens.update(ids)
    for sign in _NOTES:
        for text in (sign, f" {sign}"):
            ids = tokenizer.encode(text)
            if 1 <= len(ids) < len(text.encode()):  # not byte by byte, where the first is that of many signs
                tokens.add(ids[0])
    return tuple(sorted(tokens))


def not_first_tokens(tokenizer: Tokenizer, ends: Iterable[int]) -> tuple[int, ...]:
    """Tokens that no text begins with: a space alone, and the end."""
    return tuple(sorted({*tokenizer.encode(" "), *ends}))
