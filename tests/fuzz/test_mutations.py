"""Damaged models, thousands of them, end in an answer or in a typed error: never in a crash or a hang.

EXECUTORCH_MM_FUZZ_CASES sets how many, EXECUTORCH_MM_FUZZ_FIRST where to begin.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
NUM_CASES = int(os.environ.get("EXECUTORCH_MM_FUZZ_CASES", "5600"))
FIRST_CASE = int(os.environ.get("EXECUTORCH_MM_FUZZ_FIRST", "0"))
NUM_WORKERS = 2
SECONDS_FOR_A_CASE = 60
EXPECTED_OUTCOMES = {
    "answer",
    "ModelLoadError",
    "ContractError",
    "ExecutionError",
    "CapacityError",
    "InputError",
}


@dataclass
class Worker:
    """Runs cases FIRST, FIRST + STEP, ... in child processes; a new one for each crash."""

    first: int
    step: int
    last: int
    script: str = "worker.py"
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        following = self.first
        while following < self.last:
            following = self._run_child(following) + self.step

    def _numbers(self, first: int) -> tuple[int, int, int]:
        return first, self.step, self.last

    def _run_child(self, first: int) -> int:
        """Returns the last case that was begun."""
        with (
            tempfile.TemporaryDirectory() as folder,
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                [
                    sys.executable,
                    FOLDER / self.script,
                    *map(str, self._numbers(first)),
                    f"{folder}/model.pte",
                ],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as child,
        ):
            current, hangs = self._watch(child, first)
            if hangs:
                child.kill()
            code = child.wait()
            if hangs or code != 0:
                errors.seek(0)
                reason = "hangs" if hangs else f"ended with {code}"
                lines = errors.read()[-2000:].decode(errors="replace")
                self.failures.append(f"case {current} {reason}: {lines}")
        return current if hangs or code != 0 else self.last

    def _watch(self, child: subprocess.Popen[str], first: int) -> tuple[int, bool]:
        """The case that is running when the child ends, and whether it took too long."""
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        current, text = first, ""
        deadline = time.monotonic() + SECONDS_FOR_A_CASE
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                chunk = os.read(child.stdout.fileno(), 1 << 16).decode()
                if not chunk:
                    return current, False
                text += chunk
                *lines, text = text.split("\n")
                for line in lines:
                    _, number, *outcome = line.split()
                    current = int(number)
                    self.outcomes.update(outcome)
                deadline = time.monotonic() + SECONDS_FOR_A_CASE
        return current, True


def outcomes_of(num_cases: int, script: str) -> Counter[str]:
    """Runs cases in child processes; none may crash or hang, or end in another way than is expected."""
    last = FIRST_CASE + num_cases
    workers = [Worker(FIRST_CASE + i, NUM_WORKERS, last, script) for i in range(NUM_WORKERS)]
    with ThreadPoolExecutor(NUM_WORKERS) as pool:
        list(pool.map(Worker.run, workers))
    outcomes = sum((worker.outcomes for worker in workers), Counter[str]())
    failures = [failure for worker in workers for failure in worker.failures]
    assert not failures, f"{len(failures)} of {num_cases}, {dict(outcomes)}:\n" + "\n".join(failures)
    assert outcomes.total() == num_cases
    assert set(outcomes) <= EXPECTED_OUTCOMES
    return outcomes


@pytest.mark.slow
def test_damaged_models_end_in_an_answer_or_a_typed_error() -> None:
    outcomes = outcomes_of(NUM_CASES, "worker.py")
    # Damage must get as far as the loader, and some of it is harmless.
    assert outcomes["ModelLoadError"] > NUM_CASES // 4
    assert outcomes["answer"] > NUM_CASES // 20


@pytest.mark.slow
def test_changed_shapes_places_and_names_end_in_an_answer_or_a_typed_error() -> None:
    """Of XNNPACK's graphs and of .ptd files; a seventh as many cases, which take longer."""
    outcomes = outcomes_of(NUM_CASES // 7, "structure_worker.py")
    assert outcomes["ModelLoadError"] > NUM_CASES // 7 // 4
    assert outcomes["answer"] > NUM_CASES // 7 // 20


def test_the_same_number_is_the_same_damage() -> None:
    script = "import zlib, mutations as m; print(*(zlib.crc32(m.make_case(i).data) for i in range(20)))"
    runs = {
        subprocess.run([sys.executable, "-c", script], cwd=FOLDER, capture_output=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1
    assert len(set(re.findall(rb"\d+", runs.pop()))) == 20
