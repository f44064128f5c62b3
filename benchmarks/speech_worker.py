"""One side of bench_speech.py in a process of its own: python speech_worker.py SIDE MODEL THREADS

Reads the path of a WAV file from each line of its input and answers with a line of JSON: the text, the
seconds for all of it, and where the side can tell, those of the encoder and of the decoder's steps.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

Answer = dict[str, object]


def ours(folder: str, threads: int) -> Callable[[str], Answer]:
    from executorch_mm.speech import SpeechRunner

    runner = SpeechRunner(f"{folder}/model.pte", num_threads=threads)

    def transcribe(path: str) -> Answer:
        made = runner.transcribe(path, language="en", temperature=0.0, condition_on_previous_text=False)
        stats = made.stats
        return {
            "text": made.text,
            "encode_s": stats.encode_audio_seconds,
            "decode_s": stats.decode_seconds,
            "steps": stats.num_decode_steps,
            "prefill_s": stats.prefill_seconds,
            "prepare_s": stats.prepare_seconds,
        }

    return transcribe


def eager(checkpoint: str, threads: int) -> Callable[[str], Answer]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "whisper"))
    import torch
    from reference import EagerWhisper, read_wav

    torch.set_num_threads(threads)
    whisper = EagerWhisper(Path(checkpoint))
    return lambda path: {"text": whisper.transcribe(read_wav(Path(path)))}


def faster_whisper(folder: str, threads: int) -> Callable[[str], Answer]:
    from faster_whisper import WhisperModel

    folder, _, compute_type = folder.partition("=")
    model = WhisperModel(folder, device="cpu", compute_type=compute_type, cpu_threads=threads)

    def transcribe(path: str) -> Answer:
        segments, _ = model.transcribe(
            path,
            language="en",
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return {"text": "".join(segment.text for segment in segments)}

    return transcribe


SIDES = {"ours": ours, "eager": eager, "faster-whisper": faster_whisper}


def main() -> None:
    side, model, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    transcribe = SIDES[side](model, int(threads))
    for line in sys.stdin:
        start = time.perf_counter()
        answer = transcribe(line.strip())
        answers.write(json.dumps({**answer, "seconds": time.perf_counter() - start}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
