"""Texts in parts for tokenizer.json: added tokens come by id, and are text where a text spells them."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer


class PartsEncoder:
    """The pipeline of a tokenizer in which some added tokens have names that no text has.

    What is between two tokens is normalized, cut into words and merged as ever, so that ids differ from those
    of the tokenizer itself only where a text spells one of the tokens.

    Args:
        tokenizer: Shares its model and steps; nothing of it is changed.
        plain: Texts of the added tokens that are renamed.
    """

    def __init__(self, tokenizer: Tokenizer, plain: frozenset[str]) -> None:
        from tokenizers import AddedToken
        from tokenizers import Tokenizer as NewTokenizer

        self._encoder = NewTokenizer(tokenizer.model)
        if tokenizer.normalizer is not None:
            self._encoder.normalizer = tokenizer.normalizer
        if tokenizer.pre_tokenizer is not None:
            self._encoder.pre_tokenizer = tokenizer.pre_tokenizer
        nonce = secrets.token_hex(16)
        added = tokenizer.get_added_tokens_decoder()
        self._names = {
            token_id: f"\ue000{nonce}{token_id}\ue000"
            for token_id, token in added.items()
            if token.content in plain
        }
        # New ids begin at the size of the vocabulary; where that has gaps, they would be others' ids.
        known = tokenizer.get_vocab(with_added_tokens=False)
        gaps = max(known.values(), default=-1) + 1 - len(known)
        self._encoder.add_tokens(
            [AddedToken(f"\ue000{nonce}gap{i}\ue000", normalized=False) for i in range(gaps)]
        )
        self._encoder.add_tokens(
            [self._renamed(added[token_id], self._names.get(token_id)) for token_id in sorted(added)]
        )
        self._cut = f"\ue000{nonce}cut\ue000"
        self._encoder.add_tokens([AddedToken(self._cut, normalized=False)])
        self._ids: dict[int | None, int] = {
            self._encoder.token_to_id(self._names.get(token_id, token.content)): token_id
            for token_id, token in added.items()
        }
        self._cut_id = self._encoder.token_to_id(self._cut)

    def _renamed(self, token: AddedToken, name: str | None) -> AddedToken:
        from tokenizers import AddedToken

        if name is None:
            return token
        normalizer = self._encoder.normalizer
        survives = normalizer is None or normalizer.normalize_str(name) == name
        return AddedToken(
            name,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=token.normalized and survives,
            special=token.special,
        )

    def encode(self, parts: Sequence[str | int]) -> list[int]:
        """Ids of texts and of the tokens between them; texts that follow each other do not merge."""
        text = ""
        is_behind_text = False
        for part in parts:
            if isinstance(part, str):
                text += (self._cut if is_behind_text else "") + part
            else:
                text += self._names[part]
            is_behind_text = isinstance(part, str)
        ids = self._encoder.encode(text, add_special_tokens=False).ids
        return [self._ids.get(token_id, token_id) for token_id in ids if token_id != self._cut_id]
