"""executorch_mm against ExecuTorch's own Python runner on the same text model, in alternating processes.

    python benchmarks/bench_vs_upstream.py MODEL_FOLDER --upstream-python PYTHON [--json OUT] [--rounds 5]

MODEL_FOLDER holds model.pte and tokenizer.json. PYTHON has torch and executorch; this interpreter has
executorch_mm. Both sides are timed in the same way, by the clock at each token callback, so neither's own
statistics matter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NEW_TOKENS = 64
WORDS = (
    "The harbour was quiet in the early morning and the boats lay side by side along the wall. A man in a "
    "blue coat walked slowly past the nets, counting them as he went, and wrote each number in a small book. "
)

# Runs in a process of its own. Arguments: side, folder, threads, prompts (JSON: name -> text), start time,
# result file.
WORKER = r"""
import json, os, resource, sys, time
side, folder, threads, prompts, started, out = sys.argv[1:7]
threads, prompts, started = int(threads), json.loads(prompts), float(started)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
result = {}
before = time.perf_counter()
if side == "ours":
    from executorch_mm import GenerationConfig, MultimodalRunner
    result["import_s"] = time.perf_counter() - before
    files = f"{folder}/model.pte", f"{folder}/tokenizer.json"
    make = lambda: MultimodalRunner(*files, num_threads=threads or "auto")
    config = lambda n: GenerationConfig(max_new_tokens=n)
else:
    import executorch.kernels.quantized
    from executorch.extension.llm.custom_ops import custom_ops
    from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
    from executorch.extension.pybindings import _C
    if threads:
        _C._unsafe_reset_threadpool(threads)
    result["import_s"] = time.perf_counter() - before
    make = lambda: TextLLMRunner(f"{folder}/model.pte", f"{folder}/tokenizer.json")
    config = lambda n: GenerationConfig(max_new_tokens=n, temperature=0.0, echo=False)
before = time.perf_counter()
runner = make()
result["load_s"] = time.perf_counter() - before

def run(prompt, count):
    stamps, pieces = [], []
    def on_token(piece):
        stamps.append(time.perf_counter())
        pieces.append(piece)
    start = time.perf_counter()
    runner.generate(prompt, config(count), on_token)
    runner.reset()
    return start, stamps, "".join(pieces)

name, prompt = next(iter(prompts.items()))
run(prompt, 1)
result["cold_start_s"] = time.time() - started
for name, prompt in prompts.items():
    run(prompt, 4)
    best_first, best_rate = 1e9, 0.0
    for _ in range(3):
        start, stamps, text = run(prompt, int(os.environ["NEW_TOKENS"]))
        best_first = min(best_first, stamps[0] - start)
        if len(stamps) > 8:
            best_rate = max(best_rate, (len(stamps) - 1) / (stamps[-1] - stamps[0]))
    result[name] = {"first_s": best_first, "decode_rate": best_rate, "tokens": len(stamps), "text": text}
    if side == "ours":
        s = runner.stats
        whole = stamps[-1] - stamps[0]
        result[name]["outside_share"] = 1 - s.decode_seconds / max(whole, 1e-9)
        result["threads"] = s.num_threads
result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
json.dump(result, open(out, "w"))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=lambda path: Path(path).resolve())
    parser.add_argument("--upstream-python", required=True)
    parser.add_argument("--threads", type=int, default=2, help="0: each side's own default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    prompts = {f"{n} tokens": text for n, text in prompts_of(arguments.folder, (28, 124, 508, 940))}
    sides = {"ours": sys.executable, "upstream": arguments.upstream_python}
    results: dict[str, list[dict[str, object]]] = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side, python in sides.items():
            results[side].append(measure(side, python, arguments.folder, arguments.threads, prompts))
    rows = table(results, prompts)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads asked for")
    print(f"{'':32}{'ours':>12}{'upstream':>12}{'ratio':>9}")
    for label, ours, upstream, ratio in rows:
        print(f"{label:32}{ours:12.4g}{upstream:12.4g}{ratio:9.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "runs": results}, indent=1))


def prompts_of(folder: Path, lengths: tuple[int, ...]) -> list[tuple[int, str]]:
    """Texts of exactly these numbers of tokens, all beginnings of one text."""
    from executorch_mm import load_tokenizer

    tokenizer = load_tokenizer(folder / "tokenizer.json")
    ids = tokenizer.encode(WORDS * 40)
    texts = [(length, tokenizer.decode(ids[:length])) for length in lengths]
    for length, text in texts:
        if len(tokenizer.encode(text)) != length:
            raise SystemExit(f"no text of {length} tokens for this tokenizer")
    return texts


def measure(side: str, python: str, folder: Path, threads: int, prompts: dict[str, str]) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "result.json"
        command = [
            python,
            "-c",
            WORKER,
            side,
            str(folder),
            str(threads),
            json.dumps(prompts),
            str(time.time()),
        ]
        env = {**os.environ, "NEW_TOKENS": str(NEW_TOKENS)}
        subprocess.run([*command, str(out)], check=True, env=env, stderr=subprocess.DEVNULL, cwd=scratch)
        return dict(json.loads(out.read_text()))


def table(
    results: dict[str, list[dict[str, object]]], prompts: dict[str, str]
) -> list[tuple[str, float, float, float]]:
    """(label, ours, upstream, how many times better ours is), medians over the rounds."""

    def median(side: str, *path: str) -> float:
        def pick(run: object) -> float:
            for key in path:
                run = run[key]  # type: ignore[index]
            return float(run)  # type: ignore[arg-type]

        return statistics.median(pick(run) for run in results[side])

    rows = []
    for label, key in (
        ("import, s", "import_s"),
        ("load, s", "load_s"),
        ("cold start to first token, s", "cold_start_s"),
        ("peak memory, MiB", "peak_mib"),
    ):
        ours, upstream = median("ours", key), median("upstream", key)
        rows.append((label, ours, upstream, upstream / ours))
    for name in prompts:
        length = int(name.split()[0])
        ours, upstream = (length / median(side, name, "first_s") for side in ("ours", "upstream"))
        rows.append((f"prefill {name}, tokens/s", ours, upstream, ours / upstream))
        ours, upstream = (median(side, name, "decode_rate") for side in ("ours", "upstream"))
        rows.append((f"decode after {name}, tokens/s", ours, upstream, ours / upstream))
    for name in prompts:
        rows.append(
            (
                f"share outside the model, {name}",
                median("ours", name, "outside_share"),
                float("nan"),
                float("nan"),
            )
        )
        if results["ours"][0][name]["text"] != results["upstream"][0][name]["text"]:  # type: ignore[index]
            print(f"note: the answers to the prompt of {name} differ")
    return rows


if __name__ == "__main__":
    main()
