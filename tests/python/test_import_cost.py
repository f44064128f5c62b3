"""`import executorch_mm` stays cheap: what a request does not need is imported when it is needed."""

from __future__ import annotations

import subprocess
import sys
import tempfile

MEASURE = """
import time, numpy
start = time.thread_time()
import executorch_mm
print(time.thread_time() - start)
"""
LIST_MODULES = "import executorch_mm, sys; print(' '.join(sys.modules))"


def run(code: str) -> str:
    # From a folder without a package in it: -c puts the working folder first on the path.
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_import_adds_less_than_50_ms_to_numpy() -> None:
    run(MEASURE)  # compiles the byte code
    seconds = [float(run(MEASURE)) for _ in range(7)]

    # Processor time of the importing thread (numpy leaves threads spinning), and the least of it: what else
    # runs on the machine is not what is measured.
    assert min(seconds) < 0.050, seconds


def test_import_loads_none_of_the_packages_that_are_needed_later() -> None:
    loaded = {name.split(".")[0] for name in run(LIST_MODULES).split()}

    assert "executorch_mm" in loaded
    assert loaded.isdisjoint({"PIL", "tokenizers", "jinja2", "torch", "transformers", "executorch"})
