"""How likely the tokens of a text are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from executorch_mm._engine.likelihood import Limits, apart, read_scored
from executorch_mm.inputs import as_parts
from executorch_mm.stats import Stats, counted

if TYPE_CHECKING:
    from executorch_mm import _core
    from executorch_mm._engine.requests import Requests
    from executorch_mm.inputs import Prompt


@dataclass(frozen=True, repr=False)
class Score:
    """How likely each token of a text was, given those before it.

    Attributes:
        token_ids: The tokens.
        logprobs: The logarithm of each one's probability in the model's own distribution; None for a first
            token before which there was nothing.
        is_likeliest: Whether no other token was likelier at its place; False for such a first token.
        stats: What the request cost.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    is_likeliest: tuple[bool, ...]
    stats: Stats

    @property
    def total(self) -> float:
        """The logarithm of the probability of the whole text: the sum of `logprobs`."""
        return math.fsum(self._known)

    @property
    def perplexity(self) -> float:
        """`exp(-total / n)` over the n tokens that have a probability; nan where there are none."""
        known = self._known
        return math.exp(-math.fsum(known) / len(known)) if known else math.nan

    @property
    def is_greedy(self) -> bool:
        """Whether a greedy answer would have been this text."""
        return all(
            likeliest
            for likeliest, logprob in zip(self.is_likeliest, self.logprobs, strict=True)
            if logprob is not None
        )

    @property
    def _known(self) -> list[float]:
        return [logprob for logprob in self.logprobs if logprob is not None]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "token_ids": [*self.token_ids],
            "logprobs": [*self.logprobs],
            "is_likeliest": [*self.is_likeliest],
            "stats": self.stats.to_dict(),
        }

    def __repr__(self) -> str:
        return (
            f"<Score: {counted(len(self.token_ids), 'token')}, total {self.total:.4g}, "
            f"perplexity {self.perplexity:.4g}>"
        )


def score(requests: Requests, session: _core.Session, inputs: Prompt, timeout: float | None) -> Score:
    """Scores a text, for the one who has been let in."""
    ids = requests.encoder.token_ids(as_parts(inputs), is_start=session.position == 0)
    with apart(session) as branch:
        scores = read_scored(branch, ids, Limits(session, timeout))
        requests.stats = requests.make_stats(branch)
    return Score(
        token_ids=tuple(ids),
        logprobs=tuple(None if math.isnan(logprob) else logprob for logprob, _ in scores),
        is_likeliest=tuple(likeliest for _, likeliest in scores),
        stats=requests.stats,
    )
