"""What a second request gains by what another has read: its time to the first token, beside the first's.

    python benchmarks/bench_caches.py MODEL.pte TOKENIZER
    python benchmarks/bench_caches.py VISION.pte TOKENIZER --images

Each pair has a prompt, or an image, of its own, so that the first finds nothing; both run in sessions of
their own, one right after the other. Beside them runs a model that keeps nothing, whose time for the first
requests shows what keeping costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from executorch_mm import MultimodalModel, Session, make_token_input

SHARED, OWN = 900, 8  # tokens
QUESTION = 12


def tokens(seed: int, count: int) -> Any:
    return make_token_input([100 + (seed * 131 + 7 * i * (i + seed)) % 4000 for i in range(count)])


def first_token(session: Session, prompt: list[Any]) -> tuple[float, float]:
    """Milliseconds to the first token, by the clock and of the processor."""
    processor, start = time.process_time(), time.perf_counter()
    session.generate_result(prompt, max_new_tokens=1, ignore_eos=True, temperature=0.0)
    return (time.perf_counter() - start) * 1e3, (time.process_time() - processor) * 1e3


def prompts(number: int, with_images: bool) -> tuple[list[Any], list[Any]]:
    if not with_images:
        shared = tokens(number, SHARED)
        return [shared, tokens(1000 + number, OWN)], [shared, tokens(2000 + number, OWN)]
    from PIL import Image

    rng = np.random.default_rng(number)
    image = Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8))
    before = tokens(number, 4)
    return [before, image, tokens(1000 + number, QUESTION)], [before, image, tokens(2000 + number, QUESTION)]


def pairs(model: MultimodalModel, plain: MultimodalModel, rounds: int, with_images: bool) -> dict[str, float]:
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    for number in range(-1, rounds):
        one, other = prompts(number % 10**6, with_images)
        with plain.session() as session:
            without = first_token(session, one)
        with model.session() as session:
            first = first_token(session, one)
        with model.session() as session:
            second = first_token(session, other)
            reused = session.stats.num_cached_tokens
        if number < 0:
            continue  # warm
        note("first_ms", first[0])
        note("second_ms", second[0])
        note("ratio", second[0] / first[0])
        note("processor_ratio", second[1] / first[1])
        note("first_beside_a_model_that_keeps_nothing", first[1] / without[1])
        note("reused_positions", reused)
    return {name: statistics.median(values) for name, values in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--images", action="store_true", help="questions about an image, not texts")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    nothing: Any = {"prefix_cache_bytes": 0, "encoder_cache_bytes": 0}
    with (
        MultimodalModel(given.model, given.tokenizer) as model,
        MultimodalModel(given.model, given.tokenizer, **nothing) as plain,
    ):
        result = pairs(model, plain, given.rounds, given.images)
        print(json.dumps({**result, **model.cache_info()._asdict()}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
