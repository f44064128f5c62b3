"""Follows a recorded answer with executorch_mm: which token it would choose at each step."""

from __future__ import annotations

from typing import TypedDict

from executorch_mm import GenerationConfig, MultimodalRunner, make_token_input

WINDOW = 16  # tokens generated before they are looked at


class Answer(TypedDict):
    """One prompt's answer as `record.py` writes it."""

    name: str
    prompt: str
    prompt_ids: list[int]
    ids: list[int]
    ties: dict[str, dict[str, float]]  # step -> token id -> how far its logit is below the best one
    own_flips: list[int]  # steps where upstream itself chooses otherwise, reading token by token


class Difference(TypedDict):
    """A step at which the choice is not the recorded token."""

    step: int
    recorded: int
    chosen: int
    gap: float | None  # between the two in upstream's logits; None if it is more than the record's noise


def differences(runner: MultimodalRunner, answer: Answer) -> list[Difference]:
    """Every step at which the runner, given the recorded tokens before it, chooses another one.

    Up to the first of them this is greedy generation; after each, the recorded token is put in its place.

    Raises:
        ValueError: The prompt has other token ids than in the record.
    """
    runner.reset()
    start = runner.prefill(answer["prompt"])
    if runner.history != answer["prompt_ids"]:
        raise ValueError(f"{answer['name']}: the prompt's ids are {runner.history}")
    found: list[Difference] = []
    ids, step = answer["ids"], 0
    while step < len(ids):
        # The last sampled token is not in the history yet, hence one more.
        count = min(WINDOW, len(ids) - step)
        runner.generate([], GenerationConfig(max_new_tokens=count + 1, ignore_eos=True))
        for chosen in runner.history[start + step :]:
            recorded = ids[step]
            step += 1
            if chosen != recorded:
                gap = answer["ties"].get(str(step - 1), {}).get(str(chosen))
                found.append({"step": step - 1, "recorded": recorded, "chosen": chosen, "gap": gap})
                break
        if step < len(ids):
            runner.rewind(start + step - 1)
            runner.prefill([make_token_input([ids[step - 1]])])
    return found
