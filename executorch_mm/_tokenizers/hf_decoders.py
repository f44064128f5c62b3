"""The decoder section of a tokenizer.json, turned into a rule for single tokens where that is possible.

A rule says which bytes one token stands for, given how much of the rule for the beginning of the text is left
(see `utf8.PieceDecoder`). All decoders of published causal language models are of this kind. For the others
(`compile_decoder` gives None) the adapter compares decodings of a window of ids.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

TokenRule = Callable[[str, int], tuple[bytes, int]]


@dataclass(frozen=True)
class DecoderRule:
    """How tokens become text.

    Attributes:
        rule: (token as spelled in the vocabulary, start) -> (bytes, next start).
        start: The first `start`.
        mark_each_byte: Broken UTF-8 gives one U+FFFD per byte.
        is_byte_level: A letter stands for a byte, in tokens of the model's own.
    """

    rule: TokenRule
    start: int = 0
    mark_each_byte: bool = False
    is_byte_level: bool = False


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in for each byte: itself where printable, else a letter from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def byte_level_bytes(token: str) -> bytes:
    """The bytes of a byte-level token; a token spelled otherwise (an added one) is its own text."""
    alphabet = byte_alphabet()
    try:
        return bytes([alphabet[char] for char in token])
    except KeyError:
        return token.encode("utf-8")


def byte_token_value(token: str) -> int | None:
    """The byte of a byte-fallback token such as <0xE2>, else None."""
    match = _BYTE_TOKEN.fullmatch(token)
    return int(match[1], 16) if match else None


def compile_decoder(spec: Mapping[str, object] | None) -> DecoderRule | None:
    """The rule for a decoder section, or None when single tokens are not enough to decode with it."""
    if spec is None:
        return DecoderRule(_joined_by_spaces, start=1)
    kind = spec.get("type")
    if kind == "ByteLevel":
        return DecoderRule(lambda token, _start: (byte_level_bytes(token), 0), is_byte_level=True)
    if kind == "Metaspace":
        return _metaspace(spec)
    if kind == "WordPiece":
        return _word_piece(str(spec.get("prefix", "##")), cleanup=bool(spec.get("cleanup", True)))
    if kind == "Sequence":
        steps = spec.get("decoders")
        return (
            _sequence([step for step in steps if isinstance(step, dict)]) if isinstance(steps, list) else None
        )
    return _sequence([spec])


def _joined_by_spaces(token: str, start: int) -> tuple[bytes, int]:
    return (token if start else " " + token).encode("utf-8"), 0


def _metaspace(spec: Mapping[str, object]) -> DecoderRule:
    mark = str(spec.get("replacement", "\u2581"))
    # `tokenizers` drops every mark of the first token when the scheme is to prepend one.
    prepends = (
        spec.get("prepend_scheme", "always" if spec.get("add_prefix_space", True) else "never") != "never"
    )

    def rule(token: str, start: int) -> tuple[bytes, int]:
        return token.replace(mark, "" if start else " ").encode("utf-8"), 0

    return DecoderRule(rule, start=1 if prepends else 0)


def _word_piece(prefix: str, *, cleanup: bool) -> DecoderRule:
    # The spaces that tokenisation put before punctuation and contractions, taken out again in this order.
    spaced = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " do not", " 's", " 've", " 're")
    closed = (".", "?", "!", ",", "'", "n't", "'m", " don't", "'s", "'ve", "'re")

    def rule(token: str, start: int) -> tuple[bytes, int]:
        if not start:
            token = token[len(prefix) :] if prefix and token.startswith(prefix) else " " + token
        if cleanup:
            for old, new in zip(spaced, closed, strict=True):
                token = token.replace(old, new)
        return token.encode("utf-8"), 0

    return DecoderRule(rule, start=1)


def _sequence(steps: list[dict[str, object]] | list[Mapping[str, object]]) -> DecoderRule | None:
    """Llama's and Gemma's chain: Replace..., ByteFallback?, Fuse?, Strip? (then on the whole text)."""
    if [step.get("type") for step in steps] == ["ByteLevel"]:
        return compile_decoder(steps[0])
    replacements: list[tuple[str, str]] = []
    has_bytes = fused = False
    strip = 0
    for step in steps:
        kind = step.get("type")
        pattern = step.get("pattern")
        if (
            kind == "Replace"
            and isinstance(pattern, dict)
            and "String" in pattern
            and not (has_bytes or fused)
        ):
            replacements.append((str(pattern["String"]), str(step.get("content", ""))))
        elif kind == "ByteFallback" and not fused:
            has_bytes = True
        elif kind == "Fuse" and not strip:
            fused = True
        elif kind == "Strip" and fused and not strip and step.get("content") == " " and not step.get("stop"):
            start = step.get("start")
            strip = start if isinstance(start, int) else 0
        else:
            return None

    def rule(token: str, start: int) -> tuple[bytes, int]:
        for old, new in replacements:
            token = token.replace(old, new)
        byte = byte_token_value(token) if has_bytes else None
        piece = token.encode("utf-8") if byte is None else bytes([byte])
        return strip_leading_spaces(piece, start)

    return DecoderRule(rule, start=strip, mark_each_byte=has_bytes)


def strip_leading_spaces(piece: bytes, at_most: int) -> tuple[bytes, int]:
    """Drops spaces at the front; the second value is how many more a following piece may lose."""
    stripped = piece[:at_most].lstrip(b" ") + piece[at_most:]
    if stripped:
        return stripped, 0
    return b"", at_most - len(piece)
