"""Many clips with a program that reads windows together (tools/whisper's base-8bit-batched), and one by one.

    python benchmarks/bench_speech_batch.py MODELS [--num-sessions 16] [--rounds 5] [--seconds 28] [--short]
        [--json OUT]

MODELS is the folder that tools/whisper/make.py and clips.py were given. 20 clips: the recordings in turn,
or with --seconds as many of them, one after the other, as fit. One by one is `SpeechRunner.transcribe` on the
same program, and on base-8bit where that is there; the sides take turns in one process, each loaded once.
Ratios are of throughput: the time of one by one over the time together.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from executorch_mm import SpeechConfig, SpeechModel, SpeechRunner, Transcription
from executorch_mm.preprocess import Waveform, load_audio

NUM_CLIPS = 20
PAUSE = 8000  # samples between joined recordings


def clips_of(folder: Path, seconds: float | None) -> list[Waveform]:
    paths = sorted(path for path in folder.glob("*.wav") if path.stem != "long")
    recordings = [load_audio(path).resampled(16000) for path in paths]
    if seconds is None:
        return [recordings[number % len(recordings)] for number in range(NUM_CLIPS)]
    return [
        joined(recordings[number % len(recordings) :] + recordings, seconds) for number in range(NUM_CLIPS)
    ]


def joined(recordings: list[Waveform], seconds: float) -> Waveform:
    parts: list[Any] = []
    room = int(seconds * 16000)
    for recording in recordings:
        if len(recording.samples) <= room:
            parts += [recording.samples, np.zeros(PAUSE, np.float32)]
            room -= len(recording.samples) + PAUSE
    return Waveform(np.concatenate(parts[:-1]), 16000)


def sides(
    stack: ExitStack, models: Path, clips: list[Waveform], config: SpeechConfig, num_sessions: int
) -> Iterator[tuple[str, Callable[[], list[Transcription]]]]:
    for name in ("base-8bit", "base-8bit-batched"):
        if (models / name).is_dir():
            runner = stack.enter_context(SpeechRunner.from_pretrained(models / name))
            yield name, lambda runner=runner: [runner.transcribe(clip, config) for clip in clips]  # type: ignore[misc]
    model = stack.enter_context(SpeechModel.from_pretrained(models / "base-8bit-batched"))
    yield "together", lambda: list(model.map(clips, config, num_sessions=num_sessions))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("--num-sessions", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--short", action="store_true", help="with short_windows=True")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    clips = clips_of(arguments.models / "clips", arguments.seconds)
    config = SpeechConfig(language="en", temperature=0.0, short_windows=arguments.short)
    times: dict[str, list[float]] = {}
    said: dict[str, list[str]] = {}
    stats: dict[str, Any] = {}
    with ExitStack() as stack:
        every = list(sides(stack, arguments.models, clips, config, arguments.num_sessions))
        for number in range(-1, arguments.rounds):
            for name, hear in every[:: -1 if number % 2 else 1]:
                start = time.perf_counter()
                results = hear()
                if number >= 0:
                    times.setdefault(name, []).append(time.perf_counter() - start)
                said[name] = [result.text for result in results]
                stats[name] = {
                    "encoder_seconds": sum(each.stats.encode_audio_seconds for each in results),
                    "tokens": sum(each.stats.num_generated_tokens for each in results),
                    "steps": sum(each.stats.num_decode_steps for each in results),
                    "shared_steps": sum(each.stats.num_shared_steps for each in results),
                }
    audio = sum(len(clip.samples) for clip in clips) / 16000
    for name, found in times.items():
        ratios = [one / other for one, other in zip(found, times["together"], strict=True)]
        same = sum(one == other for one, other in zip(said[name], said["together"], strict=True))
        print(
            f"{name}: {statistics.median(found):.2f} s ({min(found):.2f} to {max(found):.2f}), {audio:.0f} s"
        )
        print(f"  {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of together")
        print(f"  {same} of {NUM_CLIPS} the same; {stats[name]}")
    if arguments.json is not None:
        content = {
            "date": date.today().isoformat(), "machine": platform.processor() or platform.machine(),
            "seconds": times, "stats": stats, "audio_seconds": audio, "num_sessions": arguments.num_sessions,
            "short_windows": arguments.short,
        }  # fmt: skip
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
