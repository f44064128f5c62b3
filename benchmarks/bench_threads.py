"""num_threads="auto" against one thread and against the whole pool, in alternating processes.

    python benchmarks/bench_threads.py [MODEL_FOLDER ...] [--rounds 5] [--json OUT]

A turn is a prompt of 64 tokens and 64 tokens of answer, the best of five after one to warm up. The model in
the wheel is always among the models; MODEL_FOLDER holds model.pte and tokenizer.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import executorch_mm

DEMO = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"
TURN = """
import json, sys, time
from executorch_mm import GenerationConfig, MultimodalRunner, make_token_input
folder, threads = sys.argv[1:]
threads = threads if threads == "auto" else int(threads)
start = time.perf_counter()
runner = MultimodalRunner(folder + "/model.pte", folder, num_threads=threads)
load = time.perf_counter() - start
config = GenerationConfig(max_new_tokens=64, ignore_eos=True)
best = float("inf")
for _ in range(6):
    start = time.perf_counter()
    runner.generate(make_token_input([7] * 64), config)
    best = min(best, time.perf_counter() - start)
    runner.reset()
print(json.dumps({"load_s": load, "turn_s": best, "threads": runner.stats.num_threads}))
"""


def measure(folder: Path, threads: str) -> dict[str, float]:
    command = [sys.executable, "-c", TURN, str(folder), threads]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=lambda path: Path(path).resolve())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    cores = str(os.cpu_count())
    results = []
    for folder in [DEMO, *arguments.folders]:
        kinds = ["auto", "1", cores]
        rounds = []
        for turn in range(arguments.rounds):  # each kind is the first, second and last in turn
            order = kinds[turn % 3 :] + kinds[: turn % 3]
            rounds.append({threads: measure(folder, threads) for threads in order})
        ratios = [r["auto"]["turn_s"] / min(r["1"]["turn_s"], r[cores]["turn_s"]) for r in rounds]
        chosen = sorted({int(r["auto"]["threads"]) for r in rounds})
        times = {threads: statistics.median(r[threads]["turn_s"] for r in rounds) for threads in rounds[0]}
        print(
            f"{folder.name}: auto {times['auto'] * 1e3:.1f} ms (chose {chosen}), one thread "
            f"{times['1'] * 1e3:.1f} ms, {cores} threads {times[cores] * 1e3:.1f} ms; auto against the "
            f"better: {statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
        )
        results.append({"model": folder.name, "rounds": rounds, "ratios": ratios})
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
