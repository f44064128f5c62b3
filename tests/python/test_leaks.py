"""Nothing is kept that nobody asked for: memory stays flat over many models, pictures and answers."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import GenerationConfig, InputError, MultimodalRunner, make_image_input, make_token_input

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
MIB = 1 << 20
SHORT = GenerationConfig(max_new_tokens=3)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def growth(work: Callable[[], None], warm_up: int, count: int) -> float:
    """MiB that `count` runs add after `warm_up` runs have filled pools and caches."""
    for _ in range(warm_up):
        work()
    gc.collect()
    before = resident_bytes()
    for _ in range(count):
        work()
    gc.collect()
    return (resident_bytes() - before) / MIB


def test_loading_answering_and_closing_leaves_nothing_behind() -> None:
    def work() -> None:
        with MultimodalRunner.demo() as runner:
            runner.generate_text(["red", make_image_input(np.zeros((8, 8, 3), np.uint8))], SHORT)

    # One kept model would be 4 MiB at least; 100 of them are looked for.
    assert growth(work, 30, 100) < 8


def test_pictures_snapshots_and_errors_leave_nothing_behind(runner: MultimodalRunner) -> None:
    def work() -> None:
        runner.reset()
        runner.prefill([make_image_input(np.ones((3, 64, 64), np.float32))])
        runner.restore(runner.save())
        for piece in runner.stream("red", SHORT):
            assert isinstance(piece, str)
            break
        with pytest.raises(InputError):
            runner.prefill(make_token_input([100_000]))

    assert growth(work, 100, 1000) < 4


def test_references_to_arrays_are_given_back(runner: MultimodalRunner) -> None:
    array = np.ones((3, 64, 64), np.float32)
    before = sys.getrefcount(array)
    for _ in range(50):
        runner.reset()
        runner.prefill([make_image_input(array)])
    assert sys.getrefcount(array) == before
