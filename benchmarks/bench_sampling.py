"""Times the choice of a token from a row of logits: our sampler beside plain numpy, interleaved.

Both run on one thread, and what is counted is that thread's processor time, so that a busy machine does not
change the figures much. Before the timing, numpy's distribution is compared with ours.

    python benchmarks/bench_sampling.py --vocab 49152 262144
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from executorch_mm import GenerationConfig
from executorch_mm.sampling import Sampler

Row = NDArray[np.float32]

OPTIONS: tuple[dict[str, float], ...] = (
    {"temperature": 0.0},
    {"temperature": 0.8},
    {"temperature": 0.8, "top_p": 0.9},
    {"temperature": 0.8, "top_p": 0.5},
    {"temperature": 0.8, "min_p": 0.05},
    {"temperature": 0.8, "typical_p": 0.9},
    {"temperature": 0.8, "top_k": 50},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.95},
)
SPREADS = {"flat": 1.0, "usual": 3.0, "sure": 8.0}  # standard deviation of normal logits


def numpy_distribution(logits: Row, config: GenerationConfig) -> tuple[NDArray[np.intp] | None, Row]:
    """Token ids (None: all) and their probabilities."""
    ids = None
    if config.top_k:
        ids = np.argpartition(logits, -config.top_k)[-config.top_k :]
        logits = logits[ids]
    weights = np.exp((logits - logits.max()) / np.float32(config.temperature))
    weights /= weights.sum()
    if config.top_p < 1:
        order = np.argsort(-weights)
        count = np.searchsorted(np.cumsum(weights[order]), config.top_p) + 1
        order = order[:count]
        ids, weights = (order if ids is None else ids[order]), weights[order]
    if config.min_p:
        kept = weights >= config.min_p * weights.max()
        ids, weights = np.flatnonzero(kept) if ids is None else ids[kept], weights[kept]
    if config.typical_p < 1:
        with np.errstate(divide="ignore"):
            surprises = -np.log(weights)
        distances = np.abs(surprises - (weights * surprises).sum())
        order = np.argsort(distances)
        order = order[: np.searchsorted(np.cumsum(weights[order]), config.typical_p) + 1]
        ids, weights = (order if ids is None else ids[order]), weights[order]
    return ids, weights


def numpy_sample(logits: Row, config: GenerationConfig, rng: np.random.Generator) -> int:
    if config.temperature == 0:
        return int(logits.argmax())
    ids, weights = numpy_distribution(logits, config)
    reached = np.cumsum(weights)
    drawn = min(int(np.searchsorted(reached, rng.random() * reached[-1])), len(reached) - 1)
    return drawn if ids is None else int(ids[drawn])


def check(logits: Row, config: GenerationConfig) -> None:
    """Both sides narrow the distribution to the same, but for float32's sums."""
    if config.temperature == 0:
        return
    ids, weights = numpy_distribution(logits, config)
    expected = np.zeros(len(logits))
    expected[slice(None) if ids is None else ids] = weights / weights.sum()
    found = Sampler(config).probabilities(logits)
    assert np.abs(found - expected).sum() < 1e-3, "the distributions differ"


def processor_us(call: Callable[[], object], repeats: int) -> float:
    """Median processor time of a call in microseconds."""
    times = []
    for _ in range(repeats):
        start = time.thread_time_ns()
        call()
        times.append(time.thread_time_ns() - start)
    return median(times) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vocab", type=int, nargs="+", default=[49_152, 262_144])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()

    print("vocabulary  logits  options                                    ours us   numpy us  numpy / ours")
    for vocab in arguments.vocab:
        for name, spread in SPREADS.items():
            logits = np.random.default_rng(1).normal(0, spread, vocab).astype(np.float32)
            for options in OPTIONS:
                config = GenerationConfig(seed=1, **options)
                check(logits, config)
                sampler, rng = Sampler(config), np.random.default_rng(1)
                sampler.sample(logits)
                ours, theirs = [], []
                for _ in range(arguments.rounds):
                    ours.append(processor_us(lambda s=sampler, row=logits: s.sample(row), 15))
                    theirs.append(
                        processor_us(lambda row=logits, c=config, r=rng: numpy_sample(row, c, r), 3)
                    )
                ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
                text = ", ".join(f"{key} {value:g}" for key, value in options.items())
                print(
                    f"{vocab:10}  {name:6}  {text:42} {median(ours):8.1f}  {median(theirs):9.1f}  "
                    f"{median(ratios):6.1f} ({ratios[0]:.1f} - {ratios[-1]:.1f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
