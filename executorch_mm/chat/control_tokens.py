"""Which tokens must not come of what a message spells, and where a text spells them."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from executorch_mm.errors import InputError, TokenizerError

if TYPE_CHECKING:
    from executorch_mm.tokenizer import Tokenizer

# <|user|>, [INST]: marks of turns and media, whether or not a vocabulary calls them special. DeepSeek's have
# bars of full width.
_MARK = re.compile(r"<[|\uff5c].*[|\uff5c]>|\[/?[A-Z][A-Z_]*\]")


class Spelled(NamedTuple):
    """A token that a text spells, from `start` to `end`."""

    token: str
    start: int
    end: int


class Finder:
    """Finds tokens in texts, the longest that begins at a place."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens: frozenset[str] = frozenset(token for token in tokens if token)
        self._lengths: dict[str, list[int]] = {}
        for first, length in sorted({(token[0], len(token)) for token in self.tokens}, reverse=True):
            self._lengths.setdefault(first, []).append(length)
        # Two characters tell most places without a token: the code in a text is full of "<".
        begins = sorted({token[:2] for token in self.tokens})
        self._begin = re.compile("|".join(map(re.escape, begins)) or "(?!)")

    def all_in(self, text: str) -> Iterator[Spelled]:
        """Those at every place, in each other too."""
        match = self._begin.search(text)
        while match is not None:
            start = match.start()
            if token := self._at(text, start):
                yield Spelled(token, start, start + len(token))
            match = self._begin.search(text, start + 1)

    def one_after_another(self, text: str) -> Iterator[Spelled]:
        """Those that a tokenizer finds from the left."""
        end = 0
        for spelled in self.all_in(text):
            if spelled.start >= end:
                end = spelled.end
                yield spelled

    def _at(self, text: str, start: int) -> str | None:
        for length in self._lengths[text[start]]:
            if (token := text[start : start + length]) in self.tokens:
                return token
        return None


@dataclass(frozen=True)
class ControlTokens:
    """What a message's text must not become.

    Attributes:
        ids: All tokens that a text can spell, with their ids.
        every: Finds them.
        always: Those that are text whoever spells them: what the vocabulary calls special, and marks by their
            look.
        of_users: Those, and what else the template writes between texts (`<tool_call>`), which the model
            writes too.
        literals: What the template may write of itself.
    """

    ids: dict[str, int]
    every: Finder
    always: Finder
    of_users: Finder
    literals: str

    @classmethod
    def of(cls, tokenizer: Tokenizer, literals: Iterable[str]) -> ControlTokens:
        """Those of a tokenizer.

        Args:
            tokenizer: One of this package, or any other.
            literals: Texts that a template may write of itself.
        """
        ids = _text_tokens(tokenizer)
        written = "\0".join(literals)
        visible = {text: token_id for text, token_id in ids.items() if text and not text.isspace()}
        always = {
            text
            for text, token_id in visible.items()
            if tokenizer.is_special(token_id) or _MARK.fullmatch(text)
        }
        tags = {text for text in visible if not (text[0].isalnum() or text[-1].isalnum()) and text in written}
        return cls(ids, Finder(ids), Finder(always), Finder(always | tags), written)

    def written_in(self, ids: Sequence[int]) -> int:
        """How many of a prompt's tokens are control tokens."""
        return sum(token_id in self._control_ids for token_id in ids)

    @functools.cached_property
    def ends(self) -> frozenset[str]:
        """The characters that such a token begins or ends with."""
        return frozenset(end for token in self.of_users.tokens for end in (token[0], token[-1]))

    @functools.cached_property
    def _control_ids(self) -> frozenset[int]:
        return frozenset(self.ids[text] for text in self.of_users.tokens)


def _text_tokens(tokenizer: Tokenizer) -> dict[str, int]:
    if (text_tokens := getattr(tokenizer, "text_tokens", None)) is not None:
        found: dict[str, int] = text_tokens()
        return found
    special = filter(tokenizer.is_special, range(tokenizer.vocab_size))
    return {text: token_id for token_id in special if (text := tokenizer.id_to_token(token_id))}


def encode_parts(tokenizer: Tokenizer, parts: Sequence[str | int], plain: frozenset[str]) -> list[int]:
    """Token ids of texts, in which `plain` are text where they are spelled, and of the tokens between them.

    Raises:
        InputError: The tokenizer has no other way to spell one of them.
    """
    try:
        if (encode := getattr(tokenizer, "encode_parts", None)) is not None:
            ids: list[int] = encode(parts, plain)
            return ids
        return _encode_broken(tokenizer, parts, Finder(plain))
    except TokenizerError as error:
        raise InputError(f"messages: {error}; ChatOptions(special_tokens_in_text=True) lets it") from error


def _encode_broken(tokenizer: Tokenizer, parts: Sequence[str | int], plain: Finder) -> list[int]:
    """By somebody else's tokenizer, which finds tokens in texts: each text is cut in the middle of them."""
    ids: list[int] = []
    for part in parts:
        if isinstance(part, int):
            ids.append(part)
            continue
        cuts = [0, *(spelled.start + 1 for spelled in plain.all_in(part)), len(part)]
        for start, end in itertools.pairwise(cuts):
            ids += tokenizer.encode(part[start:end]) if start < end else []
    return ids
