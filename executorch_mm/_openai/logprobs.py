"""Probabilities of tokens as OpenAI's API shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from executorch_mm._engine.result import GenerationResult

Spell: TypeAlias = "Callable[[int], bytes]"

_LEAST = -9999.0  # stands for minus infinity, which JSON does not have


class Chosen(NamedTuple):
    """A token of an answer.

    Attributes:
        token: Its id.
        logprob: The logarithm of its probability.
        top: The likeliest tokens at its place, the same of them.
    """

    token: int
    logprob: float
    top: Sequence[tuple[int, float]]


def chosen_in(piece: object) -> list[Chosen]:
    """The tokens that have come with a piece of an answer.

    Args:
        piece: Of a stream whose logprobs are asked for.
    """
    return [
        Chosen(record.token, record.logprob, [(top.token, top.logprob) for top in record.top_logprobs])
        for record in getattr(piece, "records", ())  # a piece that comes with no token has none
    ]


def all_chosen(result: GenerationResult) -> list[Chosen]:
    """The tokens of an answer, without the one that ended it.

    Args:
        result: With logprobs.
    """
    assert result.logprobs is not None  # noqa: S101 (see above)
    assert result.top_logprobs is not None  # noqa: S101
    chosen = list(map(Chosen, result.token_ids, result.logprobs, result.top_logprobs))
    is_ended = isinstance(result.stopped_by, int) and result.token_ids[-1:] == (result.stopped_by,)
    return chosen[:-1] if is_ended else chosen


def chat_logprobs(chosen: Sequence[Chosen], spell: Spell) -> dict[str, object]:
    """The field `logprobs` of a chat completion.

    Args:
        chosen: The tokens.
        spell: Gives the bytes of a token, as `Tokenizer.token_bytes`.
    """

    def entry(token: int, logprob: float) -> dict[str, object]:
        spelled = spell(token)
        return {"token": _text(spelled), "logprob": max(logprob, _LEAST), "bytes": list(spelled)}

    content = [
        {**entry(each.token, each.logprob), "top_logprobs": [entry(*top) for top in each.top]}
        for each in chosen
    ]
    return {"content": content, "refusal": None}


def text_logprobs(chosen: Sequence[Chosen], spell: Spell, offset: int) -> dict[str, object]:
    """The field `logprobs` of a text completion.

    Args:
        chosen: The tokens.
        spell: Gives the bytes of a token, as `Tokenizer.token_bytes`.
        offset: Characters of the answer before them.
    """
    offsets = []
    tokens = [_text(spell(each.token)) for each in chosen]
    for text in tokens:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": tokens,
        "token_logprobs": [max(each.logprob, _LEAST) for each in chosen],
        "top_logprobs": [
            {_text(spell(token)): max(logprob, _LEAST) for token, logprob in each.top} for each in chosen
        ],
        "text_offset": offsets,
    }


def _text(spelled: bytes) -> str:
    return spelled.decode("utf-8", "replace")
