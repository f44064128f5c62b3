"""llama2.c .bin files: a SentencePiece BPE vocabulary written out flat, read and encoded in plain Python.

All integers are little-endian int32, scores are float32. A file is a header and then, for each token,
score, number of bytes, bytes. llama2.c's header is (longest token); ExecuTorch's is (number of tokens, BOS,
EOS, longest token).
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from executorch_mm._files.side_files import SideFiles
from executorch_mm._tokenizers.base import PieceTokenizer, SpecialTokens, checked_id, load_failed
from executorch_mm._tokenizers.hf_decoders import byte_token_value, strip_leading_spaces

_LONGEST_PLAUSIBLE_TOKEN = 1 << 16
_CONTROL = ("<unk>", "<s>", "</s>", "<pad>")


@dataclass(frozen=True)
class Vocabulary:
    """The content of a file: token i is tokens[i]; BOS and EOS as the header gives them, else None."""

    tokens: list[bytes]
    scores: list[float]
    bos_id: int | None
    eos_id: int | None


def read_vocabulary(data: bytes) -> Vocabulary | None:
    """The vocabulary in `data`; None when it is none (every byte must be accounted for)."""
    if len(data) >= 16:
        num_tokens, bos_id, eos_id, longest = struct.unpack_from("<4i", data)
        entries = _read_entries(data, 16, longest)
        # A file that was given a padding token in front has one more than its header says; some say 0.
        if entries and num_tokens in (0, len(entries), len(entries) - 1):
            known = num_tokens > 0
            return _vocabulary(entries, bos_id if known else None, eos_id if known else None)
    if len(data) >= 4:
        entries = _read_entries(data, 4, struct.unpack_from("<i", data)[0])
        if entries:
            return _vocabulary(entries, None, None)
    return None


def _read_entries(data: bytes, offset: int, longest: int) -> list[tuple[float, bytes]]:
    if not 0 < longest <= _LONGEST_PLAUSIBLE_TOKEN:
        return []
    entries = []
    while offset < len(data):
        if offset + 8 > len(data):
            return []
        score, size = struct.unpack_from("<fi", data, offset)
        offset += 8
        if not 0 <= size <= longest or offset + size > len(data):
            return []
        entries.append((score, data[offset : offset + size]))
        offset += size
    return entries


def _vocabulary(entries: list[tuple[float, bytes]], bos_id: int | None, eos_id: int | None) -> Vocabulary:
    return Vocabulary([token for _, token in entries], [score for score, _ in entries], bos_id, eos_id)


class Llama2cTokenizer(PieceTokenizer):
    """SentencePiece's BPE: a space in front, then the best scored pair is merged until there is none."""

    _start = 1
    _mark_each_byte = True

    def __init__(self, path: Path, vocabulary: Vocabulary) -> None:
        super().__init__(str(path))
        self._tokens = vocabulary.tokens
        self._scores = vocabulary.scores
        self.vocab_size = len(self._tokens)
        self._spellings = [token.decode("utf-8", "backslashreplace") for token in self._tokens]
        self._ids: dict[bytes, int] = {}
        for token_id, token in enumerate(self._tokens):
            self._ids.setdefault(token, token_id)
        # llama2.c writes the control tokens on lines of their own: "\n<s>\n".
        control = {
            spelling.strip("\n"): i
            for i, spelling in reversed(list(enumerate(self._spellings[:8])))
            if spelling.strip("\n") in _CONTROL
        }
        self._unknown_id = control.get("<unk>", 0)
        self._special = SpecialTokens({text: i for text, i in control.items() if text != "<unk>"})
        self._byte_ids = self._find_byte_tokens()
        side = SideFiles.beside(path)
        self.adds_bos = side.adds_bos is not False  # llama2.c's own program always adds it
        bos_id = self._special.ids.get("<s>", vocabulary.bos_id)
        self.bos_id = bos_id if bos_id is not None else side.bos_id(self.token_to_id)
        eos_id = self._special.ids.get("</s>", vocabulary.eos_id)
        self._eos_to_add, self.eos_ids = side.eos(
            self.token_to_id, self.is_special, also=[] if eos_id is None else [eos_id]
        )

    def _find_byte_tokens(self) -> dict[int, int]:
        byte_ids: dict[int, int] = {}
        for token_id, spelling in enumerate(self._spellings):
            value = byte_token_value(spelling)
            if value is not None:
                byte_ids.setdefault(value, token_id)
        return byte_ids

    def _encode(self, text: str) -> list[int]:
        return self._encode_parts([text], frozenset())

    def text_tokens(self) -> dict[str, int]:
        """The control tokens, by their text."""
        return dict(self._special.ids)

    def _encode_parts(self, parts: Sequence[str | int], plain: frozenset[str]) -> list[int]:
        ids: list[int] = []
        split = self._special.split_parts(parts, plain)
        for i, part in enumerate(split):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._merge(" " + part if self._is_beginning(split, i) else part)
        return ids

    def _merge(self, text: str) -> list[int]:
        """Ids of `text`: characters, joined best pair first (leftmost of equals); O(n log n)."""
        symbols: list[bytes] = [char.encode("utf-8") for char in text]
        following = list(range(1, len(symbols) + 1))
        previous = list(range(-1, len(symbols) - 1))
        heap: list[tuple[float, int, bytes]] = []

        def offer(left: int) -> None:
            if left < 0 or following[left] >= len(symbols):
                return
            joined = symbols[left] + symbols[following[left]]
            token_id = self._ids.get(joined)
            if token_id is not None:
                heapq.heappush(heap, (-self._scores[token_id], left, joined))

        for left in range(len(symbols)):
            offer(left)
        while heap:
            _, left, joined = heapq.heappop(heap)
            right = following[left] if symbols[left] else len(symbols)
            if right >= len(symbols) or symbols[left] + symbols[right] != joined:
                continue  # one of the two was merged meanwhile
            symbols[left], symbols[right] = joined, b""
            following[left] = following[right]
            if following[left] < len(symbols):
                previous[following[left]] = left
            offer(left)
            offer(previous[left])
        return [token_id for symbol in symbols if symbol for token_id in self._symbol_ids(symbol)]

    def _symbol_ids(self, symbol: bytes) -> list[int]:
        token_id = self._ids.get(symbol)
        if token_id is not None:
            return [token_id]
        return [self._byte_ids.get(byte, self._unknown_id) for byte in symbol]

    def _piece_of(self, token_id: int, start: int) -> tuple[bytes, int]:
        if token_id >= self.vocab_size:
            return b"", start
        value = byte_token_value(self._spellings[token_id])
        if value is not None:
            return bytes([value]), 0
        piece = (
            self._special.texts[token_id].encode("utf-8")
            if self.is_special(token_id)
            else self._tokens[token_id]
        )
        return strip_leading_spaces(piece, start)

    def is_special(self, token_id: int) -> bool:
        """Whether the id is <s>, </s> or <pad>."""
        return token_id in self._special.texts

    def id_to_token(self, token_id: int) -> str | None:
        """The token as the file spells it, or None."""
        token_id = checked_id(token_id)
        if self.is_special(token_id):
            return self._special.texts[token_id]
        return self._spellings[token_id] if token_id < self.vocab_size else None

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the file spells it, or None."""
        special = self._special.ids.get(token)
        return self._ids.get(token.encode("utf-8")) if special is None else special


def load_llama2c(path: Path) -> Llama2cTokenizer:
    """Reads a llama2.c .bin.

    Raises:
        TokenizerError: The file is something else or cut short.
    """
    vocabulary = read_vocabulary(path.read_bytes())
    if vocabulary is None:
        raise load_failed(f"{path}: not a llama2.c tokenizer, or cut short")
    return Llama2cTokenizer(path, vocabulary)
