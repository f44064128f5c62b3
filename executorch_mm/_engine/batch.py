"""Conversations with one model that decode together because one caller has them all: greedy, by token ids.

For tests and benchmarks of true batches. Public sessions need none of this: whichever has its turn takes
along what the others wait to have read (`Session::read_in_company`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm._loading.options import PathLike, RunnerOptions, core_options
from executorch_mm.arrays import numpy as np

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from executorch_mm.preprocess.steps import FloatArray


class Conversation:
    """One conversation.

    Attributes:
        session: The compiled module's.
    """

    def __init__(self, session: _core.Session) -> None:
        self.session = session
        options = _core.SamplingOptions()
        options.temperature = 0.0
        self._sampling = options
        self._sampler = _core.Sampler(options)

    @classmethod
    def load(cls, model_path: PathLike, **options: Unpack[RunnerOptions]) -> Self:
        """The first one with a model.

        Raises:
            ModelLoadError: The file cannot be loaded.
            ContractError: The runner cannot drive it.
            InputError: An option is wrong.
        """
        return cls(_core.Session.load(core_options(model_path, **options)))

    def another(self) -> Self:
        """One more, at its beginning."""
        return type(self)(self.session.another())

    def fork(self) -> Self:
        """One more, which has read the same."""
        return type(self)(self.session.fork())

    def read(self, ids: Sequence[int]) -> None:
        """Reads tokens, after those that are pending.

        Raises:
            CapacityError: They do not fit.
        """
        self._read([], ids)

    def hear(self, features: FloatArray, ids: Sequence[int]) -> None:
        """Reads tokens after an audio clip, whose features are float32 (bins, frames).

        Raises:
            InputError: The model takes no such features.
            CapacityError: The tokens do not fit.
        """
        self._read([_core.PreparedInput.audio(features)], ids)

    def _read(self, before: list[_core.PreparedInput], ids: Sequence[int]) -> None:
        self.session.begin_request()
        self.session.begin_prefill([*before, _core.PreparedInput.tokens(np.array(ids, np.int64))])
        while self.session.step_prefill():
            pass

    def answer(self, count: int) -> list[int]:
        """The next tokens by itself, one call for each."""
        options = _core.GenerationOptions()
        options.sampling = self._sampling
        options.max_new_tokens = count
        generation = _core.Generation(self.session, options)
        return [token for _ in range(count) if (token := generation.next()) is not None]


def step_together(conversations: Sequence[Conversation]) -> list[int]:
    """The next token of each, after one call of the model for all of them.

    Raises:
        InputError: They are no batch: of several models, twice the same, or of a program that takes one
            conversation at a time (`contract.max_batch_tokens`).
        CapacityError: One of them is full; then nothing has changed.
    """
    samplers = [conversation._sampler for conversation in conversations]
    return _core.Session.step_together([conversation.session for conversation in conversations], samplers)
