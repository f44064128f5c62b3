"""Words that Whisper writes down where nobody speaks, for each hour, with and without leaving silence out.

    python benchmarks/bench_invented_words.py MODELS [--model base-8bit] [--minutes 3]
        [--silero silero_vad.pte] [--faster-whisper-python PYTHON] [--json OUT]

MODELS is the folder that tools/whisper/make.py and clips.py were given. sox makes the sounds, the same ones
each time; each side hears them in English, greedily, with its own defaults otherwise. Then speech with
silence and noise, where a filter must leave no word out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python" / "support"))
from speech_scores import word_errors, words

RATE = 16000
FORMAT = ["-r", str(RATE), "-c", "1", "-b", "16"]
SOUNDS = {  # after `synth SECONDS`
    "white noise": ["whitenoise", "gain", "-20"],
    "pink noise": ["pinknoise", "gain", "-20"],
    "brown noise": ["brownnoise", "gain", "-20"],
    "faint noise": ["brownnoise", "gain", "-45"],
    "noise that swells": ["pinknoise", "tremolo", "0.2", "90", "gain", "-15"],
    "hum": ["sine", "50", "sine", "100", "gain", "-20"],
    "beats": ["pinknoise", "tremolo", "2", "100", "gain", "-12"],
}
CHORDS = ("C4 E4 G4", "A3 C4 E4", "F3 A3 C4", "G3 B3 D4")
TUNE = ("C4", "E4", "G4", "C5", "A4", "F4", "D4", "B3", "G3", "E4", "D4", "C4")


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("--model", default="base-8bit")
    parser.add_argument("--minutes", type=float, default=3, help="of each sound")
    parser.add_argument("--silero", type=Path, help="the .pte of ExecuTorch's example")
    parser.add_argument("--faster-whisper-python")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    ours, theirs = str(arguments.models / arguments.model), str(arguments.models / "ctranslate2")
    sides = [(sys.executable, "ours", ours, filtered) for filtered in ("none", "energy")]
    if arguments.silero:
        sides.append((sys.executable, "ours", ours, str(arguments.silero)))
    if python := arguments.faster_whisper_python:
        sides += [(python, "faster-whisper", theirs, filtered) for filtered in ("none", "its own")]
    with tempfile.TemporaryDirectory() as scratch:
        sounds = dict(make_sounds(Path(scratch), 60 * arguments.minutes))
        speech = dict(make_speech(Path(scratch), arguments.models / "clips"))
        paths = [*sounds.values(), *(path for path, _ in speech.values())]
        heard = [hear(side, paths) for side in sides]
    hours = arguments.minutes / 60
    columns = [
        f"{side[1]} ({versions}), filter: {Path(side[3]).name}"
        for side, (versions, _) in zip(sides, heard, strict=True)
    ]
    rows: dict[str, Any] = {}
    for index, name in enumerate(sounds):
        rows[name] = [len(words(texts[index])) / hours for _, texts in heard]
    print("words an hour, of", "; ".join(columns))
    for name, values in rows.items():
        print(f"{name:24}" + "".join(f"{value:8.0f}" for value in values))
    for index, (name, (_, said)) in enumerate(speech.items(), len(sounds)):
        rows[name] = [
            {"words": len(words(texts[index])), "errors": word_errors(texts[index], said)}
            for _, texts in heard
        ]
        print(
            f"{name}, {len(words(said))} words: "
            + "; ".join(f"{v['words']}, {v['errors']} errors" for v in rows[name])
        )
    if arguments.json:
        document = {"minutes": arguments.minutes, "columns": columns, "rows": rows}
        document["texts"] = [dict(zip([*sounds, *speech], texts, strict=True)) for _, texts in heard]
        arguments.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def make_sounds(folder: Path, seconds: float) -> Iterator[tuple[str, Path]]:
    path = folder / "silence.wav"
    sox("-n", *FORMAT, str(path), "trim", "0", str(seconds))
    yield "silence, with sox's dither", path
    path = folder / "dither.wav"
    sox("-n", *FORMAT, str(path), "synth", str(seconds), "whitenoise", "gain", "-87")
    yield "silence, one bit of noise", path
    for name, effect in SOUNDS.items():
        path = folder / f"{name}.wav"
        sox("-n", *FORMAT, str(path), "synth", str(seconds), *effect)
        yield name, path
    chords = [f"{chord}|3" for chord in CHORDS]
    yield "chords", music(folder / "chords.wav", chords, "sine", seconds)
    tune = [f"{note}|0.45" for note in TUNE]
    yield "plucked tune", music(folder / "tune.wav", tune, "pluck", seconds)


def music(path: Path, notes: list[str], kind: str, seconds: float) -> Path:
    parts = []
    for index, note in enumerate(notes):
        tones, length = note.split("|")
        part = path.with_name(f"{path.stem}-{index}.wav")
        voices = [word for tone in tones.split() for word in (kind, tone)]
        sox("-n", *FORMAT, str(part), "synth", length, *voices, "fade", "0.02", length, "0.05", "gain", "-12")
        parts.append(str(part))
    times = int(seconds / sum(float(note.split("|")[1]) for note in notes)) + 1
    sox(*parts, *FORMAT, str(path), "repeat", str(times), "trim", "0", str(seconds))
    return path


def make_speech(folder: Path, clips: Path) -> Iterator[tuple[str, tuple[Path, str]]]:
    known = {clip["name"]: clip for clip in json.loads((clips / "clips.json").read_text())}
    noise, gap, long = folder / "noise.wav", folder / "gap.wav", known["long"]
    sox("-n", *FORMAT, str(noise), "synth", "90", "brownnoise", "gain", "-50")
    both = [known["jfk"], known["beckett"]]
    files = [str(clips / clip["file"]) for clip in both]
    sox(files[0], str(noise), files[1], *FORMAT, str(gap))
    yield "jfk, 90 s of faint noise, beckett", (gap, " ".join(clip["said"] for clip in both))
    yield "long", (clips / long["file"], long["said"])
    loud, noisy = folder / "loud.wav", folder / "noisy.wav"
    level = rms(clips / long["file"]) * 10 ** (-10 / 20)
    sox("-n", *FORMAT, str(loud), "synth", str(long["seconds"]), "whitenoise")
    volume = level / rms(loud)
    sox("-m", "-v", "1", str(clips / long["file"]), "-v", f"{volume}", str(loud), *FORMAT, str(noisy))
    yield "long with white noise 10 dB below", (noisy, long["said"])


def rms(path: Path) -> float:
    import numpy as np

    return float(np.sqrt((read_wav(path) ** 2).mean()))


def sox(*arguments: str) -> None:
    subprocess.run(["sox", "-V1", "-R", *arguments], check=True)


def read_wav(path: Path) -> Any:
    import numpy as np  # here, because each side has an environment of its own

    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def hear(side: tuple[str, str, str, str], paths: list[Path]) -> tuple[str, list[str]]:
    python, kind, model, filtered = side
    command = [python, __file__, "--worker", kind, model, filtered, *map(str, paths)]
    versions, texts = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return str(versions), list(texts)


def work(kind: str, model: str, filtered: str, *paths: str) -> None:
    versions, transcribe = {"ours": ours, "faster-whisper": faster_whisper}[kind](model, filtered)
    print(json.dumps([versions, [transcribe(Path(path)) for path in paths]]))


def ours(folder: str, filtered: str) -> tuple[str, Callable[[Path], str]]:
    from executorch_mm import EnergyVad, SileroVad, SpeechRunner

    runner = SpeechRunner(f"{folder}/model.pte", num_threads=2)
    vad: Any = {"none": lambda: False, "energy": EnergyVad}.get(filtered, lambda: SileroVad(filtered))()
    return (
        f"executorch_mm {version('executorch-mm')}",
        lambda path: runner.transcribe(path, language="en", vad_filter=vad).text,
    )


def faster_whisper(folder: str, filtered: str) -> tuple[str, Callable[[Path], str]]:
    from faster_whisper import WhisperModel

    model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=2)

    def transcribe(path: Path) -> str:
        use = filtered != "none"
        segments, _ = model.transcribe(read_wav(path), language="en", beam_size=1, vad_filter=use)
        return "".join(segment.text for segment in segments)

    return f"faster-whisper {version('faster-whisper')}", transcribe


if __name__ == "__main__":
    main()
