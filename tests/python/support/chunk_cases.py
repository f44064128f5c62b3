"""The tiny transducers whose encoder takes chunks, and their clips.

What is right was found by the same weights in torch on whole clips at once, where a mask stands for chunks
and caches, and by a search that keeps no state (`tools/fixtures/transducer/make_chunk_models.py`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from executorch_mm import Segment, SpeechModel, SpeechRunner

FOLDER = Path(__file__).resolve().parents[2] / "models" / "transducer_chunks"
TOKENIZER = FOLDER.parent / "transducer" / "tokenizer.json"
EXPECTED: dict[str, dict[str, Any]] = {
    entry["name"]: entry["expected"]
    for entry in json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))["models"]
}
NAMES = sorted(EXPECTED)
CLIPS = [(name, index) for name in NAMES for index in range(len(EXPECTED[name]["clips"]))]
RATE, HOP = 16_000, 160

Symbols = list[tuple[int, float, float]]  # token, beginning, end


def runner(name: str) -> SpeechRunner:
    return SpeechRunner(FOLDER / f"{name}.pte", TOKENIZER, num_threads=1)


def model(name: str) -> SpeechModel:
    return SpeechModel(FOLDER / f"{name}.pte", TOKENIZER, num_threads=1)


def clip(name: str, index: int) -> npt.NDArray[np.float32]:
    seed, size = EXPECTED[name]["clips"][index]
    return np.random.default_rng(seed).normal(0, 0.1, size).astype(np.float32)


def expected(name: str, index: int) -> Symbols:
    """With times that end with the clip."""
    frame, duration = EXPECTED[name]["frame_seconds"], EXPECTED[name]["clips"][index][1] / RATE
    return [
        (token, min(at * frame, duration), min((at + max(1, long)) * frame, duration))
        for token, at, long in EXPECTED[name]["symbols"][index]
    ]


def symbols(events: list[Any] | tuple[Segment, ...]) -> Symbols:
    """Of the segments among them."""
    return [
        (token, *time)
        for event in events
        if isinstance(event, Segment)
        for token, time in zip(event.tokens, event.token_times, strict=True)
    ]
