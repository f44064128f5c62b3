"""From options to tokens: the sampler by itself, and options in the form the core takes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm.arrays import numpy as np
from executorch_mm.arrays import to_numpy
from executorch_mm.config import GenerationConfig
from executorch_mm.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Sampler:
    """Chooses tokens from rows of logits as an answer with this config does, without a model.

    It is the code that generation runs, for those who have logits of their own and for tests. Callables in
    `logits_processors` are not called: change the logits before.

    Args:
        config: The options. Of those that end an answer only stop_token_ids matters, for min_new_tokens.

    Examples:
        >>> sampler = Sampler(GenerationConfig(temperature=1.0, top_k=2))
        >>> sampler.probabilities(np.array([0.0, 1.0, 1.0], np.float32)).tolist()
        [0.0, 0.5, 0.5]
    """

    def __init__(self, config: GenerationConfig) -> None:
        options = sampling_options(config)
        options.end_tokens = config.stop_token_ids
        self._sampler = _core.Sampler(options)

    def sample(self, logits: NDArray[np.float32], history: Sequence[int] = ()) -> int:
        """The next token.

        Args:
            logits: float32 (vocab_size), contiguous.
            history: Token ids before it: the prompt's and those that were sampled.

        Raises:
            InputError: An option names a token beyond the logits, or these are not as said.
            ExecutionError: No token is left to choose from.
        """
        return self._sampler.sample(_checked(logits), list(history))

    def probabilities(self, logits: NDArray[np.float32], history: Sequence[int] = ()) -> NDArray[np.float64]:
        """The distribution that `sample` draws from, (vocab_size); parameters and errors are the same."""
        return self._sampler.probabilities(_checked(logits), list(history))


def sampling_options(config: GenerationConfig) -> _core.SamplingOptions:
    """The options of a config that choose tokens; draws a seed where it has none."""
    options = _core.SamplingOptions()
    options.temperature = config.temperature
    options.top_k = config.top_k
    options.top_p = config.top_p
    options.min_p = config.min_p
    options.typical_p = config.typical_p
    options.repetition_penalty = config.repetition_penalty
    options.frequency_penalty = config.frequency_penalty
    options.presence_penalty = config.presence_penalty
    options.no_repeat_ngram_size = config.no_repeat_ngram_size
    options.logit_bias = list(config.logit_bias.items())
    options.suppress_tokens = config.suppress_tokens
    options.forced_tokens = config.forced_tokens
    options.min_new_tokens = config.min_new_tokens
    options.num_logprobs = -1 if config.logprobs is None else config.logprobs
    options.seed = int.from_bytes(os.urandom(8), "big") if config.seed is None else config.seed % 2**64
    return options


def generation_options(config: GenerationConfig, eos_ids: Sequence[int]) -> _core.GenerationOptions:
    """The options of a config for one answer of a model with the end tokens `eos_ids`."""
    options = _core.GenerationOptions()
    options.sampling = sampling_options(config)
    options.max_new_tokens = config.max_new_tokens
    options.max_positions = config.seq_len
    options.timeout_ns = -1 if config.timeout is None else timeout_ns(config.timeout)
    options.eos_ids = [] if config.ignore_eos else eos_ids
    options.stop_token_ids = config.stop_token_ids
    options.include_stop = config.include_stop
    options.num_lookup_tokens = config.prompt_lookup_num_tokens or 0
    given = config.num_assistant_tokens
    options.num_assistant_tokens = _DRAFTED_TOKENS if given is None else given
    return options


_DRAFTED_TOKENS = 8  # where a draft model is loaded and nothing is said

NEVER = 2**63 - 1
"""A time of `_core.now_ns()` that does not come."""


def timeout_ns(seconds: float) -> int:
    """As the core takes it."""
    return int(min(seconds * 1e9, 2.0**62))


def deadline_ns(timeout: float | None, start_ns: int) -> int:
    """When a request comes to an end that began at `start_ns` and may take `timeout` seconds."""
    return NEVER if timeout is None else start_ns + timeout_ns(timeout)


def _checked(given: NDArray[np.float32]) -> NDArray[np.float32]:
    logits = to_numpy(given, "logits")
    if logits.dtype != np.float32 or logits.ndim != 1 or not logits.flags.c_contiguous or not logits.size:
        raise InputError(
            f"logits: expected contiguous float32 (vocab_size,), got {logits.dtype} {logits.shape}"
        )
    return logits.view(np.float32)
