"""Words of tokens: where one ends and the next begins, as in Whisper's reference."""

from __future__ import annotations

import string
from collections.abc import Sequence

from executorch_mm._engine.text_stream import TextStream
from executorch_mm.speech.segment import Word
from executorch_mm.tokenizer import Tokenizer

# Languages that are written without spaces, by code.
_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
_BEFORE = "\"'\u201c\u00bf([{-\u00a1"
_BEHIND = "\"'.\u3002,\uff0c!\uff01?\uff1f:\uff1a\u201d)]}\u3001"


def pieces_of(tokens: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """What each token adds to a text; "" where its characters are not complete.

    Args:
        tokens: Of the text, without control tokens and times.
        tokenizer: Of the model.
    """
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in tokens]
    if pieces:
        pieces[-1] += stream.finish()
    return pieces


def words_of(
    pieces: Sequence[str],
    times: Sequence[tuple[float, float]],
    probabilities: Sequence[float] | None,
    earliest: float = 0.0,
    language: str | None = None,
) -> tuple[Word, ...]:
    """The words of a text, with times that do not run backwards.

    Args:
        pieces: As in `split_words`.
        times: Beginning and end of each, in seconds.
        probabilities: Of each; None where they are not known.
        earliest: No word begins before.
        language: As in `split_words`.
    """
    words = []
    for text, first, end in split_words(pieces, language):
        if not text.strip():
            continue
        start = max(earliest, times[first][0])
        earliest = max(start, times[end - 1][1])
        probability = None if probabilities is None else sum(probabilities[first:end]) / (end - first)
        words.append(Word(text, start, earliest, probability))
    return tuple(words)


def split_words(pieces: Sequence[str], language: str | None) -> list[tuple[str, int, int]]:
    """Words with the tokens that make them up.

    Args:
        pieces: What each token adds, see `pieces_of`.
        language: Its code; without spaces each character is a word.

    Returns:
        Text, first token and the token behind the last, of each word; together all tokens.
    """
    words = _characters(pieces)
    if language not in _WITHOUT_SPACES:
        words = _joined(words)
    return _with_punctuation(words)


def _characters(pieces: Sequence[str]) -> list[tuple[str, int, int]]:
    """The shortest runs of tokens that are whole characters."""
    runs: list[tuple[str, int, int]] = []
    first = 0
    for end, piece in enumerate(pieces, 1):
        if piece or end == len(pieces):
            runs.append((piece, first, end))
            first = end
    return runs


def _joined(pieces: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """At spaces, and at punctuation that stands alone."""
    words: list[tuple[str, int, int]] = []
    for text, first, end in pieces:
        if words and not text.startswith(" ") and text.strip() not in string.punctuation:
            before, begin, _ = words.pop()
            text, first = before + text, begin
        words.append((text, first, end))
    return words


def _with_punctuation(words: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Signs before a word and behind it are a part of it."""
    opened: list[tuple[str, int, int]] = []
    for text, first, end in reversed(words):
        if opened and text.startswith(" ") and text.strip() in _BEFORE:
            behind, _, last = opened.pop()
            text, end = text + behind, last
        opened.append((text, first, end))
    closed: list[tuple[str, int, int]] = []
    for text, first, end in reversed(opened):
        if closed and not closed[-1][0].endswith(" ") and text in _BEHIND:
            before, begin, _ = closed.pop()
            text, first = before + text, begin
        closed.append((text, first, end))
    return closed
