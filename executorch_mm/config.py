"""How an answer is generated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from executorch_mm.errors import InputError
from executorch_mm.text_stream import check_stops


@dataclass(frozen=True)
class GenerationConfig:
    """Options of one request.

    Attributes:
        max_new_tokens: Tokens to generate at most; -1 for as many as the context holds.
        seq_len: Positions that prompt and answer may use together; -1 for the whole context. With both
            limits set the smaller one holds.
        temperature: 0 picks the likeliest token; larger values flatten the distribution. Any value >= 0.
        top_k: Sample among the k likeliest tokens; 0 for all.
        top_p: Sample among the likeliest tokens that together reach this probability; 1 for all.
        seed: Same seed, prompt and model give the same answer; None draws a fresh one.
        stop: Texts that end the answer where they begin; they are not part of it.
        ignore_eos: Go on after the model's end token.
        echo: Deliver the prompt's text before the answer. Off by default; nothing is ever printed.
        num_bos: Beginning-of-text tokens put before a prompt that starts a conversation. 0 leaves it to the
            tokenizer's files: one where they ask for it (as those of Llama and Gemma do) and the text has
            none yet; token ids are taken as they are.
        num_eos: End-of-text tokens put after the prompt.

    Raises:
        InputError: A value is out of its range; the message names the field.

    Example:
        >>> GenerationConfig(max_new_tokens=100, temperature=0.7, top_p=0.9).top_k
        0
    """

    max_new_tokens: int = -1
    seq_len: int = -1
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    ignore_eos: bool = False
    echo: bool = False
    num_bos: int = 0
    num_eos: int = 0

    def __post_init__(self) -> None:
        for field in ("max_new_tokens", "seq_len"):
            _check_int(field, getattr(self, field), -1, "-1 (no limit) or more")
        for field in ("top_k", "num_bos", "num_eos"):
            _check_int(field, getattr(self, field), 0, "0 or more")
        for field in ("temperature", "top_p"):
            _check_finite(field, getattr(self, field))
        if self.temperature < 0:
            raise InputError(f"temperature: expected 0 or more, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p: expected a number in (0, 1], got {self.top_p}")
        if self.seed is not None and (isinstance(self.seed, bool) or not isinstance(self.seed, int)):
            raise InputError(f"seed: expected an int or None, got {self.seed!r}")
        check_stops(self.stop)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """`stop` as a tuple."""
        return tuple(check_stops(self.stop))

    def resolve_max_new_tokens(self, max_context_len: int, num_tokens_occupied: int = 0) -> int:
        """Tokens that may be generated when part of the context is already in use.

        Args:
            max_context_len: Positions the context holds.
            num_tokens_occupied: Positions in use.

        Returns:
            The tightest of max_new_tokens, seq_len and what is left of the context; never negative.
        """
        end = max_context_len if self.seq_len == -1 else min(self.seq_len, max_context_len)
        room = max(end - num_tokens_occupied, 0)
        return room if self.max_new_tokens == -1 else min(self.max_new_tokens, room)


def _check_int(field: str, value: object, least: int, wanted: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{field}: expected an int, got {type(value).__name__} {value!r}")
    if value < least:
        raise InputError(f"{field}: expected {wanted}, got {value}")


def _check_finite(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{field}: expected a finite number, got {value!r}")
