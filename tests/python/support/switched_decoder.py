"""export_llm's decoder with our kernels, of which an environment variable switches a part off."""

from __future__ import annotations

import numpy as np

from executorch_mm import MultimodalRunner, XnnpackOptions, make_token_input
from executorch_mm._loading.methods import load_methods
from model_set import MODELS
from number_tokenizer import NumberTokenizer

MODEL = MODELS / "export_llm" / "llama_xnnpack_8da4w.pte"
OWN = XnnpackOptions(linear="own")


def logits(calls: list[list[int]]) -> np.ndarray:  # type: ignore[type-arg]
    """What each call gives behind those before it, [calls, vocabulary]."""
    methods, _ = load_methods(MODEL, xnnpack=OWN, num_threads=1)
    rows, position = [], 0
    for tokens in calls:
        rows.append(np.array(methods.run("forward", [np.array([tokens]), np.array([position])])).ravel())
        position += len(tokens)
    return np.stack(rows)


def talk() -> list[str]:
    """An answer, and another one behind a part of its prompt."""
    with MultimodalRunner(MODEL, NumberTokenizer(), xnnpack=OWN) as runner:
        texts = [runner.generate_text(make_token_input([3, 17, 40]), max_new_tokens=6, ignore_eos=True)]
        runner.rewind(2)
        texts.append(runner.generate_text(make_token_input([5]), max_new_tokens=6, ignore_eos=True))
        return texts
