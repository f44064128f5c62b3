"""SentencePiece .model files, read by the `sentencepiece` package."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from executorch_mm._files.extras import import_extra
from executorch_mm._files.side_files import SideFiles
from executorch_mm._tokenizers.base import PieceTokenizer, SpecialTokens, checked_id, load_failed
from executorch_mm._tokenizers.hf_decoders import byte_token_value, strip_leading_spaces
from executorch_mm._tokenizers.sentencepiece_proto import user_defined_symbols, with_other_texts

_SPACE = "\u2581"
# ModelProto.normalizer_spec (field 3) { add_dummy_prefix (field 3): false }. Protocol buffers merge a
# repeated message field, so these bytes after a serialised model switch its dummy prefix off.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class _Processor(Protocol):
    """The part of sentencepiece.SentencePieceProcessor used here."""

    def LoadFromSerializedProto(self, serialized: bytes) -> bool: ...  # noqa: N802

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...

    def id_to_piece(self, token_id: int) -> str: ...

    def piece_to_id(self, piece: str) -> int: ...

    def is_control(self, token_id: int) -> bool: ...

    def is_byte(self, token_id: int) -> bool: ...

    def vocab_size(self) -> int: ...

    def bos_id(self) -> int: ...

    def eos_id(self) -> int: ...

    def unk_id(self) -> int: ...

    def pad_id(self) -> int: ...


class _Model:
    """A model, and the same without the space before the first word.

    Attributes:
        processor: As the file says.
        names: New texts of renamed pieces, by id.
    """

    def __init__(self, proto: bytes, path: Path, names: Mapping[int, str]) -> None:
        self.processor = _load(proto, path)
        self.names = names
        self._proto = proto
        self._path = path

    @functools.cached_property
    def without_dummy_prefix(self) -> _Processor:
        """What encodes a text that is not the beginning."""
        return _load(self._proto + _NO_DUMMY_PREFIX, self._path)


class SentencePieceTokenizer(PieceTokenizer):
    """A SentencePiece model; other than in SentencePiece, control symbols in the text are recognised.

    So are tokens that tokenizer_config.json beside it adds to the model's (added_tokens_decoder), which also
    says which of the model's own pieces are control tokens. Only the beginning of the text gets the dummy
    prefix (the space before the first word), not what follows a token of these, so decoding gives the text
    back.
    """

    _mark_each_byte = True
    _skipped_ends_character = True

    def __init__(self, path: Path, proto: bytes) -> None:
        super().__init__(str(path))
        self._proto = proto
        self._plain = _Model(proto, path, {})
        self._processor = self._plain.processor
        self._models: dict[frozenset[str], _Model] = {}
        self._num_pieces = self._processor.vocab_size()
        self._pieces = [self._processor.id_to_piece(i) for i in range(self._num_pieces)]
        side = SideFiles.beside(path)
        self._read_special_tokens(side)
        self._unknown_id = self._processor.unk_id()
        self._unknown_text = self._processor.decode([self._unknown_id])
        self._bytes = [self._text_bytes(i) for i in range(self._num_pieces)]
        self._start, self._every_first_space = self._leading_space_rule()
        self.adds_bos = side.adds_bos is True
        bos_id = self._processor.bos_id()
        self.bos_id = bos_id if bos_id >= 0 else side.bos_id(self.token_to_id)
        eos_id = self._processor.eos_id()
        self._eos_to_add, self.eos_ids = side.eos(
            self.token_to_id, self.is_special, also=[eos_id] if eos_id >= 0 else []
        )

    def _read_special_tokens(self, side: SideFiles) -> None:
        control = {piece: i for i, piece in enumerate(self._pieces) if self._processor.is_control(i)}
        added = {
            text: token_id
            for text, (token_id, is_control) in side.added_tokens.items()
            if token_id >= self._num_pieces or (is_control and self._pieces[token_id] == text)
        }
        self._special = SpecialTokens(control | added)
        plain = {text for text, (_, is_control) in side.added_tokens.items() if not is_control}
        self._control_ids = {
            i for text, i in self._special.ids.items() if text in control or text not in plain
        }
        self.vocab_size = max([self._num_pieces - 1, *added.values()]) + 1

    def _text_bytes(self, token_id: int) -> bytes:
        piece = self._pieces[token_id]
        if self._processor.is_byte(token_id):
            value = byte_token_value(piece)
            return b"" if value is None else bytes([value])
        if token_id == self._unknown_id:
            return self._unknown_text.encode("utf-8")
        return piece.replace(_SPACE, " ").encode("utf-8")

    def _leading_space_rule(self) -> tuple[int, bool]:
        """(whether the text's first space is dropped, whether that also goes for spaces after it), by trial.

        The settings behind it (add_dummy_prefix, remove_extra_whitespaces) have no accessor.
        """
        one_space = (
            i
            for i, piece in enumerate(self._pieces)
            if piece[:1] == _SPACE and piece[1:2] not in ("", _SPACE)
        )
        spaced = next(one_space, None)
        if spaced is None:
            return 0, False
        drops = not self._processor.decode([spaced]).startswith(" ")
        space = self._processor.piece_to_id(_SPACE)
        has_space = self._pieces[space] == _SPACE
        drops_all = drops and has_space and not self._processor.decode([space, spaced]).startswith(" ")
        return int(drops), drops_all

    def _encode(self, text: str) -> list[int]:
        return self._encode_split(self._special.split(text), self._plain)

    def text_tokens(self) -> dict[str, int]:
        """The control symbols, added tokens, and symbols that the model's maker defined, by their text."""
        return {**self._special.ids, **user_defined_symbols(self._proto)}

    def _encode_parts(self, parts: Sequence[str | int], plain: frozenset[str]) -> list[int]:
        model = self._renamed(plain)
        # SentencePiece finds the maker's symbols itself, by names that no text has.
        split: list[str | int] = []
        is_behind_text = False
        for part in self._special.split_parts(parts, plain):
            is_found_by_us = isinstance(part, int) and part in self._special.texts
            text = part if isinstance(part, str) else None if is_found_by_us else model.names.get(part)
            joins = text is not None and split and isinstance(split[-1], str)
            if joins and not (is_behind_text and isinstance(part, str)):
                split[-1] = f"{split[-1]}{text}"
            else:
                split.append(part if text is None else text)
            is_behind_text = isinstance(part, str)
        return self._encode_split(split, model)

    def _encode_split(self, parts: Sequence[str | int], model: _Model) -> list[int]:
        ids: list[int] = []
        for i, part in enumerate(parts):
            if isinstance(part, int):
                ids.append(part)
            elif self._is_beginning(parts, i):
                ids += model.processor.encode(part)
            else:
                ids += model.without_dummy_prefix.encode(part)
        return ids

    def _renamed(self, plain: frozenset[str]) -> _Model:
        """The model with names that no text has for the symbols of its maker that are in `plain`."""
        if plain not in self._models:
            nonce = secrets.token_hex(16)
            names = {
                token_id: f"\ue000{nonce}{token_id}\ue000"
                for text, token_id in user_defined_symbols(self._proto).items()
                if text in plain
            }
            proto = with_other_texts(self._proto, names) if names else self._proto
            self._models[plain] = _Model(proto, Path(self._path), names)
        return self._models[plain]

    def _piece_of(self, token_id: int, start: int) -> tuple[bytes, int]:
        if token_id >= self._num_pieces:
            text = self._special.texts.get(token_id)
            return (b"", start) if text is None else (text.encode("utf-8"), 0)
        piece = self._bytes[token_id]
        if start == 0:
            return piece, 0
        if self._processor.is_byte(token_id) or token_id == self._unknown_id:
            return piece, 0
        stripped, left = strip_leading_spaces(piece, start)
        return stripped, (start if self._every_first_space and not stripped else left)

    def is_special(self, token_id: int) -> bool:
        """Whether the id is a control symbol of the model or an added control token."""
        return token_id in self._control_ids

    def id_to_token(self, token_id: int) -> str | None:
        """The piece as the model spells it, or None."""
        token_id = checked_id(token_id)
        return self._pieces[token_id] if token_id < self._num_pieces else self._special.texts.get(token_id)

    def token_to_id(self, token: str) -> int | None:
        """The id of a piece as the model spells it, or None."""
        added = self._special.ids.get(token)
        if added is not None:
            return added
        token_id = self._processor.piece_to_id(token)
        return token_id if self._pieces[token_id] == token else None


def _load(proto: bytes, path: Path) -> _Processor:
    module = import_extra("sentencepiece", "sentencepiece", f"the SentencePiece model {path}")
    processor: _Processor = module.SentencePieceProcessor()
    try:
        loaded = processor.LoadFromSerializedProto(proto)
    except RuntimeError as error:
        raise load_failed(f"{path}: damaged SentencePiece model ({error})") from error
    if not loaded:
        raise load_failed(f"{path}: damaged SentencePiece model")
    return processor


def load_sentencepiece(path: Path) -> SentencePieceTokenizer:
    """Reads a SentencePiece model.

    Raises:
        TokenizerError: `sentencepiece` cannot read the file.
        MissingDependencyError: `sentencepiece` is not installed.
    """
    return SentencePieceTokenizer(path, path.read_bytes())
