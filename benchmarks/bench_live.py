"""How far behind the audio the first partial of an utterance comes while somebody speaks.

    python benchmarks/bench_live.py MODELS [--model base-8bit] [--step-seconds 0.5] [--rounds 3]

MODELS is the folder that tools/whisper/make.py and clips.py were given. Utterances are the first 2.5 s of the
clips up to 12 s, behind silence of several lengths, pushed in real time in chunks of 20 ms by one thread
while another calls step(); whole and short windows in turns, after the model has heard a clip. Printed, as
median and range over utterances:

    behind    from when the last audio that it has heard was pushed until the partial is there
    compute   of that, the call of step()
    policy    from when the utterance begins (EnergyVad without padding) to the end of what has been heard
    in all    from when the utterance begins until the partial is there
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np

from executorch_mm import EnergyVad, Partial, SpeechRunner
from executorch_mm.preprocess import Waveform

RATE = 16000
CHUNK = RATE // 50
HEARD = 2.5  # seconds of each clip
SILENCES = (0.7, 0.8, 0.9, 1.0, 1.1)  # seconds; steps begin elsewhere in each utterance

Samples = np.ndarray[Any, np.dtype[np.float32]]
KINDS = ("behind", "compute", "policy", "in all")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("--model", default="base-8bit")
    parser.add_argument("--step-seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    clips = json.loads((arguments.models / "clips" / "clips.json").read_text())
    audio = [
        read(arguments.models / "clips" / clip["file"])[: round(HEARD * RATE)]
        for clip in clips
        if clip["seconds"] <= 12
    ]
    with SpeechRunner(arguments.models / arguments.model / "model.pte", num_threads=2) as runner:
        found: dict[bool, list[tuple[float, ...]]] = {False: [], True: []}
        missing = 0
        for is_short in found:
            runner.transcribe(audio[0], sampling_rate=RATE, language="en", short_windows=is_short)
        for number in range(arguments.rounds):
            for place, samples in enumerate(audio):
                silence = SILENCES[(number + place) % len(SILENCES)]
                utterance = np.concatenate([np.zeros(round(silence * RATE), np.float32), samples])
                for is_short, times in found.items():
                    options = {"short_windows": is_short, "step_seconds": arguments.step_seconds}
                    first = first_partial(runner, utterance, options)
                    if first is None:
                        missing += 1
                    else:
                        times.append(first)
    for is_short, times in found.items():
        print(f"short_windows={is_short}, step_seconds={arguments.step_seconds}: {len(times)} utterances")
        for name, each in zip(KINDS, zip(*times, strict=True), strict=True):
            milliseconds = sorted(1000 * seconds for seconds in each)
            print(
                f"  {name:8} {statistics.median(milliseconds):5.0f} ms "
                f"({milliseconds[0]:.0f} to {milliseconds[-1]:.0f})"
            )
    if missing:
        print(f"{missing} utterances without a partial in {HEARD} s")


def first_partial(runner: SpeechRunner, samples: Samples, options: Any) -> tuple[float, ...] | None:
    """Seconds, as KINDS; None where there is none before the end."""
    begin = EnergyVad(speech_pad_ms=0)(Waveform(samples, RATE))[0][0]
    with runner.live(sampling_rate=RATE, language="en", temperature=0.0, **options) as live:
        clock = time.perf_counter()
        stop = threading.Event()

        def record() -> None:
            for end in range(CHUNK, len(samples) + 1, CHUNK):
                if stop.wait(max(0.0, clock + end / RATE - time.perf_counter())):
                    return
                live.push(samples[end - CHUNK : end])

        recorder = threading.Thread(target=record)
        recorder.start()
        try:
            while recorder.is_alive() or live.seconds_behind >= options["step_seconds"]:
                start = time.perf_counter()
                events = live.step()
                now = time.perf_counter()
                if any(isinstance(event, Partial) for event in events):
                    behind = now - clock - live.seconds
                    return behind, now - start, live.seconds - begin, now - clock - begin
                time.sleep(0.002)
        finally:
            stop.set()
            recorder.join()
    return None


def read(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        frames = file.readframes(file.getnframes())
    return np.frombuffer(frames, "<i2").astype(np.float32) / 32768


if __name__ == "__main__":
    main()
