"""Megabytes and milliseconds that an adapter adds beside the program that is loaded.

    python benchmarks/bench_adapters.py FOLDER [--weight-cache]

FOLDER holds first.pte, second.pte, base.ptd, first.ptd and second.ptd, as
tools/fixtures/export_llm/make_lora.py makes them; with larger sizes there, since the committed ones are tiny.
Linux only.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python" / "support"))

from executorch_mm import MultimodalRunner, XnnpackOptions, make_token_input
from number_tokenizer import NumberTokenizer


def resident_mb() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024


def answer(runner: MultimodalRunner) -> tuple[int, ...]:
    runner.reset()
    inputs = [make_token_input([5, 9, 2])]
    return tuple(runner.generate_result(inputs, max_new_tokens=4, temperature=0.0, ignore_eos=True).token_ids)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weight-cache", action="store_true")
    options = parser.parse_args()
    folder: Path = options.folder
    before, start = resident_mb(), time.perf_counter()
    runner = MultimodalRunner(
        folder / "first.pte",
        NumberTokenizer(),
        data_path=[folder / "base.ptd", folder / "first.ptd"],
        num_threads=1,
        xnnpack=XnnpackOptions(weight_cache=options.weight_cache),
    )
    load_ms = (time.perf_counter() - start) * 1e3
    first = answer(runner)
    loaded, start = resident_mb(), time.perf_counter()
    runner.load_adapter(folder / "second.ptd", model_path=folder / "second.pte")
    adapter_ms = (time.perf_counter() - start) * 1e3
    runner.set_adapter("second")
    assert answer(runner) != first
    print(f"program: {loaded - before:.0f} MB, {load_ms:.0f} ms")
    print(f"adapter: {resident_mb() - loaded:.0f} MB, {adapter_ms:.0f} ms")


if __name__ == "__main__":
    main()
