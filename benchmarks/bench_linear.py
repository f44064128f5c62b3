"""Our linear layers against XNNPACK's in one run: bench_linear.py FOLDER [--threads 1] [--rounds 5]

FOLDER holds model.pte and tokenizer.json. A side is a word of XnnpackOptions.linear, with +copied behind it
for linear_weights="copied"; the first one is --base. Speed: all sides live in this process and take turns,
request by request, so that what else the machine does hits them alike; the figures are medians of the rounds,
the ratios medians of the ratios within a round. Load and memory: a process for each side and round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PROMPT = "The quick brown fox jumps over the lazy dog and then runs back into the forest again. "


def make(folder: str, side: str, threads: int) -> Any:
    from executorch_mm import MultimodalRunner, XnnpackOptions

    linear, _, weights = side.partition("+")
    options: Any = {"linear": linear, "linear_weights": weights or "in_place"}
    return MultimodalRunner(
        f"{folder}/model.pte",
        f"{folder}/tokenizer.json",
        num_threads=threads,
        xnnpack=XnnpackOptions(**options),
    )


def prompt_of(runner: Any, tokens: int) -> str:
    words = (PROMPT * (tokens // 8)).split(" ")
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        fits = len(runner.tokenizer.encode(" ".join(words[:middle]))) <= tokens
        low, high = (middle, high) if fits else (low, middle - 1)
    return " ".join(words[:low])


def request(runner: Any, prompt: str, new_tokens: int) -> tuple[float, float]:
    """Tokens per second of prefill and of decode."""
    runner.reset()
    runner.generate(prompt, max_new_tokens=new_tokens, temperature=0.0, ignore_eos=True)
    stats = runner.stats
    steps = max(stats.num_decode_steps, 1)
    return (
        (stats.num_prompt_tokens - stats.num_cached_tokens) / stats.prefill_seconds,
        steps / stats.decode_seconds if stats.decode_seconds else 0.0,
    )


def speed(folder: str, sides: list[str], threads: int, rounds: int) -> dict[str, Any]:
    runners = {side: make(folder, side, threads) for side in sides}
    jobs = {f"prefill {n}": (n, 1) for n in (128, 512)} | {f"decode {n}": (n, 48) for n in (28, 508)}
    measured: dict[str, dict[str, list[float]]] = {job: {side: [] for side in sides} for job in jobs}
    for job, (tokens, new_tokens) in jobs.items():
        prompt = prompt_of(runners[sides[0]], tokens)
        for runner in runners.values():
            request(runner, prompt, new_tokens)
        for turn in range(rounds):
            for side in sides if turn % 2 == 0 else reversed(sides):
                prefill, decode = request(runners[side], prompt, new_tokens)
                measured[job][side].append(prefill if job.startswith("prefill") else decode)
    return measured


def load_worker(folder: str, side: str, threads: int) -> None:
    started = time.perf_counter()
    runner = make(folder, side, threads)
    loaded = time.perf_counter() - started
    runner.generate(PROMPT, max_new_tokens=8, temperature=0.0)
    first = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.endswith(" kB")}
    result = {
        "load s": loaded,
        "load and answer s": first,
        "peak MiB": kib["VmHWM"] / 1024,
        "anonymous MiB": kib["RssAnon"] / 1024,  # what each further process adds
    }
    print(json.dumps(result))


def loads(folder: str, sides: list[str], threads: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    measured: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for side in sides:
            command = [sys.executable, __file__, folder, "--load-worker", side, "--threads", str(threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            for what, value in json.loads(done.stdout).items():
                measured.setdefault(what, {}).setdefault(side, []).append(value)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--base", default="xnnpack")
    parser.add_argument("--sides", default="own,avx2")
    parser.add_argument("--load-worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load_worker:
        load_worker(args.folder, args.load_worker, args.threads)
        return
    sides = [args.base, *args.sides.split(",")]
    measured = loads(args.folder, sides, args.threads, args.rounds)
    measured |= speed(args.folder, sides, args.threads, args.rounds)
    print(f"{args.threads} thread(s), {args.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    for job, values in measured.items():
        cells = [f"{statistics.median(values[side]):9.2f}" for side in sides]
        for side in sides[1:]:
            ratios = [ours / base for ours, base in zip(values[side], values[args.base], strict=True)]
            cells.append(f"{side} x {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        print(f"{job:18}", *cells)


if __name__ == "__main__":
    main()
