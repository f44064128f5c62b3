"""One side of bench_speech.py in a process of its own: python speech_worker.py SIDE MODEL THREADS

Its first line says what it runs on. Then it reads the path of a WAV file from each line of its input and
answers with a line of JSON: the text, the seconds for all of it, the most memory that the process had so far,
and where the side can tell, the seconds of the encoder and of the decoder's steps.
"""

from __future__ import annotations

import json
import os
import sys
import time
import wave
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Answer = dict[str, object]
WINDOW_SECONDS = 30  # more than one window needs times, to know where the next one begins


def ours(folder: str, threads: int) -> tuple[str, Callable[[str], Answer]]:
    from executorch_mm.speech import SpeechRunner

    folder, _, short = folder.partition("=")
    runner = SpeechRunner(f"{folder}/model.pte", num_threads=threads)

    def transcribe(path: str) -> Answer:
        made = runner.transcribe(
            path,
            language="en",
            temperature=0.0,
            condition_on_previous_text=False,
            short_windows=short == "short",
        )
        stats = made.stats
        return {
            "text": made.text,
            "encode_s": stats.encode_audio_seconds,
            "decode_s": stats.decode_seconds,
            "steps": stats.num_decode_steps,
            "prefill_s": stats.prefill_seconds,
            "prepare_s": stats.prepare_seconds,
        }

    return f"executorch_mm {version('executorch-mm')}", transcribe


def eager(checkpoint: str, threads: int) -> tuple[str, Callable[[str], Answer]]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "whisper"))
    import torch
    from reference import EagerWhisper

    torch.set_num_threads(threads)
    whisper = EagerWhisper(Path(checkpoint))
    versions = f"transformers {version('transformers')}, torch {version('torch')}"
    return versions, lambda path: {"text": whisper.transcribe(read_wav(path))}


def faster_whisper(folder: str, threads: int) -> tuple[str, Callable[[str], Answer]]:
    from faster_whisper import WhisperModel

    folder, _, compute_type = folder.partition("=")
    model = WhisperModel(folder, device="cpu", compute_type=compute_type, cpu_threads=threads)

    def transcribe(path: str) -> Answer:
        segments, _ = model.transcribe(
            read_wav(path),  # its own reader does not know PyAV 19's arguments
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=seconds_of(path) <= WINDOW_SECONDS,
        )
        return {"text": "".join(segment.text for segment in segments)}

    return f"faster-whisper {version('faster-whisper')}, ctranslate2 {version('ctranslate2')}", transcribe


def openvino(folder: str, threads: int) -> tuple[str, Callable[[str], Answer]]:
    from openvino_genai import WhisperPipeline

    folder, _, precision = folder.partition("=")
    properties: Any = {"INFERENCE_NUM_THREADS": threads}
    if precision != "default":
        properties["INFERENCE_PRECISION_HINT"] = precision
    pipeline: Any = WhisperPipeline(folder, "CPU", **properties)

    def transcribe(path: str) -> Answer:
        made = pipeline.generate(
            read_wav(path),
            language="<|en|>",
            task="transcribe",
            do_sample=False,
            return_timestamps=seconds_of(path) > WINDOW_SECONDS,
        )
        return {"text": made.texts[0]}

    return f"openvino-genai {version('openvino-genai')}", transcribe


SIDES = {"ours": ours, "eager": eager, "faster-whisper": faster_whisper, "openvino": openvino}


def read_wav(path: str) -> Any:
    import numpy as np  # here, because each side has an environment of its own

    with wave.open(path) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def seconds_of(path: str) -> float:
    with wave.open(path) as file:
        return file.getnframes() / file.getframerate()


def peak_mib() -> float | None:
    """The most resident memory of this process alone; None where the kernel does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    side, model, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    versions, transcribe = SIDES[side](model, int(threads))
    answers.write(json.dumps({"versions": versions}) + "\n")
    answers.flush()
    for line in sys.stdin:
        start = time.perf_counter()
        answer = transcribe(line.strip())
        seconds = time.perf_counter() - start
        answers.write(json.dumps({**answer, "seconds": seconds, "peak_mib": peak_mib()}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
