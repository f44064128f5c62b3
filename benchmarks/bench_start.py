"""Import, load, first token and memory of two installations in turns: bench_start.py FOLDER PYTHON PYTHON ...

FOLDER holds model.pte and tokenizer.json; each PYTHON has executorch_mm, with compiled Python files
(`python -m compileall` makes them). A process for each side and round; ratios are to the first PYTHON,
within a round, by the clock and by processor time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

PROMPT = "The quick brown fox jumps over the lazy dog and then runs back"


def worker(folder: str, threads: int) -> None:
    stamps = [(time.perf_counter(), time.process_time())]
    from executorch_mm import MultimodalRunner

    stamps.append((time.perf_counter(), time.process_time()))
    runner = MultimodalRunner(f"{folder}/model.pte", f"{folder}/tokenizer.json", num_threads=threads)
    stamps.append((time.perf_counter(), time.process_time()))
    pieces: list[float] = []
    runner.generate(
        PROMPT, max_new_tokens=8, temperature=0.0, token_callback=lambda _: pieces.append(time.perf_counter())
    )
    stamps.append((time.perf_counter(), time.process_time()))
    status = Path("/proc/self/status").read_text()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line.endswith(" kB")}
    result = {"start to first token, s": pieces[0] - stamps[0][0]}
    for what, before, after in zip(("import", "load", "8 tokens"), stamps[:-1], stamps[1:], strict=True):
        result[f"{what}, s"] = after[0] - before[0]
        result[f"{what}, processor s"] = after[1] - before[1]
    result["all, processor s"] = stamps[-1][1] - stamps[0][1]
    result |= {"peak MiB": kib["VmHWM"] / 1024, "anonymous MiB": kib["RssAnon"] / 1024}
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=lambda path: str(Path(path).resolve()))
    parser.add_argument("pythons", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.folder, args.threads)
        return
    rounds: list[list[dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as elsewhere:  # so that no folder of sources is on the path
        for _ in range(args.rounds + 1):
            rounds.append([])
            for python in args.pythons:
                command = [
                    python,
                    str(Path(__file__).resolve()),
                    args.folder,
                    "--worker",
                    f"--threads={args.threads}",
                ]
                done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=elsewhere)
                rounds[-1].append(json.loads(done.stdout))
    del rounds[0]  # files come into memory
    for what in rounds[0][0]:
        cells = [f"{statistics.median(row[0][what] for row in rounds):9.3f}"]
        for side in range(1, len(args.pythons)):
            ratios = [row[side][what] / row[0][what] for row in rounds]
            cells.append(f"x {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        print(f"{what:26}", *cells)


if __name__ == "__main__":
    main()
