"""What Whisper loses and gains where short clips are heard in short windows.

    python benchmarks/bench_short_windows.py MODELS [--model base-8bit] [--rounds 3] [--timestamps] [--live]

MODELS is the folder that tools/whisper/make.py and clips.py were given. Word errors: of all clips but the
longest, as they are and in twelve variants that sox makes (tempo, pitch, silence around, level, telephone,
reverberation) or that have noise added. Times: of the clips as they are, 3 to 7.5 s long, in turns.
With --live the clips are heard while they come, instead.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from executorch_mm import Segment, SpeechRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python" / "support"))
from speech_scores import error_rate, word_errors, words

RATE = 16000
EFFECTS = {
    "plain": [],
    "slower": ["tempo", "-s", "0.85"],
    "slow": ["tempo", "-s", "0.92"],
    "fast": ["tempo", "-s", "1.08"],
    "faster": ["tempo", "-s", "1.18"],
    "low": ["pitch", "-150"],
    "high": ["pitch", "150"],
    "padded": ["pad", "0.4", "0.6"],
    "quiet": ["gain", "-12"],
    "telephone": ["sinc", "300-3400"],
    "room": ["reverb", "25"],
}
SIGNAL_TO_NOISE = (15, 5)  # dB
CHUNK = RATE // 10

Samples = np.ndarray[Any, np.dtype[np.float32]]
Clip = tuple[str, Samples, str]
Hear = Callable[[Samples, bool], str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("--model", default="base-8bit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timestamps", action="store_true")
    parser.add_argument("--live", action="store_true")
    arguments = parser.parse_args()
    known = json.loads((arguments.models / "clips" / "clips.json").read_text())
    known = [clip for clip in known if clip["name"] != "long"]
    with SpeechRunner(arguments.models / arguments.model / "model.pte", num_threads=2) as runner:

        def hear(samples: Samples, is_short: bool) -> str:
            options: Any = {"language": "en", "temperature": 0.0, "short_windows": is_short}
            if arguments.live:
                return live(runner, samples, options)
            options |= {"timestamps": arguments.timestamps, "condition_on_previous_text": False}
            return runner.transcribe(samples, sampling_rate=RATE, **options).text

        if arguments.rounds:
            times(arguments, known, hear)
        compare(variants(arguments.models / "clips", known), hear)


def live(runner: SpeechRunner, samples: Samples, options: Any) -> str:
    chunks = (samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK))
    with runner.live(sampling_rate=RATE, **options) as transcription:
        return "".join(event.text for event in transcription.stream(chunks) if isinstance(event, Segment))


def variants(folder: Path, known: list[dict[str, Any]]) -> Iterator[Clip]:
    random = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "made.wav"
        for clip in known:
            plain = folder / clip["file"]
            for name, effect in EFFECTS.items():
                sox = ["sox", "-V1", "-D", "-R", str(plain), "-r", str(RATE), "-c", "1", "-b", "16"]
                subprocess.run([*sox, str(made), *effect], check=True)
                yield f"{clip['name']}, {name}", read(made), clip["said"]
            samples = read(plain)
            for ratio in SIGNAL_TO_NOISE:
                noise = np.convolve(random.normal(size=len(samples) + 63), np.ones(64) / 64, "valid")
                noise *= np.sqrt((samples**2).mean() / (noise**2).mean()) * 10 ** (-ratio / 20)
                noisy = np.clip(samples + noise, -1, 1).astype(np.float32)
                yield f"{clip['name']}, noise {ratio} dB below", noisy, clip["said"]


def read(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        frames = file.readframes(file.getnframes())
    return np.frombuffer(frames, "<i2").astype(np.float32) / 32768


def times(arguments: argparse.Namespace, known: list[dict[str, Any]], hear: Hear) -> None:
    clips = [clip for clip in known if 2.9 <= clip["seconds"] <= 7.5]
    audio = [read(arguments.models / "clips" / clip["file"]) for clip in clips]
    totals: list[list[float]] = []
    for number in range(arguments.rounds + 1):
        spent = [0.0, 0.0]
        for samples in audio:
            for is_short in (False, True):
                start = time.perf_counter()
                hear(samples, is_short)
                spent[is_short] += time.perf_counter() - start
        if number:  # the first round warms up
            totals.append(spent)
    seconds = sum(clip["seconds"] for clip in clips)
    for is_short in (False, True):
        factors = [spent[is_short] / seconds for spent in totals]
        print(f"short {is_short}: real-time factor {statistics.median(factors):.4f}")
    ratios = [spent[1] / spent[0] for spent in totals]
    print(
        f"{len(clips)} clips of {seconds:.1f} s, {len(ratios)} rounds: ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


def compare(clips: Iterator[Clip], hear: Hear) -> None:
    pairs: list[list[tuple[str, str]]] = [[], []]
    better = worse = other = 0
    for name, samples, said in clips:
        whole, short = hear(samples, False), hear(samples, True)
        pairs[0].append((whole, said))
        pairs[1].append((short, said))
        if words(whole) != words(short):
            errors = word_errors(whole, said), word_errors(short, said)
            other += 1
            better += errors[1] < errors[0]
            worse += errors[1] > errors[0]
            print(f"{name}: {errors[0]} errors, {errors[1]} in a short window:{short}")
    rates = [error_rate(each) for each in pairs]
    print(
        f"{len(pairs[0])} clips, {sum(len(words(said)) for _, said in pairs[0])} words: word error rate "
        f"{rates[0]:.2f} %, short {rates[1]:.2f} %; {other} otherwise, {better} better, {worse} worse"
    )


if __name__ == "__main__":
    main()
