"""Upstream's `GenerationConfig`."""

from __future__ import annotations

from dataclasses import dataclass

import executorch_mm as ours

# Upstream samples among the likeliest tokens of this probability together, and has no option for it.
_TOP_P = 0.9


@dataclass(slots=True, repr=False, eq=False)
class GenerationConfig:
    """Options of one request, with upstream's names and defaults. Fields may be set later, too.

    Values are checked when a runner uses them.

    Attributes:
        echo: Deliver the prompt's text before the answer.
        max_new_tokens: Tokens to generate at most; -1 for as many as the context holds.
        warming: Accepted; upstream prints nothing in such a run, and nothing is ever printed here.
        seq_len: Positions that prompt and answer may use together; -1 for the whole context.
        temperature: 0 picks the likeliest token; larger values flatten the distribution.
        num_bos: Beginning-of-text tokens before a text that starts a conversation. 0 leaves it to the
            tokenizer's files, see `executorch_mm.GenerationConfig`.
        num_eos: End-of-text tokens after the prompt.
    """

    echo: bool = True
    max_new_tokens: int = -1
    warming: bool = False
    seq_len: int = -1
    temperature: float = 0.8
    num_bos: int = 0
    num_eos: int = 0

    def resolve_max_new_tokens(self, max_context_len: int, num_tokens_occupied: int) -> int:
        """Tokens that may be generated when part of the context is already in use.

        Args:
            max_context_len: Positions the context holds.
            num_tokens_occupied: Positions in use.

        Returns:
            The tightest of max_new_tokens, seq_len and what is left of the context; never negative.

        Raises:
            InputError: A field of this config is out of its range.
        """
        return to_ours(self).resolve_max_new_tokens(max_context_len, num_tokens_occupied)

    def __repr__(self) -> str:
        return (
            f"<GenerationConfig max_new_tokens={self.max_new_tokens} seq_len={self.seq_len} "
            f"temperature={self.temperature:f} echo={self.echo} warming={self.warming}>"
        )


def to_ours(config: GenerationConfig) -> ours.GenerationConfig:
    """The config as this package's runner takes it; echo and warming are up to the layer above.

    Raises:
        InputError: A value is out of its range.
    """
    return ours.GenerationConfig(
        max_new_tokens=config.max_new_tokens,
        seq_len=config.seq_len,
        temperature=config.temperature,
        top_p=_TOP_P,
        num_bos=config.num_bos,
        num_eos=config.num_eos,
    )
