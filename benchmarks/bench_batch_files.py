"""A folder of images answered in four ways, with the model in the wheel: rows a second against workers.

    python benchmarks/bench_batch_files.py FOLDER --images 2000 --rounds 2 --plot docs/images/batch.svg

The ways are the simple loop of `generate_text`, `MultimodalRunner.map`, and `run_batch` with one worker and
with one for each core. All get the same files in alternating processes; each round takes other files. A
machine that does other work gives a process as much time as it sees fit, so beside the times stands what all
take of the processors: where all cores are free, a batch is faster by the number of workers times the ratio
of the two. Memory is that of the batch's largest process after a quarter of the rows and at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from executorch_mm import MultimodalRunner
from executorch_mm.batch import BatchOptions, BatchProgress, run_batch
from executorch_mm.cli.bench.contender import Task
from executorch_mm.cli.bench.report import Measure, Report, Row
from executorch_mm.cli.bench.svg import draw
from executorch_mm.demo import make_scene, render

PROMPT = "describe this picture"
MODEL = Path(sys.modules["executorch_mm"].__file__ or "").parent / "models" / "tiny_vlm" / "model.pte"
FIRST_SCENE = 900_000_000  # of those that were kept out of training


def prompt(folder: Path, name: str) -> list[Any]:
    """The question about one image."""
    from PIL import Image

    return ["<|user|>", Image.open(folder / name), f"{PROMPT}<|end|><|assistant|>"]


def loop(folder: Path, names: list[str]) -> list[str]:
    """The simple loop."""
    texts = []
    with MultimodalRunner.demo() as runner:
        for name in names:
            runner.reset()
            texts.append(runner.generate_text(prompt(folder, name), max_new_tokens=40))
    return texts


def mapped(folder: Path, names: list[str]) -> list[str]:
    """The same by `map`."""
    with MultimodalRunner.demo() as runner:
        results = runner.map((prompt(folder, name) for name in names), max_new_tokens=40)
        return [result.text for result in results]


def batch(folder: Path, names: list[str], workers: int) -> dict[str, object]:
    """The same by `run_batch`."""
    rows, results = folder / "rows.jsonl", folder / "results.jsonl"
    rows.write_text("".join(json.dumps({"image": name, "prompt": PROMPT}) + "\n" for name in names))
    results.unlink(missing_ok=True)
    sizes: list[tuple[int, float]] = []

    def look(progress: BatchProgress) -> None:
        sizes.append((progress.num_done, largest_process_mib()))

    config = {"max_new_tokens": 40}
    options = BatchOptions(media_folder=folder, workers=workers, config=config)
    run_batch(rows, results, MODEL, options=options, on_progress=look)
    quarter = next((size for done, size in sizes if 4 * done >= len(names)), 0.0)
    last = next((size for _, size in reversed(sizes) if size), 0.0)
    texts = [json.loads(line)["text"] for line in results.read_text().splitlines()]
    return {"texts": texts, "quarter_mib": quarter, "end_mib": last}


def largest_process_mib() -> float:
    """Of this process's children, what is resident."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    sizes = [0]
    for child in children:
        try:
            fields = Path(f"/proc/{child}/status").read_text().split("VmRSS:")
        except OSError:  # it has ended
            continue
        sizes += [int(fields[1].split()[0])] if len(fields) > 1 else []
    return max(sizes) / 1024


class Rate(Measure):
    """Rows a second."""

    def shown(self, value: float) -> str:
        """See `Measure`."""
        return f"{value:.1f} rows/s"


class Cost(Measure):
    """Milliseconds of the processors for a row."""

    def shown(self, value: float) -> str:
        """See `Measure`."""
        return f"{value:.1f} ms"


class BatchReport(Report):
    """A report whose task is a folder of images."""

    def heading(self) -> str:
        """See `Report`."""
        return f"Rows a second: {', '.join(self.names)}"

    def note(self) -> str:
        """See `Report`."""
        return self.machine


def report(rounds: Sequence[Mapping[str, Mapping[str, Any]]], rows: int, machine: str) -> Report:
    """What all ways did, as the plot wants it."""
    first = next(iter(rounds[0]))
    made = []
    for measure in (
        Rate("rows_per_second", "rows a second", is_more_better=True),
        Cost("processor_ms", "processor time of a row", is_more_better=False),
    ):
        values = {
            name: tuple(
                rows / one[name]["seconds"]
                if measure.is_more_better
                else 1e3 * one[name]["processor_seconds"] / rows
                for one in rounds
            )
            for name in rounds[0]
        }
        ratios = (
            statistics.median(a / b for a, b in zip(own, values[first], strict=True))
            for own in values.values()
        )
        made.append(Row(measure, measure.title, tuple(values.values()), tuple(ratios)))
    task = Task(prompt_tokens=0, new_tokens=0, conversations=1)
    note = f"{rows} images in each of {len(rounds)} rounds; {machine}; load {os.getloadavg()[0]:.1f}"
    return BatchReport(tuple(rounds[0]), task, tuple(made), note)


def side(name: str, folder: Path, first: int, count: int, workers: int) -> dict[str, Any]:
    """One way in a process of its own: what it answers, its time, and what it takes of the processors."""
    command = [sys.executable, __file__, str(folder), "--side", name, "--first", str(first)]
    command += ["--images", str(count), "--workers", str(workers)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**json.loads(done.stdout), "seconds": seconds, "processor_seconds": processor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000, help="of each round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--machine", default="", help="for the plot: machine and date")
    parser.add_argument("--side", choices=("loop", "map", "batch"))
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    folder, count = arguments.folder, arguments.images
    if arguments.side is not None:
        names = [f"{index}.png" for index in range(arguments.first, arguments.first + count)]
        if arguments.side == "batch":
            print(json.dumps(batch(folder, names, arguments.workers)))
        else:
            print(json.dumps({"texts": (loop if arguments.side == "loop" else mapped)(folder, names)}))
        return
    folder.mkdir(exist_ok=True)
    for index in range(count * arguments.rounds):
        if not (path := folder / f"{index}.png").exists():
            render(make_scene(seed=FIRST_SCENE + index)).save(path)
    ways = {"simple loop": ("loop", 1), "map": ("map", 1)}
    ways |= {f"{n} worker{'s' * (n > 1)}": ("batch", n) for n in range(1, arguments.workers + 1)}
    rounds: list[dict[str, dict[str, Any]]] = []
    differing = dict.fromkeys(ways, 0)
    for number in range(arguments.rounds):
        made = {name: side(way, folder, number * count, count, n) for name, (way, n) in ways.items()}
        texts = {name: one.pop("texts") for name, one in made.items()}
        for name in ways:
            differing[name] += sum(a != b for a, b in zip(texts["simple loop"], texts[name], strict=True))
        rounds.append(made)
        print(json.dumps({"images": count, **made, "load": os.getloadavg()}), flush=True)
    summary = report(rounds, count, arguments.machine)
    rates, costs = summary.rows
    print(
        json.dumps(
            {
                "rows_per_second": dict(zip(ways, rates.medians, strict=True)),
                "times_faster": dict(zip(ways, rates.ratios, strict=True)),
                "processor_time": dict(zip(ways, costs.ratios, strict=True)),
                "times_faster_on_free_cores": arguments.workers / costs.ratios[-1],
                "answers_that_differ": differing,
                "load": os.getloadavg(),
            }
        )
    )
    if arguments.plot is not None:
        arguments.plot.write_text(draw(summary))


if __name__ == "__main__":
    main()
