"""Bytes to text, a token at a time: what every incremental decoder is made of."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@runtime_checkable
class IncrementalDecoder(Protocol):
    """Turns one sequence of token ids into text while it comes; made by `Tokenizer.decoder`.

    All pieces joined are the same text as `Tokenizer.decode` of all ids.
    """

    def push(self, token_id: int) -> str:
        """The whole characters that this token completes; '' while a character is unfinished.

        Bytes that can no longer become a character come as U+FFFD. An id beyond the vocabulary has no text.

        Raises:
            TokenizerError: The id is negative or not an integer.
        """
        ...

    def flush(self) -> str:
        """What is held back at the end of the text: U+FFFD for an unfinished character, or ''."""
        ...


class Utf8Stream:
    """Turns chunks of bytes into whole characters; the bytes of an unfinished one wait for the next chunk.

    Bytes that can no longer become a character are released at once as U+FFFD: one for each maximal broken
    sequence (Unicode's recommendation, also what the byte-level decoder of HF `tokenizers` does), or one for
    each byte with `mark_each_byte` (what SentencePiece does).
    """

    def __init__(self, *, mark_each_byte: bool = False) -> None:
        self._mark_each_byte = mark_each_byte
        self._held = b""

    @property
    def is_holding(self) -> bool:
        """Whether the bytes of an unfinished character wait for the next chunk."""
        return bool(self._held)

    def push(self, data: bytes) -> str:
        """The characters that `data` completes, possibly none."""
        return self._decode(self._held + data, final=False)

    def flush(self) -> str:
        """What is still held, as replacement characters; the stream is empty afterwards."""
        return self._decode(self._held, final=True)

    def _decode(self, data: bytes, *, final: bool) -> str:
        parts: list[str] = []
        while True:
            text, data, num_broken = self._decode_valid(data, final=final)
            parts.append(text)
            if num_broken == 0:
                self._held = data
                return "".join(parts)
            parts.append(REPLACEMENT * (num_broken if self._mark_each_byte else 1))

    @staticmethod
    def _decode_valid(data: bytes, *, final: bool) -> tuple[str, bytes, int]:
        """(text up to what is broken, the bytes after it, number of broken bytes)."""
        try:
            text, used = codecs.utf_8_decode(data, "strict", final)
        except UnicodeDecodeError as error:
            return data[: error.start].decode("utf-8"), data[error.end :], error.end - error.start
        return text, data[used:], 0


class PieceDecoder:
    """Incremental decoder for tokenizers whose tokens are byte strings that need no look-ahead.

    `piece_of(token_id, start)` gives a token's bytes and the next `start`: how much of a rule for the
    beginning of the text (drop the leading space) is still to be applied; 0 once the beginning is past.
    `texts` is filled with the tokens that are whole characters by themselves: one look-up then does, which is
    what a step of a large model leaves in the processor's caches. Decoders with the same `piece_of` and
    `is_skipped` may share it. With `skipped_ends_character` no character has bytes on both sides of a skipped
    token.
    """

    def __init__(
        self,
        piece_of: Callable[[int, int], tuple[bytes, int]],
        is_skipped: Callable[[int], bool],
        start: int,
        texts: dict[int, str] | None = None,
        *,
        mark_each_byte: bool,
        skipped_ends_character: bool = False,
    ) -> None:
        self._piece_of = piece_of
        self._is_skipped = is_skipped
        self._start = start
        self._texts = {} if texts is None else texts
        self._utf8 = Utf8Stream(mark_each_byte=mark_each_byte)
        self._skipped_ends_character = skipped_ends_character

    def push(self, token_id: int) -> str:
        """The text that this token completes, possibly ''."""
        is_between = self._start == 0 and not self._utf8.is_holding
        if is_between and token_id.__class__ is int and (text := self._texts.get(token_id)) is not None:
            return text
        if self._is_skipped(token_id):
            return self._utf8.flush() if self._skipped_ends_character else ""
        piece, self._start = self._piece_of(token_id, self._start)
        text = self._utf8.push(piece)
        if is_between and text and not self._utf8.is_holding:
            self._texts[token_id] = text
        return text

    def flush(self) -> str:
        """The unfinished character at the end of the text, as U+FFFD, or ''."""
        return self._utf8.flush()


class WindowDecoder:
    """Incremental decoder for tokenizers that only offer `decode(ids)`: the difference of two decodings.

    The last `CONTEXT` tokens that were shown are decoded again with the new ones, so a decoder may look that
    far back. Text that ends in U+FFFD, and tokens that add nothing visible, wait for up to `MAX_HELD` tokens.
    """

    CONTEXT = 8
    MAX_HELD = 64

    def __init__(
        self, decode: Callable[[Sequence[int]], str], is_skipped: Callable[[int], bool], after: Sequence[int]
    ) -> None:
        self._decode = decode
        self._is_skipped = is_skipped
        self._shown_ids = [token_id for token_id in after if not is_skipped(token_id)][-self.CONTEXT :]
        self._held_ids: list[int] = []
        self._shown = decode(self._shown_ids)

    def push(self, token_id: int) -> str:
        """The text that this token completes, possibly ''."""
        if self._is_skipped(token_id):
            return ""
        self._held_ids.append(token_id)
        text = self._decode(self._shown_ids + self._held_ids)
        nothing_whole = len(text) <= len(self._shown) or text.endswith(REPLACEMENT)
        if nothing_whole and len(self._held_ids) < self.MAX_HELD:
            return ""
        return self._release(text)

    def flush(self) -> str:
        """What is still held."""
        if not self._held_ids:
            return ""
        return self._release(self._decode(self._shown_ids + self._held_ids))

    def _release(self, text: str) -> str:
        piece = text[len(self._shown) :]
        self._shown_ids = (self._shown_ids + self._held_ids)[-self.CONTEXT :]
        self._held_ids = []
        self._shown = self._decode(self._shown_ids)
        return piece
