"""tokenizer.json, read by the `tokenizers` package."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm._files.extras import no_panic
from executorch_mm._files.side_files import BOS_TOKENS, SideFiles
from executorch_mm._tokenizers.base import (
    PieceTokenizer,
    check_flag,
    check_text,
    checked_id,
    listed,
    load_failed,
)
from executorch_mm._tokenizers.hf_decoders import DecoderRule, byte_level_bytes, compile_decoder
from executorch_mm._tokenizers.hf_parts import PartsEncoder
from executorch_mm._tokenizers.utf8 import IncrementalDecoder, WindowDecoder
from executorch_mm.errors import TokenizerError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class HFTokenizer(PieceTokenizer):
    """A tokenizer.json whose decoder works token by token.

    Byte sequences that are not UTF-8 decode as broken UTF-8 does anywhere, so that text can be shown while it
    comes; HF's ByteFallback decoder gives up on the whole run of byte tokens around the broken one instead.
    Words added to a byte-level vocabulary are their own text; HF's ByteLevel decoder breaks "café".
    """

    def __init__(self, path: Path, tokenizer: Tokenizer, decoding: DecoderRule) -> None:
        super().__init__(str(path))
        self._tokenizer = tokenizer
        self._rule = decoding.rule
        self._start = decoding.start
        self._mark_each_byte = decoding.mark_each_byte
        self._read_special_tokens(path)
        self._pieces = self._added_pieces() if decoding.is_byte_level else {}
        self._parts_encoders: dict[frozenset[str], PartsEncoder] = {}

    def _read_special_tokens(self, path: Path) -> None:
        added = self._tokenizer.get_added_tokens_decoder()
        self._special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self.vocab_size = max(
            self._tokenizer.get_vocab_size(with_added_tokens=False), max(added, default=-1) + 1
        )
        side = SideFiles.beside(path)
        template_bos = self._bos_of_post_processor()
        self.adds_bos = template_bos is not None if side.adds_bos is None else side.adds_bos
        bos_id = side.bos_id(self.token_to_id)
        if bos_id is None:
            bos_id = template_bos
        if bos_id is None:
            known = (self.token_to_id(token) for token in BOS_TOKENS)
            bos_id = next((i for i in known if i is not None and i in self._special_ids), None)
        self.bos_id = bos_id
        self._eos_to_add, self.eos_ids = side.eos(self.token_to_id, self.is_special)

    def _bos_of_post_processor(self) -> int | None:
        """The special token that a TemplateProcessing step puts before the text."""
        processor = _state(self._tokenizer.post_processor)
        steps = [processor] if processor else []
        if processor and isinstance(processor.get("processors"), list):
            steps = [step for step in _list(processor["processors"]) if isinstance(step, dict)]
        for step in steps:
            first = (_list(step.get("single")) or [None])[0]
            special = first.get("SpecialToken") if isinstance(first, dict) else None
            if isinstance(special, dict) and isinstance(special.get("id"), str):
                return self.token_to_id(special["id"])
        return None

    def _added_pieces(self) -> dict[int, bytes]:
        """The bytes of the added tokens whose letters stand for other bytes in a byte-level vocabulary.

        An added token is found in the text as it is, so that is what it is decoded to; `tokenizers` reads its
        letters as bytes all the same. Except where the model itself writes the token, as it does with bytes.
        """
        pieces: dict[int, bytes] = {}
        for token_id, token in self._tokenizer.get_added_tokens_decoder().items():
            text = token.content.encode("utf-8")
            if byte_level_bytes(token.content) != text and (
                token.special or not self._is_written_by_model(token.content)
            ):
                pieces[token_id] = text
        return pieces

    def _is_written_by_model(self, token: str) -> bool:
        model = self._tokenizer.model
        if model.token_to_id(token) is None:
            return False
        return [piece.value for piece in model.tokenize(token)] == [token]

    def _encode(self, text: str) -> list[int]:
        with self._no_panic():
            return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_whole(self, text: str) -> list[int]:
        """Token ids of a text with what the post-processor puts around it.

        Raises:
            TokenizerError: Not a str, or a lone surrogate in the text.
        """
        check_text(text)
        with self._no_panic():
            return self._tokenizer.encode(text).ids

    def _no_panic(self) -> AbstractContextManager[None]:
        return no_panic(f"tokenizer {self._path}", TokenizerError)

    def text_tokens(self) -> dict[str, int]:
        """The added tokens, by their text, but for the one that stands for what the vocabulary lacks."""
        with self._no_panic():
            unknown = _unknown_ids(self._tokenizer)
            added = self._tokenizer.get_added_tokens_decoder()
            return {token.content: i for i, token in added.items() if i not in unknown}

    def _encode_parts(self, parts: Sequence[str | int], plain: frozenset[str]) -> list[int]:
        with self._no_panic():
            if plain not in self._parts_encoders:
                self._parts_encoders[plain] = PartsEncoder(self._tokenizer, plain)
            return self._parts_encoders[plain].encode(parts)

    def _piece_of(self, token_id: int, start: int) -> tuple[bytes, int]:
        if start == 0 and token_id in self._pieces:
            return self._pieces[token_id], 0
        token = self.id_to_token(token_id)
        if token is None:
            return b"", start
        piece, next_start = self._rule(token, start)
        if start == 0:
            self._pieces[token_id] = piece
        return piece, next_start

    def is_special(self, token_id: int) -> bool:
        """Whether the id is marked special in the file."""
        return checked_id(token_id) in self._special_ids

    def id_to_token(self, token_id: int) -> str | None:
        """The token as the vocabulary spells it, or None."""
        token_id = checked_id(token_id)
        return self._tokenizer.id_to_token(token_id) if token_id < self.vocab_size else None

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""
        check_text(token)
        return self._tokenizer.token_to_id(token)


class HFWindowTokenizer(HFTokenizer):
    """A tokenizer.json with any other decoder (BPEDecoder, CTC, ...): decoding is left to `tokenizers`.

    Streaming equals `decode` as long as a token's text depends on at most `WindowDecoder.CONTEXT` tokens
    before it.
    """

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        super().__init__(path, tokenizer, DecoderRule(lambda token, _start: (token.encode("utf-8"), 0)))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """See `executorch_mm.tokenizer.Tokenizer.decode`."""
        check_flag("skip_special_tokens", skip_special_tokens)
        valid = [token_id for token_id in map(checked_id, listed(ids)) if token_id < self.vocab_size]
        with self._no_panic():
            return self._tokenizer.decode(valid, skip_special_tokens=skip_special_tokens)

    def decoder(self, *, skip_special_tokens: bool = True, after: Sequence[int] = ()) -> IncrementalDecoder:
        """See `executorch_mm.tokenizer.Tokenizer.decoder`."""
        check_flag("skip_special_tokens", skip_special_tokens)
        after = list(map(checked_id, listed(after)))

        def is_skipped(token_id: int) -> bool:
            return (skip_special_tokens and self.is_special(token_id)) or checked_id(
                token_id
            ) >= self.vocab_size

        return WindowDecoder(lambda ids: self.decode(ids, skip_special_tokens=False), is_skipped, after)

    def token_bytes(self, token_id: int) -> bytes:
        """The text of the token decoded on its own."""
        return self.decode([token_id], skip_special_tokens=False).encode("utf-8")


def load_hf(path: Path) -> HFTokenizer:
    """Reads a tokenizer.json.

    Raises:
        TokenizerError: `tokenizers` cannot read the file.
    """
    from tokenizers import Tokenizer

    with no_panic(str(path), TokenizerError):
        try:
            tokenizer = Tokenizer.from_buffer(path.read_bytes())
        except Exception as error:  # `tokenizers` raises bare Exception
            raise load_failed(f"{path}: not a usable tokenizer.json ({error})") from error
        # Both would change ids behind the caller's back.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        decoding = compile_decoder(_state(tokenizer.decoder))
        if decoding is None:
            return HFWindowTokenizer(path, tokenizer)
        return HFTokenizer(path, tokenizer, decoding)


def _unknown_ids(tokenizer: Tokenizer) -> set[int]:
    """What a character that no vocabulary has becomes."""
    try:
        return {token.id for token in tokenizer.model.tokenize("\U0010fffd")}
    except Exception:  # noqa: BLE001  # `tokenizers` raises bare Exception where there is no such token
        return set()


def _state(component: object) -> dict[str, object] | None:
    """A component's section of the file; asking it for its pickle avoids writing out the whole vocabulary."""
    getstate: Callable[[], bytes | str] | None = getattr(component, "__getstate__", None)
    if component is None or getstate is None:
        return None
    content = json.loads(getstate())
    return content if isinstance(content, dict) else None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
