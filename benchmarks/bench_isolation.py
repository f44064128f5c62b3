"""What a process of its own costs a decode step: runners with and without `isolate=True` in turn.

    python benchmarks/bench_isolation.py MODEL_FOLDER [--rounds 60] [--steps 16] [--threads 1]

Each round decodes the same tokens with both, in an order that changes from round to round. Wall time is that
from the first token to the last one; processor time is that of this process and of the model's together.
Prints medians of a step and the ratio of each pair: quartiles, and the fastest tenth of all steps. Linux.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

from executorch_mm import GenerationConfig, MultimodalRunner

PROMPT = "The history of the sea is"


def children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(number) for task in tasks for number in task.read_text().split()}


def cpu_of(process: int) -> float:
    """Seconds of all threads of a process, as clock_getcpuclockid names its clock."""
    return time.clock_gettime((~process << 3) | 2)


def steps(
    runner: MultimodalRunner, config: GenerationConfig, process: int | None
) -> tuple[list[float], float]:
    """Seconds of wall time of each step, and of processor time of the mean step."""

    def used() -> float:
        return time.process_time() + (0.0 if process is None else cpu_of(process))

    runner.reset()
    walls = []
    stream = runner.stream(PROMPT, config)
    next(stream)
    first, before = used(), time.perf_counter()
    for _ in stream:
        now = time.perf_counter()
        walls.append(now - before)
        before = now
    return walls, (used() - first) / len(walls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    model = next(arguments.folder.glob("*.pte"))
    config = GenerationConfig(max_new_tokens=arguments.steps + 1, ignore_eos=True)
    plain = MultimodalRunner(model, num_threads=arguments.threads)
    before = children()
    isolated = MultimodalRunner(model, num_threads=arguments.threads, isolate=True)
    (process,) = children() - before
    runners = {"here": (plain, None), "isolated": (isolated, process)}
    walls: dict[str, list[float]] = {name: [] for name in runners}
    ratios: dict[str, list[float]] = {"wall": [], "processor": []}
    cpus: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(arguments.rounds + 2):
        of_round = {}
        for name in sorted(runners, reverse=number % 2 == 1):
            of_round[name] = steps(runners[name][0], config, runners[name][1])
        if number < 2:  # pages and caches are warm
            continue
        for name, (wall, cpu) in of_round.items():
            walls[name] += wall
            cpus[name].append(cpu)
        here, there = of_round["here"], of_round["isolated"]
        ratios["wall"].append(statistics.median(there[0]) / statistics.median(here[0]))
        ratios["processor"].append(there[1] / here[1])
    print(f"{arguments.threads} threads, {arguments.rounds} rounds of {arguments.steps} steps")
    for name in runners:
        fastest = sorted(walls[name])[: max(1, len(walls[name]) // 10)]
        print(
            f"{name}: wall {statistics.median(walls[name]) * 1e3:.2f} ms a step, "
            f"fastest tenth {statistics.mean(fastest) * 1e3:.2f} ms, "
            f"processor {statistics.median(cpus[name]) * 1e3:.2f} ms"
        )
    for kind, values in ratios.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"isolated/here, {kind} time: median {middle:.3f}, quartiles {low:.3f} and {high:.3f}")
    tenths = [statistics.mean(sorted(walls[name])[: len(walls[name]) // 10]) for name in ("isolated", "here")]
    print(f"isolated/here, fastest tenth of steps: {tenths[0] / tenths[1]:.3f}")


if __name__ == "__main__":
    sys.exit(main())
