"""Writes data/sampling/sampling_transformers.json: distributions as transformers' processors leave them.

Processors are chosen and put in order by transformers itself, from its GenerationConfig. Needs torch and
transformers (5.23.0 made the committed file):

    python tools/sampling_reference.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.generation.utils import GenerationMixin

OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "sampling" / "sampling_transformers.json"
VOCAB_SIZE = 40
EOS_IDS = [0, 7]
ALONE = [
    *({"temperature": value} for value in (0.3, 1.0, 2.5)),
    *({"top_k": value} for value in (1, 5, 39, 100)),
    *({"top_p": value} for value in (0.05, 0.5, 0.9, 0.999)),
    *({"min_p": value} for value in (0.02, 0.3)),
    *({"typical_p": value} for value in (0.05, 0.5, 0.95)),
    *({"repetition_penalty": value} for value in (0.7, 1.3, 5.0)),
    *({"no_repeat_ngram_size": value} for value in (1, 2, 3)),
    {"logit_bias": {"3": 4.5, "11": -2.25, "0": 1.5}},
    {"suppress_tokens": [1, 2, 39]},
    {"min_new_tokens": 4},
]


def transformers_config(options: dict) -> transformers.GenerationConfig:
    """The same options under transformers' names, with everything else off."""
    changed = {"do_sample": True, "top_k": 0, "eos_token_id": EOS_IDS, **options}
    bias = changed.pop("logit_bias", None)
    if bias:
        changed["sequence_bias"] = {(int(token),): value for token, value in bias.items()}
    config = transformers.GenerationConfig(**changed)
    config._eos_token_tensor = torch.tensor(EOS_IDS)
    return config


class Mixin(GenerationMixin):
    """What transformers needs to know of a model to choose its processors."""

    config = transformers.PretrainedConfig(is_encoder_decoder=False)


def distribution(options: dict, logits: list[float], history: list[int], prompt_length: int) -> list[float]:
    processors = Mixin()._get_logits_processor(
        transformers_config(options), input_ids_seq_length=prompt_length, device="cpu"
    )
    scores = processors(torch.tensor([history]), torch.tensor([logits], dtype=torch.float32))
    return [round(p, 7) for p in torch.softmax(scores[0].double(), dim=-1).tolist()]


def random_mixture(rng: random.Random) -> dict:
    """A few of the options at once."""
    mixture: dict = {"temperature": rng.choice([0.5, 0.8, 1.7])}
    for options in rng.sample(ALONE, 4):
        mixture |= options
    return mixture


def main() -> None:
    rng = random.Random(2026)
    numpy_rng = np.random.default_rng(2026)
    cases = []
    for options in [*ALONE, *(random_mixture(rng) for _ in range(60))]:
        logits = np.round(numpy_rng.normal(0, 2.5, VOCAB_SIZE), 3).tolist()
        history = [rng.randrange(12) for _ in range(14)]
        prompt_length = 12  # two tokens have been generated
        cases.append(
            {
                "options": options,
                "logits": logits,
                "history": history,
                "probabilities": distribution(options, logits, history, prompt_length),
            }
        )
    document = {"transformers": transformers.__version__, "eos_ids": EOS_IDS, "cases": cases}
    lines = json.dumps(document).replace('{"options"', '\n{"options"')
    OUTPUT.write_text(lines + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
