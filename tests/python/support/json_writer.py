"""A model that writes a given text, for tests of what a format allows and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from executorch_mm import GenerationResult, MultimodalRunner

PROMPT = "how many shapes are there?"


def written(runner: MultimodalRunner, text: str, **options: object) -> GenerationResult:
    """The answer of a model that writes this text, as far as the format allows it, and then ends."""
    runner.reset()
    processors = [writer(runner, text)]
    return runner.generate_result(PROMPT, logits_processors=processors, **options)  # type: ignore[arg-type]


def writer(runner: MultimodalRunner, text: str) -> Callable[[list[int], np.ndarray], None]:
    tokenizer = runner.tokenizer
    pieces = [
        b"" if tokenizer.is_special(i) else tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)
    ]
    num_prompt: list[int] = []

    def say(tokens: list[int], logits: np.ndarray) -> None:
        num_prompt.append(len(tokens))
        done = b"".join(pieces[token] for token in tokens[num_prompt[0] :])
        rest = text.encode().removeprefix(done)
        # Where the format leaves one text only, llguidance allows one way to cut it into tokens.
        for token, piece in enumerate(pieces):
            is_next = rest.startswith(piece) if rest and piece else not rest and token in tokenizer.eos_ids
            logits[token] = 0 if is_next else -np.inf

    return say
