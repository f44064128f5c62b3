"""Many threads, several processes: who may use a runner, and what the others are told."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from executorch_mm import BusyError, CapacityError, GenerationConfig, MultimodalRunner

OPTIONS = GenerationConfig(max_new_tokens=20, ignore_eos=True)


def answers(runner: MultimodalRunner, numbers: range) -> list[tuple[int, ...]]:
    found = []
    for number in numbers:
        runner.reset()
        found.append(
            runner.generate_result(f"<|user|>{number} circles<|end|><|assistant|>", OPTIONS).token_ids
        )
    return found


def test_four_threads_with_a_runner_each_answer_as_one_does(runner: MultimodalRunner) -> None:
    expected = answers(runner, range(10))

    def work(_number: int) -> list[tuple[int, ...]]:
        with MultimodalRunner.demo(num_threads=1) as own:
            return answers(own, range(10))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [expected] * 4


def test_position_and_history_can_be_read_while_another_thread_generates(runner: MultimodalRunner) -> None:
    done = threading.Event()
    seen: list[int] = []

    def watch() -> None:
        while not done.is_set():
            seen.extend([runner.position, len(runner.history)])

    threads = [threading.Thread(target=watch) for _ in range(2)]
    for thread in threads:
        thread.start()
    runner.generate_text("red", ignore_eos=True)
    done.set()
    for thread in threads:
        thread.join()
    assert max(seen) <= runner.capacity
    assert len(runner.history) == runner.position == runner.capacity


def test_threads_that_hammer_a_runner_are_served_or_refused(runner: MultimodalRunner) -> None:
    outcomes: list[str] = []

    def work(number: int) -> None:
        for turn in range(20):
            with contextlib.suppress(BusyError, CapacityError):
                if (number + turn) % 3:
                    runner.generate_text("red", max_new_tokens=3)
                else:
                    runner.reset()
                outcomes.append("served")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert outcomes
    assert len(runner.history) == runner.position
    runner.reset()
    assert answers(runner, range(1)) == answers(runner, range(1))


def test_a_runner_cannot_be_pickled_or_copied_and_says_what_to_do(runner: MultimodalRunner) -> None:
    for work in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="load the model from its path again"):
            work(runner)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks on this system")
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_forked_child_is_refused_and_ends_and_the_parent_goes_on(num_threads: int) -> None:
    """While another thread runs a model, so that locks are copied in every state."""
    program = """
import faulthandler, os, sys, threading, warnings
from executorch_mm import ForkError, MultimodalRunner
faulthandler.dump_traceback_later(60, exit=True)
# Python 3.12 and later warn of each fork beside threads, which is what this is about.
warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
num_threads = int(sys.argv[1])
runner, other = (MultimodalRunner.demo(num_threads=num_threads) for _ in range(2))
expected = runner.generate_text("red", max_new_tokens=20, ignore_eos=True)
runner.reset()
stream = runner.stream("red", max_new_tokens=20, ignore_eos=True)
text = next(stream)
done = threading.Event()
def work():
    while not done.is_set():
        other.reset()
        other.generate_text("red", ignore_eos=True)
thread = threading.Thread(target=work)
thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        refused = 0
        calls = [lambda: runner.generate_text("x"), runner.save, runner.stop, lambda: next(stream),
                 other.reset, lambda: runner.position, lambda: other.history]
        for call in calls:
            try:
                call()
            except ForkError as error:
                refused += "load a runner in each process" in str(error)
        other.close()
        missed = len(calls) - refused
        del stream, runner, other, calls, call
        os._exit(missed)
    assert os.waitpid(child, 0)[1] == 0
done.set()
thread.join()
print(text + "".join(stream) == expected)
"""
    command = [sys.executable, "-c", program, str(num_threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")
