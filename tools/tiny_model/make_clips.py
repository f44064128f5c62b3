"""Makes the audio in the repository: the demo's voice and the clips of models/test_model_quality.py.

Only a few clips, in voices that training never used. They are output of espeak-ng, whose licence
(GPL-3.0-or-later) covers the program.
"""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from voices import LENGTH, RATE, UNSEEN_VARIANTS, Espeak, Samples, Utterance, utterance, variants

from executorch_mm.demo import SPOKEN_FILE, SPOKEN_WORDS

FIRST_SEED = 960_000_000
CLIPS = 20
TEST_FILE = Path(__file__).parents[2] / "tests" / "data" / "speech" / "clips.npz"


def full_scale(samples: Samples) -> Samples:
    return samples / np.abs(samples).max() * np.float32(0.9)


def write_demo(espeak: Espeak) -> None:
    voice = UNSEEN_VARIANTS[0]
    what = Utterance(SPOKEN_WORDS, SPOKEN_WORDS, "en-us", voice, 180, 50, 50, 0, 1.0)
    samples = (full_scale(espeak.clip(what)) * 32767).astype("<i2")
    with wave.open(str(SPOKEN_FILE), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    print(f"{SPOKEN_FILE.name}: {len(samples) / RATE:.2f} s, {SPOKEN_FILE.stat().st_size} bytes")


def write_tests(espeak: Espeak) -> None:
    """uint8 samples one after another, where each clip starts, and its words."""
    known = variants()
    said = [utterance(FIRST_SEED + i, known) for i in range(CLIPS)]
    clips = [np.round(full_scale(espeak.clip(what)) * 127 + 128).astype(np.uint8) for what in said]
    if max(map(len, clips)) > LENGTH:
        raise SystemExit("a clip is too long")
    TEST_FILE.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        TEST_FILE,
        samples=np.concatenate(clips),
        starts=np.cumsum([0, *map(len, clips)]),
        words=np.array([what.words for what in said]),
    )
    print(f"{TEST_FILE.name}: {TEST_FILE.stat().st_size} bytes; " + ", ".join(what.words for what in said))


def main() -> None:
    espeak = Espeak()
    write_demo(espeak)
    write_tests(espeak)


if __name__ == "__main__":
    main()
