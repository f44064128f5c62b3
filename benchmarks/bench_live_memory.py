"""Resident memory while live() hears hours of audio in fast forward, with the tiny Whisper of the tests.

    python benchmarks/bench_live_memory.py [--hours 24]

Audio is faint noise; in one minute of eight a tone comes and goes for 0.5 to 3.5 s, which the model hears.
Linux alone.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from executorch_mm import Segment, SpeechRunner

MODEL = Path(__file__).resolve().parents[1] / "tests" / "models" / "speech" / "kv.pte"
RATE = 16000
TIMES = np.arange(60 * RATE) / RATE
SPOKEN = 0.12  # of the minutes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=24)
    arguments = parser.parse_args()
    random = np.random.default_rng(1)
    options: dict[str, Any] = {
        "language": "en", "temperature": 0.0, "no_speech_threshold": None, "max_new_tokens": 8,
        "condition_on_previous_text": False,
    }  # fmt: skip
    start = time.perf_counter()
    segments = 0
    with (
        SpeechRunner(MODEL, num_threads=1) as runner,
        runner.live(sampling_rate=RATE, **options) as live,
    ):
        for number in range(1, round(arguments.hours * 60) + 1):
            pcm = (minute(random) * 32767).astype("<i2")
            for second in range(60):
                events = live.feed(pcm[second * RATE : (second + 1) * RATE].tobytes())
                segments += sum(isinstance(event, Segment) for event in events)
            if number in (10, 30) or number % 60 == 0:
                spent = time.perf_counter() - start
                print(f"{number / 60:5.2f} h: {resident():.2f} MiB, {segments} segments, {spent:.0f} s")


def minute(random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    samples = random.normal(0, 1e-4, len(TIMES))
    if random.random() < SPOKEN:
        begin, length = int(random.integers(0, 40)) * RATE, int(random.uniform(0.5, 3.5) * RATE)
        t = TIMES[:length]
        tone = np.sin(2 * np.pi * random.uniform(300, 1500) * t) * (0.5 - 0.5 * np.cos(8 * np.pi * t))
        samples[begin : begin + length] += 0.3 * tone
    return samples


def resident() -> float:
    """MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
