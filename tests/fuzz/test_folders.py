"""Changed export folders of transformers end in an answer or in a typed error: never in a crash or a hang.

Forty of them; where EXECUTORCH_MM_FUZZ_CASES is set, a quarter of its number.
"""

from __future__ import annotations

import os
from pathlib import Path

from folders import make_case
from test_mutations import NUM_CASES, outcomes_of

NUM_FOLDERS = NUM_CASES // 4 if "EXECUTORCH_MM_FUZZ_CASES" in os.environ else 40


def test_changed_folders_end_in_an_answer_or_a_typed_error() -> None:
    outcomes = outcomes_of(NUM_FOLDERS, "folder_worker.py")
    # Some changes get as far as what the programs promise, and some are harmless.
    assert outcomes["ModelLoadError"] > NUM_FOLDERS // 8
    assert outcomes["ContractError"] > NUM_FOLDERS // 16
    assert outcomes["answer"] > NUM_FOLDERS // 8


def test_the_same_number_is_the_same_folder(tmp_path: Path) -> None:
    made = []
    for name in ("one", "other"):
        said = [make_case(number, tmp_path / name) for number in range(24)]
        files = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        made.append((said, files))
    assert made[0] == made[1]
    assert len({*made[0][0]}) == 24
