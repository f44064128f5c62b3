"""Whisper .pte files against each other, transformers' eager model and faster-whisper, on the same clips.

    python benchmarks/bench_speech.py MODELS [--torch-python PYTHON] [--faster-whisper-python PYTHON]
        [--clips jfk beckett] [--rounds 3] [--json OUT]

MODELS is the folder that tools/whisper/make.py and clips.py were given. Each side lives in a process of its
own with the model loaded, and they take turns. A side whose interpreter is not named is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import IO, Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python" / "support"))
from speech_scores import error_rate

WORKER = Path(__file__).with_name("speech_worker.py")
OURS = ("base-optimum-fp32", "base-fp32", "base-8bit")
OPTIMUM, CACHED = OURS[:2]


class Side:
    def __init__(self, python: str, kind: str, model: str, threads: int) -> None:
        command = [python, str(WORKER), kind, model, str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def transcribe(self, path: Path) -> dict[str, Any]:
        to, from_ = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)
        to.write(f"{path}\n")
        to.flush()
        line = from_.readline()
        if not line:
            raise SystemExit(f"{self.process.args}: ended early")
        return dict(json.loads(line))

    def close(self) -> None:
        cast("IO[str]", self.process.stdin).close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=lambda path: Path(path).resolve())
    parser.add_argument("--torch-python")
    parser.add_argument("--faster-whisper-python")
    parser.add_argument("--clips", nargs="*", default=["jfk", "beckett"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    known = json.loads((arguments.models / "clips" / "clips.json").read_text())
    clips = [clip for clip in known if clip["name"] in arguments.clips]
    sides = start(arguments)
    rounds = []
    for number in range(arguments.rounds + 1):
        answers = {
            name: [side.transcribe(arguments.models / "clips" / clip["file"]) for clip in clips]
            for name, side in sides.items()
        }
        if number:  # the first round warms up
            rounds.append(answers)
    for side in sides.values():
        side.close()
    report(rounds, clips, arguments)


def start(arguments: argparse.Namespace) -> dict[str, Side]:
    models, threads = arguments.models, arguments.threads
    sides = {
        f"ours, {name}": Side(sys.executable, "ours", str(models / name), threads)
        for name in OURS
        if (models / name / "model.pte").is_file()
    }
    if python := arguments.torch_python:
        sides["transformers, eager fp32"] = Side(python, "eager", str(models / "huggingface"), threads)
    if python := arguments.faster_whisper_python:
        for kind in ("float32", "int8"):
            model = f"{models / 'ctranslate2'}={kind}"
            sides[f"faster-whisper, {kind}"] = Side(python, "faster-whisper", model, threads)
    return sides


def report(rounds: Sequence[Any], clips: Sequence[Any], arguments: argparse.Namespace) -> None:
    seconds = sum(clip["seconds"] for clip in clips)
    rows = {}
    for name in rounds[0]:
        all_answers = [answers[name] for answers in rounds]
        totals = [sum(answer["seconds"] for answer in answers) for answers in all_answers]
        row: dict[str, Any] = {
            "real_time_factor": statistics.median(totals) / seconds,
            "lowest": min(totals) / seconds,
            "highest": max(totals) / seconds,
            "word_error_rate": error_rate(
                (answer["text"], clip["said"]) for answer, clip in zip(all_answers[0], clips, strict=True)
            ),
        }
        if "steps" in all_answers[0][0]:
            row |= {
                "steps_per_second": statistics.median(map(steps_per_second, all_answers)),
                "encode_s": statistics.median(a["encode_s"] for answers in all_answers for a in answers),
                "outside_s": statistics.median(outside(a) for answers in all_answers for a in answers),
            }
        rows[name] = row
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads, {date.today()}")
    print(f"{len(clips)} clips of {seconds:.1f} s, {len(rounds)} rounds; real-time factor: less is faster")
    for name, row in rows.items():
        print(f"{name:28}" + ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    ratio = decoding_ratio(rounds)
    if ratio is not None:
        print(f"decoder steps per second, {CACHED} over {OPTIMUM}: {ratio:.1f}")
    if arguments.json:
        document = {
            "command": "bench_speech.py MODELS --torch-python PYTHON --faster-whisper-python PYTHON",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads",
            "date": str(date.today()),
            "clips": clips,
            "rows": rows,
            "decoding_ratio": ratio,
            "rounds": rounds,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def steps_per_second(answers: Sequence[Any]) -> float:
    return float(sum(a["steps"] for a in answers) / sum(a["decode_s"] for a in answers))


def outside(answer: Any) -> float:
    """Seconds outside the model: features, sampling, text."""
    return float(answer["seconds"] - answer["encode_s"] - answer["decode_s"] - answer["prefill_s"])


def decoding_ratio(rounds: Sequence[Any]) -> float | None:
    names = [f"ours, {name}" for name in (CACHED, OPTIMUM)]
    if any(name not in rounds[0] for name in names):
        return None
    ratios = [steps_per_second(r[names[0]]) / steps_per_second(r[names[1]]) for r in rounds]
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
