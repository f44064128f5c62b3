"""Nothing is kept that nobody asked for: memory stays flat over many models, images and answers."""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import (
    GenerationConfig,
    InputError,
    MultimodalRunner,
    SpeechConfig,
    SpeechRunner,
    make_image_input,
    make_token_input,
)
from executorch_mm.tokenizer import load_tokenizer

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc"),
    pytest.mark.slow,
]
MIB = 1 << 20
SHORT = GenerationConfig(max_new_tokens=3)
TILES = Path(__file__).resolve().parents[2] / "models" / "behaviour" / "tiles.pte"
PIXELS = np.ones((3, 8, 8), np.float32)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def growth(work: Callable[[], None], warm_up: int, count: int) -> float:
    """MiB that `count` runs add after `warm_up` runs have filled pools and caches.

    The less of two times: a leak adds each time, a heap that other tests have left in pieces once.
    """
    for _ in range(warm_up):
        work()
    resident = []
    for repeat in range(3):
        for _ in range(count if repeat else 0):
            work()
        gc.collect()
        resident.append(resident_bytes() / MIB)
    return min(after - before for before, after in itertools.pairwise(resident))


def test_loading_answering_and_closing_leaves_nothing_behind() -> None:
    def work() -> None:
        with MultimodalRunner.demo() as runner:
            runner.generate_text(["red", make_image_input(np.zeros((8, 8, 3), np.uint8))], SHORT)

    # One kept model would be 4 MiB at least; 100 of them are looked for.
    assert growth(work, 30, 100) < 8


def test_a_thousand_models_loaded_used_and_closed_leave_memory_flat(demo_folder: Path) -> None:
    tokenizer = load_tokenizer(demo_folder)  # any will do: the prompts are ids

    def work() -> None:
        with MultimodalRunner(TILES, tokenizer) as runner:
            runner.generate([make_image_input(PIXELS), make_token_input([5, 9])], SHORT)

    # A kept program, arena or array per cycle would be 30 KiB at least, 1,000 of them 30 MiB.
    assert growth(work, 100, 1000) < 4


def test_ten_thousand_images_leave_memory_flat(demo_folder: Path) -> None:
    with MultimodalRunner(TILES, demo_folder) as runner:

        def work() -> None:
            runner.reset()
            runner.prefill([make_image_input(PIXELS.copy())])

        # A kept image would be 768 bytes, 10,000 of them 7.3 MiB.
        assert growth(work, 1000, 10_000) < 3


def test_images_snapshots_and_errors_leave_nothing_behind(runner: MultimodalRunner) -> None:
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


def test_transcriptions_whole_left_and_refused_leave_nothing_behind() -> None:
    folder = TILES.parents[1] / "speech"
    audio = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    config = SpeechConfig(language="en", temperature=0.0, max_new_tokens=3)
    with SpeechRunner(folder / "kv.pte") as runner:

        def work() -> None:
            runner.transcribe(audio, config, sampling_rate=16000)
            for _ in runner.stream_transcribe(audio, config, sampling_rate=16000):
                break
            with pytest.raises(InputError):
                runner.transcribe(audio, config, sampling_rate=16000, language="xx")

        # The features of an audio clip are 0.9 MiB, 30 of them are looked for.
        assert growth(work, 10, 30) < 8


def test_transducers_loaded_used_left_midway_and_closed_leave_memory_flat() -> None:
    folder = TILES.parents[1] / "transducer"
    tokenizer = load_tokenizer(folder)
    samples = np.random.default_rng(2).normal(0, 0.1, 12_345).astype(np.float32)

    def work() -> None:
        with SpeechRunner(folder / "tdt.pte", tokenizer) as runner:
            for _ in range(3):
                runner.transcribe(samples, sampling_rate=16_000)
            with contextlib.closing(runner.stream_transcribe(samples, sampling_rate=16_000)) as events:
                next(events, None)

    # A kept model would be 100 KiB at least.
    assert growth(work, 30, 200) < 4
