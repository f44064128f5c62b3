"""An allocation that fails, wherever it is, ends in an error, and everything works afterwards."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[2] / "soak"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or COMPILER is None, reason="this system has no compiler or no LD_PRELOAD"
)
def test_no_failing_allocation_ends_the_process_or_changes_a_later_answer(tmp_path: Path) -> None:
    shim = tmp_path / "failing_alloc.so"
    command = [str(COMPILER), "-O1", "-shared", "-fPIC", "-o", shim, SOAK / "failing_alloc.cpp", "-ldl"]
    subprocess.run(command, check=True)
    done = subprocess.run(
        [sys.executable, SOAK / "failing_alloc.py"],
        env={**os.environ, "LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-100:]}\n{done.stderr[-2000:]}"
    stages = dict(re.findall(r"^stage (\w+) (\d+)", done.stdout, re.MULTILINE))
    assert list(stages) == ["load", "prefill", "decode", "save", "restore", "close"]
    assert int(stages["load"]) > 500, "the allocations are not seen"
    assert int(stages["restore"]) >= 4, "lists of tokens are not seen"
    assert "MemoryError" in done.stdout
