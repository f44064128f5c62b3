"""One side of bench_vs_upstream.py in a process of its own: python vs_upstream_worker.py JOB.json RESULT.json

Both sides are timed in the same way, by the clock at each token callback.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPEATS = 3


def ours(folder: str, threads: int) -> tuple[Callable[[], Any], Callable[[int], Any]]:
    from executorch_mm import GenerationConfig, MultimodalRunner

    def make() -> MultimodalRunner:
        return MultimodalRunner(
            f"{folder}/model.pte", f"{folder}/tokenizer.json", num_threads=threads or "auto"
        )

    return make, lambda count: GenerationConfig(max_new_tokens=count)


def upstream(folder: str, threads: int) -> tuple[Callable[[], Any], Callable[[int], Any]]:
    import executorch.kernels.quantized  # noqa: F401  (registers its kernels)
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401
    from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
    from executorch.extension.pybindings import _C

    if threads:
        _C._unsafe_reset_threadpool(threads)

    def config(count: int) -> Any:
        return GenerationConfig(max_new_tokens=count, temperature=0.0, echo=False)

    return lambda: TextLLMRunner(f"{folder}/model.pte", f"{folder}/tokenizer.json"), config


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text())
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # upstream prints every token
    result: dict[str, Any] = {"prefill": {}, "decode": {}}
    before = time.perf_counter()
    make, config = (ours if job["side"] == "ours" else upstream)(job["folder"], job["threads"])
    result["import_s"] = time.perf_counter() - before
    before = time.perf_counter()
    runner = make()
    result["load_s"] = time.perf_counter() - before

    def run(prompt: str, count: int) -> tuple[float, list[float], str]:
        stamps: list[float] = []
        pieces: list[str] = []

        def on_token(piece: str) -> None:
            stamps.append(time.perf_counter())
            pieces.append(piece)

        start = time.perf_counter()
        runner.generate(prompt, config(count), on_token)
        runner.reset()
        return start, stamps, "".join(pieces)

    run(job["first_prompt"], 1)
    result["cold_start_s"] = time.time() - job["started"]
    for length, prompt in job["prefill"].items():
        run(prompt, 1)
        times = [stamps[0] - start for start, stamps, _ in (run(prompt, 1) for _ in range(REPEATS))]
        result["prefill"][length] = min(times)
    for length, (prompt, count) in job["decode"].items():
        run(prompt, 4)
        best = None
        for _ in range(REPEATS):
            _, stamps, text = run(prompt, count)
            seconds = (stamps[-1] - stamps[0]) / (len(stamps) - 1)
            if best is None or seconds < best["token_s"]:
                best = {"token_s": seconds, "tokens": len(stamps), "text": text}
                if job["side"] == "ours":
                    stats = runner.stats
                    best["outside_s"] = seconds - stats.decode_seconds / max(stats.num_decode_steps, 1)
                    result["threads"] = stats.num_threads
        result["decode"][length] = best
    result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
