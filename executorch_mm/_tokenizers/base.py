"""What the adapters share: special tokens, BOS and EOS, decoding over token bytes."""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

from executorch_mm._tokenizers.utf8 import IncrementalDecoder, PieceDecoder
from executorch_mm.errors import TokenizerError, shown


def load_failed(what: str) -> TokenizerError:
    """What is raised for a file that is no usable tokenizer.

    Args:
        what: The file, a colon and the reason.
    """
    return TokenizerError(f"Failed to load tokenizer from: {what}")


class PieceTokenizer(ABC):
    """A tokenizer whose tokens are byte strings; adapters fill in the abstract methods and the attributes.

    Attributes:
        vocab_size: One more than the largest token id.
        bos_id: The beginning-of-text id, or None.
        eos_ids: Every id that plausibly ends a text or a turn.
        adds_bos: Whether the files say that a text begins with `bos_id`.
    """

    vocab_size: int
    bos_id: int | None
    eos_ids: frozenset[int]
    adds_bos: bool = False

    # How much of the rule for the beginning of a text there is to apply, and how broken UTF-8 is counted.
    _start: int = 0
    _mark_each_byte: bool = False
    _skipped_ends_character: bool = False

    def __init__(self, path: str) -> None:
        self._path = path
        self._eos_to_add: int | None = None
        # For decoders: texts of tokens that are whole characters, with and without the special tokens.
        self._texts: tuple[dict[int, str], dict[int, str]] = ({}, {})

    def __repr__(self) -> str:
        ids = f"bos_id={self.bos_id}, eos_ids={sorted(self.eos_ids)}"
        return f"{type(self).__name__}({self._path!r}, vocab_size={self.vocab_size}, {ids})"

    @abstractmethod
    def _encode(self, text: str) -> list[int]:
        """Ids of `text`, special tokens recognised, nothing added."""

    @abstractmethod
    def text_tokens(self) -> dict[str, int]:
        """The tokens that `encode` recognises where a text spells them, by that text."""

    @abstractmethod
    def _encode_parts(self, parts: Sequence[str | int], plain: frozenset[str]) -> list[int]:
        """See `encode_parts`; a text that the vocabulary spells no other way may become one of `plain`."""

    @abstractmethod
    def _piece_of(self, token_id: int, start: int) -> tuple[bytes, int]:
        """Bytes of a token and the next start state; (b"", start) for an id the vocabulary does not have."""

    @abstractmethod
    def is_special(self, token_id: int) -> bool:
        """Whether the id is a control token, which `decode` skips unless told otherwise."""

    @abstractmethod
    def id_to_token(self, token_id: int) -> str | None:
        """The token as the vocabulary spells it (not its text), or None for an unknown id."""

    @abstractmethod
    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""

    def encode(self, text: str, *, add_bos: bool = False, add_eos: bool = False) -> list[int]:
        """See `executorch_mm.tokenizer.Tokenizer.encode`."""
        check_text(text)
        check_flag("add_bos", add_bos)
        check_flag("add_eos", add_eos)
        ids = self._encode(text) if text else []
        if add_bos and ids[:1] != [self._require("add_bos", self.bos_id)]:
            ids.insert(0, self._require("add_bos", self.bos_id))
        if add_eos and not (ids and ids[-1] in self.eos_ids):
            ids.append(self._require("add_eos", self._eos_to_add))
        return ids

    def encode_parts(self, parts: Sequence[str | int], plain: frozenset[str]) -> list[int]:
        """Token ids of a text that is given in parts.

        Args:
            parts: Texts, and ids of tokens among `plain`. Texts that follow each other do not merge.
            plain: Those of `text_tokens` that are text where a text spells them.

        Raises:
            TokenizerError: Not a str, a lone surrogate in a text, or a text that has no other spelling.
        """
        for part in parts:
            if not isinstance(part, int):
                check_text(part)
        known = self.text_tokens()
        control = {known[text] for text in plain}
        expected = sum(part in control for part in parts)
        for attempt in (list(parts), broken(parts, plain)):
            ids = self._encode_parts(attempt, plain)
            if sum(token_id in control for token_id in ids) <= expected:
                return ids
        raise TokenizerError(
            f"tokenizer {self._path}: a text spells a control token, for which there are no other tokens"
        )

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """See `executorch_mm.tokenizer.Tokenizer.decode`."""
        check_flag("skip_special_tokens", skip_special_tokens)
        decoder = self.decoder(skip_special_tokens=skip_special_tokens)
        return "".join([decoder.push(token_id) for token_id in listed(ids)]) + decoder.flush()

    def decoder(self, *, skip_special_tokens: bool = True, after: Sequence[int] = ()) -> IncrementalDecoder:
        """See `executorch_mm.tokenizer.Tokenizer.decoder`."""
        check_flag("skip_special_tokens", skip_special_tokens)

        def is_skipped(token_id: int) -> bool:
            return skip_special_tokens and self.is_special(token_id)

        start = self._start
        for token_id in listed(after):
            if start == 0:
                break
            if not is_skipped(token_id):
                start = self._piece_of(checked_id(token_id), start)[1]
        return PieceDecoder(
            lambda token_id, start: self._piece_of(checked_id(token_id), start),
            is_skipped,
            start,
            self._texts[skip_special_tokens],
            mark_each_byte=self._mark_each_byte,
            skipped_ends_character=self._skipped_ends_character,
        )

    def token_bytes(self, token_id: int) -> bytes:
        """See `executorch_mm.tokenizer.Tokenizer.token_bytes`."""
        return self._piece_of(checked_id(token_id), 0)[0]

    def _is_beginning(self, parts: Sequence[str | int], index: int) -> bool:
        """Whether part `index` begins the text: nothing is before it but perhaps BOS."""
        return index == 0 or (index == 1 and parts[0] == self.bos_id)

    def _require(self, option: str, token_id: int | None) -> int:
        if token_id is None:
            raise TokenizerError(f"{option}=True: tokenizer {self._path} has no such token")
        return token_id


def checked_id(token_id: int) -> int:
    """The id as an int.

    Raises:
        TokenizerError: It is negative or not an integer.
    """
    try:
        token_id = operator.index(token_id)
    except (TypeError, OverflowError):
        raise TokenizerError(f"token ids are integers, got {type(token_id).__name__}") from None
    if token_id < 0:
        raise TokenizerError(f"token ids are not negative, got {shown(token_id)}")
    return token_id


def listed(ids: Iterable[int]) -> Iterable[int]:
    """The ids.

    Raises:
        TokenizerError: They are no list or other iterable.
    """
    try:
        return iter(ids)
    except TypeError:
        raise TokenizerError(f"token ids: expected a list, got {shown(ids)}") from None


def check_flag(name: str, value: object) -> None:
    """Refuses what is neither True nor False.

    Raises:
        TokenizerError: The message names the option.
    """
    if not isinstance(value, bool):
        raise TokenizerError(f"{name}: expected True or False, got {shown(value)}")


def check_text(text: str) -> None:
    """Refuses what no tokenizer can encode.

    Raises:
        TokenizerError: `text` is not a str, or holds a lone surrogate.
    """
    if not isinstance(text, str):
        raise TokenizerError(f"text to encode must be a str, got {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TokenizerError(f"text to encode has a lone surrogate at position {error.start}") from None


def broken(parts: Sequence[str | int], plain: frozenset[str]) -> list[str | int]:
    """The parts with every text cut behind the first character of each of `plain`."""
    tokens = SpecialTokens(dict.fromkeys(plain, 0))
    cut: list[str | int] = []
    for part in parts:
        cut += [part] if isinstance(part, int) else tokens.cut(part)
    return cut


class SpecialTokens:
    """The control tokens of a vocabulary, found in running text (the longest wins where several begin)."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = dict(ids)
        self.texts = {token_id: text for text, token_id in self.ids.items()}
        longest_first: Iterable[str] = sorted((text for text in self.ids if text), key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first))
        self._pattern = re.compile(f"({pattern})") if pattern else None

    def split(self, text: str) -> list[str | int]:
        """`text` as its parts in order: the id of each special token, a non-empty str for what is between."""
        if self._pattern is None:
            return [text] if text else []
        parts = self._pattern.split(text)
        # re.split with one group alternates: text, special, text, special, ..., text.
        return [self.ids[part] if i % 2 else part for i, part in enumerate(parts) if part]

    def split_parts(self, parts: Sequence[str | int], plain: frozenset[str]) -> list[str | int]:
        """The parts, their texts split at the tokens that are not in `plain`."""
        others = (
            SpecialTokens({text: i for text, i in self.ids.items() if text not in plain}) if plain else self
        )
        split: list[str | int] = []
        for part in parts:
            split += [part] if isinstance(part, int) else others.split(part)
        return split

    def cut(self, text: str) -> list[str | int]:
        """`text` in pieces, none of which has a whole token in it."""
        if self._pattern is None:
            return [text]
        ends = [match.start() + 1 for match in self._pattern.finditer(text)]
        return [
            text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True) if start < end
        ]
