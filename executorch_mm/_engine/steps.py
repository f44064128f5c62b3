"""The tokens of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm.arrays import numpy as np
from executorch_mm.config import LogitsProcessor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from executorch_mm._engine.constraint import Constraint
    from executorch_mm._engine.json_schema import Schema


class Steps:
    """One token after the other, with all that has a say in it.

    Args:
        generation: Chooses the tokens.
        processors: Change the logits.
        constraint: Says which tokens may come; None where any may.
    """

    def __init__(
        self,
        generation: _core.Generation,
        processors: tuple[LogitsProcessor, ...],
        constraint: Constraint | None,
    ) -> None:
        self.generation = generation
        self._processors = processors
        self._constraint = constraint
        self._forced: list[int] = []

    def force(self, tokens: Sequence[int]) -> None:
        """The next tokens are these, whatever the model says; a format may bring others before them."""
        self._forced = [*tokens]

    def next(self) -> int | None:
        """The next token; None when the answer is complete."""
        processors = self._processors
        if self._forced:
            processors = (*processors, _only(self._forced[0]))
        if self._constraint is None:
            token = self.generation.next(processors)
        else:
            token = self._constraint.next(self.generation, processors)
        if self._forced and token == self._forced[0]:
            del self._forced[0]
        return token

    @property
    def finish_reason(self) -> str:
        """Why the answer is complete."""
        return self.generation.finish_reason or "stop"  # the format allows nothing more

    @property
    def schema(self) -> Schema | None:
        """The JSON schema that the answer keeps to."""
        return None if self._constraint is None else self._constraint.schema

    @property
    def mask_ns(self) -> int:
        """Time spent on saying which tokens may come."""
        return 0 if self._constraint is None else self._constraint.mask_ns


def _only(token: int) -> LogitsProcessor:
    def process(_ids: object, logits: NDArray[np.float32]) -> None:
        logits[:] = -np.inf
        logits[token] = 0.0

    return process
