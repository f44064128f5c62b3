"""What a tokenizer is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

from executorch_mm._tokenizers.utf8 import IncrementalDecoder
from executorch_mm.errors import TokenizerError, shown


@runtime_checkable
class Tokenizer(Protocol):
    """What the runner needs of a tokenizer; any object with these members will do.

    A bool `adds_bos` may be there too: True where the tokenizer's files say that a text begins with `bos_id`,
    which the runner then puts before a conversation.
    """

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id. The model's logits may be wider (padding) but not narrower."""
        ...

    @property
    def bos_id(self) -> int | None:
        """The beginning-of-text id, or None when the tokenizer has none."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that plausibly end a text or a turn.

        Everything declared in the tokenizer and in tokenizer_config.json, special_tokens_map.json,
        generation_config.json and config.json beside it, and control tokens known by name such as <|im_end|>.
        """
        ...

    def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        """Token ids of `text`; special tokens written in the text are recognised.

        Args:
            text: Any text; '' gives [] (or what add_bos and add_eos add).
            add_bos: Put the BOS id in front unless the text already begins with it.
            add_eos: Put the EOS id at the end unless the text already ends with one of `eos_ids`.

        Raises:
            TokenizerError: Not a str, a lone surrogate in the text, or a BOS/EOS asked for that does not
                exist.
        """
        ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD, ids beyond the vocabulary have no text.

        Args:
            ids: Token ids.
            skip_special_tokens: Control tokens have no text.

        Raises:
            TokenizerError: An id is negative or not an integer.
        """
        ...

    def decoder(self, *, skip_special_tokens: bool = True, after: Sequence[int] = ()) -> IncrementalDecoder:
        """A fresh incremental decoder.

        Args:
            skip_special_tokens: Control tokens have no text.
            after: Ids that come before (the prompt), whose text is not given out again. Vocabularies of the
                SentencePiece kind write a space in front of a text's first word and drop it in decoding;
                with `after`, the first token pushed continues a text and keeps its space.
        """
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that this token adds in the middle of a text (b"" for an id beyond the vocabulary).

        Joined over a sequence they are the UTF-8 text, but for the rule about the first space.
        """
        ...

    def is_special(self, token_id: int) -> bool:
        """Whether the id is a control token, which `decode` skips unless told otherwise."""
        ...

    def id_to_token(self, token_id: int) -> str | None:
        """The token as the vocabulary spells it (not its text), or None for an id it does not have."""
        ...

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""
        ...


_MEMBERS = tuple(name for name in vars(Tokenizer) if not name.startswith("_"))


def checked_tokenizer(given: object) -> Tokenizer:
    """An object that has a tokenizer's members.

    From CPython 3.12 on `isinstance` does not see what `__getattr__` gives, as a wrapper's does.

    Raises:
        TokenizerError: It lacks one.
    """
    if not all(hasattr(given, name) for name in _MEMBERS):
        raise TokenizerError(f"tokenizer_path: expected a path or a Tokenizer, got {shown(given)}")
    return cast("Tokenizer", given)
