"""Random conversations with guesses and files, beside the same with neither: nothing tells them apart."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import CapacityError, InputError, MultimodalRunner, Snapshot, make_token_input
from number_tokenizer import NumberTokenizer
from stateful_models import MODELS

NAMES = (
    *("text/no_cache", "export_llm/llama_full_logits", "optimum/llama_custom_bfloat16"),
    *("optimum/gemma3_window_custom", "exports/transformers_gemma3", "multimodal/gemma3_custom"),
    *("export_llm/lfm2", "export_llm/qwen3_5_dynamic", "export_llm/llama_quantized_kv_cache"),
    "export_llm/llama_attention_sink",
)
NUM_STEPS = 24


def repeat(tokens: list[int], logits: np.ndarray) -> None:
    """Most tokens are those of six tokens before, as these models would not do by themselves."""
    if len(tokens) >= 6 and len(tokens) % 11 and tokens[-6] > 1:
        logits[tokens[-6]] += 60


class Talk:
    """A conversation; the plain one keeps snapshots in memory and guesses nothing."""

    def __init__(self, name: str, folder: Path | None) -> None:
        self.runner = MultimodalRunner(MODELS / f"{name}.pte", NumberTokenizer())
        self._folder = folder
        self._saved: dict[int, Snapshot | Path] = {}
        contract = self.runner.contract
        can_guess = folder is not None and contract.all_logits and not contract.is_recurrent
        self._num_guesses = 5 if can_guess else None

    def do(self, action: str, choice: random.Random) -> object:
        """One step; the same for the same state of `choice`."""
        try:
            return getattr(self, action)(choice)
        except (InputError, CapacityError) as error:
            return type(error)

    def prefill(self, choice: random.Random) -> object:
        ids = [choice.randrange(2, 60) for _ in range(choice.randrange(1, 9))]
        return self.runner.prefill(make_token_input(ids * choice.randrange(1, 3)))

    def generate(self, choice: random.Random) -> object:
        options: dict[str, Any] = {"max_new_tokens": choice.randrange(1, 12), "ignore_eos": True}
        if choice.random() < 0.5:
            options |= {"temperature": 1.1, "seed": choice.randrange(100)}
        result = self.runner.generate_result(
            [], logits_processors=[repeat], prompt_lookup_num_tokens=self._num_guesses, **options
        )
        return result.token_ids, result.finish_reason

    def leave(self, choice: random.Random) -> object:
        stream = self.runner.stream(
            make_token_input([choice.randrange(2, 60)]),
            logits_processors=[repeat],
            ignore_eos=True,
            prompt_lookup_num_tokens=self._num_guesses,
        )
        with contextlib.closing(stream):
            return [piece for piece, _ in zip(stream, range(choice.randrange(1, 6)), strict=False)]

    def rewind(self, choice: random.Random) -> object:
        self.runner.rewind(max(0, self.runner.position - choice.randrange(5)))
        return None

    def reset(self, choice: random.Random) -> object:
        if choice.random() < 0.4:
            self.runner.reset()
        return None

    def save(self, choice: random.Random) -> object:
        slot = choice.randrange(2)
        snapshot = self.runner.save(None if self._folder is None else self._folder / f"{slot}.emm")
        self._saved[slot] = snapshot if self._folder is None else self._folder / f"{slot}.emm"
        return snapshot.position

    def restore(self, choice: random.Random) -> object:
        slot = choice.randrange(2)
        if slot in self._saved:
            self.runner.restore(self._saved[slot])
        return None


ACTIONS = (*["prefill"] * 2, *["generate"] * 3, "leave", "rewind", "reset", "save", "restore")


@pytest.mark.parametrize("name", NAMES)
def test_guesses_and_files_change_nothing(name: str, tmp_path: Path) -> None:
    plain, other = Talk(name, None), Talk(name, tmp_path)
    num_accepted = 0
    with plain.runner, other.runner:
        for seed in range(6):
            for runner in (plain.runner, other.runner):
                runner.reset()
            choice = random.Random(f"{name} {seed}")
            for step in range(NUM_STEPS):
                action = choice.choice(ACTIONS)
                state = choice.getstate()
                expected = plain.do(action, choice)
                choice.setstate(state)
                assert other.do(action, choice) == expected, (seed, step, action)
                assert other.runner.history == plain.runner.history, (seed, step, action)
                num_accepted += other.runner.stats.num_accepted_tokens if action == "generate" else 0
        contract = other.runner.contract
        assert (num_accepted > 0) == (contract.all_logits and not contract.is_recurrent)
