"""Damaged images of every format that is read end in an image or in an InputError.

EXECUTORCH_MM_FUZZ_IMAGES sets how many of each format, EXECUTORCH_MM_FUZZ_FIRST where to begin.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import image_worker
import pytest

NUM_CASES = int(os.environ.get("EXECUTORCH_MM_FUZZ_IMAGES", "500"))
FIRST_CASE = int(os.environ.get("EXECUTORCH_MM_FUZZ_FIRST", "0"))


@pytest.mark.parametrize("kind", image_worker.KINDS)
def test_damaged_images_are_images_or_input_errors(kind: str) -> None:
    if not image_worker.is_installed(kind):
        pytest.skip(f"{kind} is not read here")
    numbers = (str(FIRST_CASE), str(FIRST_CASE + NUM_CASES))
    child = subprocess.run(
        [sys.executable, image_worker.__file__, kind, *numbers],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60 + NUM_CASES / 10,
        check=False,
    )
    lines = [line.split() for line in child.stdout.splitlines()]
    outcomes = Counter(line[2] for line in lines if line[0] == "end")
    last = lines[-1] if lines else "nothing"
    assert child.returncode == 0, f"ended with {child.returncode} after {last}: {child.stderr[-2000:]}"
    assert set(outcomes) <= {"image", "InputError"}, f"{outcomes}: {child.stderr[-2000:]}"
    assert outcomes.total() == NUM_CASES
    # Some damage is harmless, most is not.
    assert min(outcomes["image"], outcomes["InputError"]) > NUM_CASES // 50


@pytest.mark.parametrize("kind", image_worker.KINDS)
def test_the_files_that_are_damaged_are_good(kind: str) -> None:
    if not image_worker.is_installed(kind):
        pytest.skip(f"{kind} is not read here")
    good = image_worker.sources(kind)
    assert len(good) >= len(image_worker.KINDS[kind]) - 3  # compressions that a libtiff may lack
    assert {image_worker.outcome_of(data) for data in good} == {"image"}
    cases = {image_worker.make_case(kind, number, good) for number in range(50)}
    assert len(cases) > 40
