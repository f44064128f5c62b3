"""Whisper .pte files, transformers, faster-whisper and openvino-genai in turns, on the same clips.

    python benchmarks/bench_speech.py MODELS [--torch-python PYTHON] [--faster-whisper-python PYTHON]
        [--openvino-python PYTHON --openvino-model FOLDER] [--clips jfk beckett] [--rounds 3] [--json OUT]

MODELS is the folder that tools/whisper/make.py and clips.py were given, FOLDER what optimum-cli made
(tools/whisper/README.md). Each side lives in a process of its own with the model loaded. In a round each
side hears all clips; the next round has another order. Ratios are of the same round. A side whose
interpreter is not named is left out. `python benchmarks/draw_chart.py OUT chart.svg` draws the result.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import IO, Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python" / "support"))
from speech_scores import error_rate

WORKER = Path(__file__).with_name("speech_worker.py")
OURS = ("base-8bit", "base-8bit=short", "base-fp32", "base-optimum-fp32")
OPTIMUM, CACHED = "ours, base-optimum-fp32", "ours, base-fp32"
EAGER = "transformers, eager fp32"
SHORT_SECONDS = 7.5  # "short clips" are no longer
SETTLE_SECONDS = 0.3  # threads of the side before may still be spinning

Answers = dict[str, Any]


class Side:
    def __init__(self, python: str, kind: str, model: str, threads: int) -> None:
        command = [python, str(WORKER), kind, model, str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.versions = str(self.read()["versions"])

    def transcribe(self, path: Path) -> dict[str, Any]:
        to = cast("IO[str]", self.process.stdin)
        to.write(f"{path}\n")
        to.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        line = cast("IO[str]", self.process.stdout).readline()
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
    parser.add_argument("--openvino-python")
    parser.add_argument("--openvino-model", type=Path)
    parser.add_argument("--faster-whisper-types", nargs="*", default=["int8", "float32"])
    parser.add_argument("--openvino-precisions", nargs="*", default=["default", "f32"])
    parser.add_argument("--ours", nargs="*", default=list(OURS), help="default: %(default)s")
    parser.add_argument("--clips", nargs="*", help="by default all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--eager-rounds", type=int, help="rounds in which transformers takes part")
    parser.add_argument("--seconds", type=float, default=3600, help="no round is begun that would end later")
    parser.add_argument("--machine", default="", help="for the result: which processor")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    began = time.perf_counter()
    if arguments.openvino_python and not arguments.openvino_model:
        parser.error("--openvino-python needs --openvino-model, the folder that optimum-cli made")
    known = json.loads((arguments.models / "clips" / "clips.json").read_text())
    clips = [clip for clip in known if not arguments.clips or clip["name"] in arguments.clips]
    if not clips:
        parser.error(f"none of these clips: {', '.join(clip['name'] for clip in known)}")
    paths = [arguments.models / "clips" / clip["file"] for clip in clips]
    sides = start(arguments)
    for side in sides.values():
        side.transcribe(paths[0])  # warms up
    rounds: list[Answers] = []
    longest = 0.0
    for number in range(arguments.rounds):
        start_of_round = time.perf_counter()
        if rounds and start_of_round - began + longest > arguments.seconds:
            break
        names = [name for name in sides if name != EAGER or takes_part(number, arguments)]
        first = number % len(names)
        answers = {}
        for name in names[first:] + names[:first]:
            time.sleep(SETTLE_SECONDS)
            answers[name] = [sides[name].transcribe(path) for path in paths]
        rounds.append({name: answers[name] for name in sides if name in answers})
        longest = max(longest, time.perf_counter() - start_of_round)
    for side in sides.values():
        side.close()
    versions = {name: side.versions for name, side in sides.items()}
    report(rounds, clips, versions, arguments)


def takes_part(number: int, arguments: argparse.Namespace) -> bool:
    return arguments.eager_rounds is None or number < arguments.eager_rounds


def start(arguments: argparse.Namespace) -> dict[str, Side]:
    models, threads = arguments.models, arguments.threads
    sides = {
        "ours, " + name.replace("=short", ", short_windows"): Side(
            sys.executable, "ours", str(models / name), threads
        )
        for name in arguments.ours
        if (models / name.partition("=")[0] / "model.pte").is_file()
    }
    if python := arguments.faster_whisper_python:
        for kind in arguments.faster_whisper_types:
            model = f"{models / 'ctranslate2'}={kind}"
            sides[f"faster-whisper, {kind}"] = Side(python, "faster-whisper", model, threads)
    if python := arguments.openvino_python:
        for precision in arguments.openvino_precisions:
            model = f"{arguments.openvino_model.resolve()}={precision}"
            name = f"openvino-genai, int8 weights, precision {precision}"
            sides[name] = Side(python, "openvino", model, threads)
    if python := arguments.torch_python:
        sides[EAGER] = Side(python, "eager", str(models / "huggingface"), threads)
    return sides


def report(
    rounds: Sequence[Answers], clips: Sequence[Any], versions: dict[str, str], arguments: argparse.Namespace
) -> None:
    short = [clip["seconds"] <= SHORT_SECONDS for clip in clips]
    groups = {"all": [True] * len(clips), "short": short}
    lengths = {
        name: sum(clip["seconds"] for clip, is_in in zip(clips, group, strict=True) if is_in)
        for name, group in groups.items()
    }
    rows = {}
    for name in rounds[0]:
        all_answers = [answers[name] for answers in rounds if name in answers]
        row: dict[str, Any] = {"versions": versions[name], "rounds": len(all_answers)}
        for group, is_in in groups.items():
            if lengths[group]:
                row |= times(name, group, is_in, lengths[group], rounds)
        row["word_error_rate"] = error_rate(
            (answer["text"], clip["said"]) for answer, clip in zip(all_answers[0], clips, strict=True)
        )
        row["peak_mib"] = max(a["peak_mib"] or 0 for answers in all_answers for a in answers)
        if "steps" in all_answers[0][0]:
            row |= {
                "steps_per_second": statistics.median(map(steps_per_second, all_answers)),
                "encode_s": statistics.median(a["encode_s"] for answers in all_answers for a in answers),
                "outside_s": statistics.median(outside(a) for answers in all_answers for a in answers),
            }
        rows[name] = row
    machine = arguments.machine or f"{platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, {arguments.threads} threads, {date.today()}; {len(rounds)} rounds")
    print(
        f"{len(clips)} clips of {lengths['all']:.1f} s, {sum(short)} short ones of {lengths['short']:.1f} s"
    )
    for name, row in rows.items():
        print(f"{name} ({row['versions']}, {row['rounds']} rounds)")
        print("    " + ", ".join(f"{key} {said(value)}" for key, value in row.items() if key != "versions"))
    ratio = decoding_ratio(rounds)
    if ratio is not None:
        print(f"decoder steps per second, {CACHED} over {OPTIMUM}: {ratio:.1f}")
    if arguments.json:
        document = {
            "command": "bench_speech.py MODELS --torch-python PYTHON --faster-whisper-python PYTHON "
            "--openvino-python PYTHON --openvino-model FOLDER",
            "machine": machine,
            "threads": arguments.threads,
            "date": str(date.today()),
            "clips": clips,
            "rows": rows,
            "decoding_ratio": ratio,
            "rounds": rounds,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def times(
    name: str, group: str, is_in: Sequence[bool], length: float, rounds: Sequence[Answers]
) -> dict[str, Any]:
    """Seconds of work for a second of audio, and the first side's as a ratio to it in the same rounds."""

    def total(answers: Sequence[Any]) -> float:
        return float(sum(a["seconds"] for a, counts in zip(answers, is_in, strict=True) if counts))

    first = next(iter(rounds[0]))
    shared = [answers for answers in rounds if name in answers]
    made = {f"{group}, real-time factor": spread([total(answers[name]) / length for answers in shared])}
    if name != first:
        ratios = [total(answers[name]) / total(answers[first]) for answers in shared]
        made[f"{group}, times as long as {first}"] = spread(ratios)
    return made


def spread(values: Sequence[float]) -> list[float]:
    """Median, lowest, highest."""
    return [statistics.median(values), min(values), max(values)]


def said(value: Any) -> str:
    if isinstance(value, list):
        return f"{value[0]:.3g} ({value[1]:.3g} to {value[2]:.3g})"
    return f"{value:.3g}"


def steps_per_second(answers: Sequence[Any]) -> float:
    return float(sum(a["steps"] for a in answers) / sum(a["decode_s"] for a in answers))


def outside(answer: Any) -> float:
    """Seconds outside the model: features, sampling, text."""
    return float(answer["seconds"] - answer["encode_s"] - answer["decode_s"] - answer["prefill_s"])


def decoding_ratio(rounds: Sequence[Answers]) -> float | None:
    if any(name not in rounds[0] for name in (CACHED, OPTIMUM)):
        return None
    ratios = [steps_per_second(r[CACHED]) / steps_per_second(r[OPTIMUM]) for r in rounds]
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
