"""Changed export folders of transformers end in an answer or in a typed error: never in a crash or a hang.

EXECUTORCH_MM_FUZZ_CASES asks for many more, a quarter of its number; EXECUTORCH_MM_FUZZ_FIRST says where to
begin.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from folders import make_case
from test_mutations import NUM_CASES, outcomes_of


def test_a_few_changed_folders_end_in_an_answer_or_a_typed_error() -> None:
    outcomes = outcomes_of(40, "folder_worker.py")
    assert outcomes["ModelLoadError"] > 6
    assert outcomes["answer"] > 4


@pytest.mark.slow
@pytest.mark.skipif("EXECUTORCH_MM_FUZZ_CASES" not in os.environ, reason="a minute, for the asking")
def test_many_changed_folders_end_in_an_answer_or_a_typed_error() -> None:
    number = NUM_CASES // 4
    outcomes = outcomes_of(number, "folder_worker.py")
    # Some changes get as far as the programs' contract, and some are harmless.
    assert outcomes["ModelLoadError"] > number // 8
    assert outcomes["ContractError"] > number // 40
    assert outcomes["answer"] > number // 8


def test_the_same_number_is_the_same_folder(tmp_path: Path) -> None:
    made = []
    for name in ("one", "other"):
        said = [make_case(number, tmp_path / name) for number in range(24)]
        files = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        made.append((said, files))
    assert made[0] == made[1]
    assert len({*made[0][0]}) == 24
