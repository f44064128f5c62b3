"""Exact match of the shipped model on spoken words, in voices that training never used.

Through executorch_mm's own runner; needs espeak-ng and scipy, no torch.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from voices import COMMANDS, LONGEST, RATE, Espeak, Samples, placed, utterance, variants

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.inputs import make_audio_input

FIRST_SEED = 950_000_000
"""Training looks at clips 900,000,000 to 900,001,023 as it goes, and uses those below 150,000."""

KINDS = ("known accent, new variant",) * 2 + ("new accent, new variant", "new accent, known variant")
QUESTION = "What do you hear?<|end|><|assistant|>"
CONFIG = GenerationConfig(max_new_tokens=20, temperature=0.0)


def noisy(samples: Samples, decibels: float | None, rng: np.random.Generator) -> Samples:
    """White noise this far below the speech's mean power over the 4 s; as 16-bit samples, like a file's."""
    if decibels is not None:
        level = np.sqrt(np.square(samples).mean()) * 10 ** (-decibels / 20)
        samples = samples + rng.standard_normal(len(samples)).astype(np.float32) * level
    return np.clip(np.round(samples * 32767), -32768, 32767).astype(np.float32) / 32768


def measure(runner: MultimodalRunner, clips: int, decibels: float | None) -> dict[str, list[bool]]:
    """Whether each answer is exactly right, by kind of voice and by what is said."""
    espeak, known, rng = Espeak(), variants(), np.random.default_rng(11)
    found: dict[str, list[bool]] = defaultdict(list)
    for seed in range(FIRST_SEED, FIRST_SEED + clips):
        what = utterance(seed, known)
        clip = espeak.clip(what)
        if len(clip) > LONGEST * RATE:
            continue
        samples = noisy(placed(clip, rng), decibels, rng)
        runner.reset()
        audio = make_audio_input(samples, sampling_rate=RATE)
        good = runner.generate_text(["<|user|>", audio, QUESTION], CONFIG) == what.words
        count = len(what.words.split())
        found["all"].append(good)
        found[KINDS[seed % 4]].append(good)
        found["a command" if what.words in COMMANDS else f"{count} digit{'s' * (count > 1)}"].append(good)
        found[f"accent {what.accent}"].append(good)
        found[f"variant {what.variant}" if seed % 4 < 3 else "known variants"].append(good)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--model", type=Path, help="folder of another model; by default the one in the wheel")
    parser.add_argument("--json", type=Path, help="write the scores to this file")
    args = parser.parse_args()
    runner = MultimodalRunner(args.model / "model.pte", args.model) if args.model else MultimodalRunner.demo()
    scores: dict[str, dict[str, tuple[float, int]]] = {}
    for name, decibels in (("quiet", None), ("noise at -20 dB", 20.0), ("noise at -10 dB", 10.0)):
        start = time.perf_counter()
        found = measure(runner, args.clips if decibels is None else args.clips // 4, decibels)
        scores[name] = {key: (sum(goods) / len(goods), len(goods)) for key, goods in sorted(found.items())}
        print(f"{name} ({time.perf_counter() - start:.0f} s)")
        for key, (score, count) in scores[name].items():
            print(f"    {key:28} {score:.4f} of {count}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    main()
