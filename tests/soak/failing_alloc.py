"""Lets the k-th allocation fail, k = 1, 2, 3, ..., through load, prefill, decode, save and close.

    LD_PRELOAD=failing_alloc.so python tests/soak/failing_alloc.py [FACTOR]

After the first 24 of each stage k grows by FACTOR (default 1.3; 1.0 tries every one). Prints each case before
it is tried, so that whoever started it knows where it ended, and a line for each stage.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import executorch_mm
from executorch_mm import ExecutorchMMError, GenerationConfig, MultimodalRunner
from executorch_mm.sampling import Sampler

FOLDER = Path(executorch_mm.__file__).parent / "models" / "tiny_vlm"
SHIM = ctypes.CDLL(None)
# Smaller ones are left alone: nanobind makes lists and texts for the core in functions that must not throw,
# so that there the process ends. What a system refuses is large.
LEAST_BYTES = 512


def load() -> MultimodalRunner:
    return MultimodalRunner(FOLDER / "model.pte", FOLDER, num_threads=1)


def prefill(runner: MultimodalRunner) -> object:
    return runner.prefill("how many shapes are there?")


def decode(runner: MultimodalRunner) -> object:
    return runner.generate_text("how many", max_new_tokens=4)


def save(runner: MultimodalRunner) -> object:
    runner.restore(saved := runner.save())
    return saved


def restore(runner: MultimodalRunner, saved: Path) -> object:
    """Of more tokens than fit into `LEAST_BYTES`, as are drawn from here too."""
    sampler = Sampler(GenerationConfig(suppress_tokens=range(200)))
    sampler.sample(np.zeros(512, np.float32), history=range(100))
    return runner.restore(saved)


def close(runner: MultimodalRunner) -> object:
    runner.close()
    return gc.collect()


def answer(runner: MultimodalRunner) -> str:
    runner.reset()
    return runner.generate_text("how many shapes are there?", max_new_tokens=8)


def numbers(last: int, factor: float) -> Iterator[int]:
    k = 1
    while k <= last:
        yield k
        k = k + 1 if k < 24 else max(k + 1, int(k * factor))


def attempt(k: int, work: Callable[[], object]) -> str:
    """What came of it with the k-th allocation failing."""
    SHIM.emm_fail_at(ctypes.c_long(k), ctypes.c_long(LEAST_BYTES))
    try:
        work()
    except (ExecutorchMMError, MemoryError) as error:
        return type(error).__name__
    finally:
        SHIM.emm_fail_at(ctypes.c_long(0), ctypes.c_long(0))
    return "answer"


def calls_of(work: Callable[[], object]) -> int:
    SHIM.emm_fail_at(ctypes.c_long(-1), ctypes.c_long(LEAST_BYTES))
    work()
    calls: int = SHIM.emm_calls()
    SHIM.emm_fail_at(ctypes.c_long(0), ctypes.c_long(0))
    return calls


def main() -> None:
    factor = float(sys.argv[1]) if len(sys.argv) > 1 else 1.3
    runner = load()
    expected = answer(runner)
    folder = tempfile.TemporaryDirectory()
    saved = Path(folder.name) / "long.emm"
    runner.prefill("how many shapes are there? " * 20)
    runner.save(saved)
    stages: dict[str, Callable[[], object]] = {
        "load": lambda: load().close(),
        "prefill": lambda: prefill(runner),
        "decode": lambda: decode(runner),
        "save": lambda: save(runner),
        "restore": lambda: restore(runner, saved),
    }
    for name, work in stages.items():
        runner.reset()
        outcomes: Counter[str] = Counter()
        last = calls_of(work)
        for k in numbers(last, factor):
            print("begin", name, k, flush=True)
            runner.reset()
            outcomes[attempt(k, work)] += 1
            assert answer(runner) == expected, (name, k)
        print("stage", name, last, dict(outcomes), flush=True)
    outcomes = Counter()
    for k in range(1, 12):
        print("begin close", k, flush=True)
        other = load()
        outcomes[attempt(k, lambda other=other: close(other))] += 1  # type: ignore[misc]
        other.close()
    assert answer(runner) == expected
    print("stage close", 11, dict(outcomes), flush=True)


if __name__ == "__main__":
    main()
