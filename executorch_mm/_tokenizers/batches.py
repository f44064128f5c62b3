"""Whole texts and pairs with what a tokenizer.json puts around them, for models that read a text at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm._files.extras import no_panic
from executorch_mm._files.json_files import read_object_if_there
from executorch_mm._files.paths import expect_file
from executorch_mm._tokenizers.base import load_failed
from executorch_mm.errors import InputError, TokenizerError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

_NO_LIMIT = 1 << 30  # transformers writes 1e30 for "none"


@dataclass(frozen=True)
class EncodedText:
    """One row of what a text encoder reads.

    Attributes:
        ids: Token ids with the special tokens around them.
        type_ids: 0 for the first text of a pair, 1 for the second, one for each id.
        num_last_special: Special tokens at the end.
    """

    ids: list[int]
    type_ids: list[int]
    num_last_special: int


class BatchTokenizer:
    """Texts and pairs to rows of ids, as the post-processor of a tokenizer.json builds them.

    Attributes:
        pad_id: What fills a row up; 0 where no file says so.
        max_length: Tokens of a row that tokenizer_config.json allows, or None.
    """

    def __init__(self, path: Path) -> None:
        """Reads tokenizer.json, and tokenizer_config.json beside it.

        Raises:
            TokenizerError: A file is missing or damaged.
        """
        from tokenizers import Tokenizer

        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            expect_file(file)
            with no_panic(str(file), TokenizerError):
                self._tokenizer: Tokenizer = Tokenizer.from_buffer(file.read_bytes())
        except TokenizerError:
            raise
        except OSError as error:
            raise load_failed(f"{file}: {error.strerror or error}") from error
        except Exception as error:  # `tokenizers` raises bare Exception
            raise load_failed(f"{file}: not a usable tokenizer.json ({error})") from error
        self._lock = threading.Lock()
        padding = self._tokenizer.padding or {}
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        config = read_object_if_there(file.with_name("tokenizer_config.json"), TokenizerError)
        pad = config.get("pad_token")
        pad = pad.get("content") if isinstance(pad, dict) else pad
        known = self._tokenizer.token_to_id(pad) if isinstance(pad, str) else None
        self.pad_id: int = known if known is not None else int(padding.get("pad_id", 0))
        self.max_length: int | None = _length(config.get("model_max_length"))

    def encode(
        self, rows: Sequence[str] | Sequence[tuple[str, str]], max_length: int | None
    ) -> list[EncodedText]:
        """One row for each text or pair.

        Args:
            rows: Texts, or pairs of texts.
            max_length: Longer rows are cut, of a pair the longer text first; the special tokens stay.

        Raises:
            InputError: `max_length` leaves no room beside the special tokens.
            TokenizerError: A text cannot be encoded.
        """
        with self._lock:  # the length is a matter of the tokenizer, not of the call
            self._cut_to(max_length, is_pair=bool(rows) and isinstance(rows[0], tuple))
            try:
                with no_panic("the tokenizer", TokenizerError):
                    return [_row(found) for found in self._tokenizer.encode_batch(list(rows))]
            except TokenizerError:
                raise
            except Exception as error:  # a lone surrogate, or what `tokenizers` raises
                raise TokenizerError(f"the texts cannot be encoded: {error}") from error

    def _cut_to(self, max_length: int | None, *, is_pair: bool) -> None:
        if max_length is None:
            self._tokenizer.no_truncation()
            return
        least = self._tokenizer.num_special_tokens_to_add(is_pair) + 1
        if max_length < least:
            raise InputError(
                f"max_length: expected at least {least} tokens for this tokenizer, got {max_length}"
            )
        self._tokenizer.enable_truncation(max_length)


def _row(encoding: Encoding) -> EncodedText:
    last = 0
    for is_special in reversed(encoding.special_tokens_mask):
        if not is_special:
            break
        last += 1
    return EncodedText(encoding.ids, encoding.type_ids, last)


def _length(value: object) -> int | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _NO_LIMIT:
        return int(value)
    return None
