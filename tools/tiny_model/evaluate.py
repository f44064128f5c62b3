"""Exact match of the shipped model on held-out scenes, through executorch_mm's own runner; needs no torch.

Run with the project installed: python tools/tiny_model/evaluate.py
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.demo import QA, Scene, ask, ask_pair, make_scene, render

FIRST_SEED = 901_000_000
"""Training uses seeds below 120,000, and looks at those from 900,000,000 to 900,001,023 as it goes."""

CONFIG = GenerationConfig(max_new_tokens=40, temperature=0.0)
Prompt = list[str | Image.Image]
END = "<|end|><|assistant|>"


def single(scene: Scene, rng: random.Random) -> tuple[QA, Prompt]:
    qa = ask(scene, rng)
    return qa, ["<|user|>", render(scene), qa.question + END]


def user_text_image(scene: Scene, rng: random.Random) -> tuple[QA, Prompt]:
    qa = ask(scene, rng)
    return qa, ["<|user|>" + qa.question, render(scene), END]


def raw_text_image(scene: Scene, rng: random.Random) -> tuple[QA, Prompt]:
    qa = ask(scene, rng)
    return qa, [qa.question, render(scene)]


def raw_image_text(scene: Scene, rng: random.Random) -> tuple[QA, Prompt]:
    qa = ask(scene, rng)
    return qa, [render(scene), qa.question]


def _two(scene: Scene, rng: random.Random) -> tuple[QA, Image.Image, Image.Image]:
    other = make_scene(scene.seed + 500_000)
    return ask_pair(scene, other, rng), render(scene), render(other)


def pair(scene: Scene, rng: random.Random) -> tuple[QA, Prompt]:
    qa, a, b = _two(scene, rng)
    return qa, ["<|user|>", a, b, qa.question + END]


def interleaved(scene: Scene, rng: random.Random) -> tuple[QA, Prompt]:
    qa, a, b = _two(scene, rng)
    return qa, ["<|user|>Picture 1:", a, "Picture 2:", b, qa.question + END]


def raw_pair(scene: Scene, rng: random.Random) -> tuple[QA, Prompt]:
    qa, a, b = _two(scene, rng)
    return qa, [a, b, qa.question]


FORMS: dict[str, Callable[[Scene, random.Random], tuple[QA, Prompt]]] = {
    "single": single,
    "pair": pair,
    "raw_text_image": raw_text_image,
    "raw_image_text": raw_image_text,
    "user_text_image": user_text_image,
    "interleaved": interleaved,
    "raw_pair": raw_pair,
}


def measure(runner: MultimodalRunner, form: str, scenes: int) -> dict[str, list[bool]]:
    """One question about each scene; whether each answer is exactly right, by question type."""
    rng = random.Random(f"evaluate {form}")
    found: dict[str, list[bool]] = defaultdict(list)
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        qa, prompt = FORMS[form](make_scene(seed), rng)
        runner.reset()
        found[qa.type].append(runner.generate_text(prompt, CONFIG) == qa.answer)
    return found


def _turns(runner: MultimodalRunner, scene: Scene, rng: random.Random) -> Iterator[bool]:
    """Questions about one image until the context is nearly full."""
    runner.reset()
    prompt: Prompt = ["<|user|>", render(scene)]
    while runner.position < runner.capacity - 48:
        qa = ask(scene, rng)
        yield runner.generate_text([*prompt, qa.question + END], CONFIG) == qa.answer
        prompt = ["<|user|>"]


def measure_chats(runner: MultimodalRunner, scenes: int) -> dict[str, list[bool]]:
    """Long chats, one per scene; whether each answer is exactly right, by turn."""
    rng = random.Random("evaluate chats")
    found: dict[str, list[bool]] = defaultdict(list)
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        for turn, good in enumerate(_turns(runner, make_scene(seed), rng)):
            first = turn // 3 * 3 + 1
            found[f"turns {first}-{first + 2}"].append(good)
    return found


def show(form: str, found: dict[str, list[bool]], seconds: float) -> float:
    every = [good for goods in found.values() for good in goods]
    score = sum(every) / len(every)
    print(f"{form}: {score:.4f} of {len(every)} questions ({seconds:.0f} s)", flush=True)
    for name, goods in found.items():
        print(f"    {name:14} {sum(goods) / len(goods):.4f} of {len(goods)}", flush=True)
    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scenes", type=int, default=1000, help="for single and pair; a fifth for the other forms"
    )
    parser.add_argument("--model", type=Path, help="folder of another model; by default the one in the wheel")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    args = parser.parse_args()
    runner = MultimodalRunner(args.model / "model.pte", args.model) if args.model else MultimodalRunner.demo()
    scores: dict[str, float] = {}
    for form in FORMS:
        start = time.perf_counter()
        found = measure(runner, form, args.scenes if form in ("single", "pair") else max(1, args.scenes // 5))
        scores[form] = show(form, found, time.perf_counter() - start)
    start = time.perf_counter()
    chats = measure_chats(runner, max(1, args.scenes // 10))
    scores["chat"] = show("chat", chats, time.perf_counter() - start)
    if args.json:
        args.json.write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    main()
