"""`run_batch` over a folder of images and the simple loop of `generate_text`, with the model in the wheel.

    python benchmarks/bench_batch_files.py FOLDER --images 2000 --rounds 2

Both sides get the same files in alternating processes; each round takes its share of them. A machine that
does other work gives a process as much time as it sees fit, so beside the times stands what both take of the
processors: where all cores are free, a batch is faster by the number of workers times the ratio of the two.
Memory is that of the batch's largest process after a quarter of the rows and at the end.
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
from pathlib import Path

from executorch_mm import MultimodalRunner
from executorch_mm.batch import BatchOptions, BatchProgress, run_batch
from executorch_mm.demo import make_scene, render

PROMPT = "describe this picture"
MODEL = Path(sys.modules["executorch_mm"].__file__ or "").parent / "models" / "tiny_vlm" / "model.pte"
FIRST_SCENE = 900_000_000  # of those that were kept out of training


def loop(folder: Path, names: list[str]) -> list[str]:
    """The simple loop."""
    from PIL import Image

    texts = []
    with MultimodalRunner.demo() as runner:
        for name in names:
            runner.reset()
            prompt = ["<|user|>", Image.open(folder / name), f"{PROMPT}<|end|><|assistant|>"]
            texts.append(runner.generate_text(prompt, max_new_tokens=40))
    return texts


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


def side(name: str, folder: Path, first: int, count: int, workers: int) -> dict[str, object]:
    """One side in a process of its own: what it answers, its time, and what it takes of the processors."""
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
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--side", choices=("loop", "batch"))
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    folder, count = arguments.folder, arguments.images
    if arguments.side is not None:
        names = [f"{index}.png" for index in range(arguments.first, arguments.first + count)]
        is_loop = arguments.side == "loop"
        made = {"texts": loop(folder, names)} if is_loop else batch(folder, names, arguments.workers)
        print(json.dumps(made))
        return
    folder.mkdir(exist_ok=True)
    for index in range(count):
        if not (path := folder / f"{index}.png").exists():
            render(make_scene(seed=FIRST_SCENE + index)).save(path)
    share, ratios, costs, differing = count // arguments.rounds, [], [], 0
    for number in range(arguments.rounds):
        sides = {
            name: side(name, folder, number * share, share, arguments.workers) for name in ("loop", "batch")
        }
        one, many = sides["loop"], sides["batch"]
        differing += sum(a != b for a, b in zip(one.pop("texts"), many.pop("texts"), strict=True))
        ratios.append(float(one["seconds"]) / float(many["seconds"]))
        costs.append(float(one["processor_seconds"]) / float(many["processor_seconds"]))
        print(json.dumps({"rows": share, **sides, "faster": ratios[-1], "processor_ratio": costs[-1]}))
    print(
        json.dumps(
            {
                "times_faster": statistics.median(ratios),
                "times_faster_on_free_cores": arguments.workers * statistics.median(costs),
                "answers_that_differ": differing,
                "load": os.getloadavg(),
            }
        )
    )


if __name__ == "__main__":
    main()
