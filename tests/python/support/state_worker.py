"""What another process does with saved conversations.

python state_worker.py TASK ARGUMENTS
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from executorch_mm import GenerationConfig, MultimodalRunner, StateFileError, make_token_input
from number_tokenizer import NumberTokenizer
from stateful_models import MODELS, load_stateful

WRITING = ("open", "write", "fsync", "replace", "close")
LONG = [(7 * i + 3) % 60 + 2 for i in range(20)]
LLAMA = MODELS / "export_llm" / "llama.pte"
SEEDED = GenerationConfig(max_new_tokens=6, temperature=0.9, seed=5, logprobs=3, ignore_eos=True)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def load_llama() -> MultimodalRunner:
    return MultimodalRunner(LLAMA, NumberTokenizer())


def go_on(runner: MultimodalRunner) -> list[Any]:
    """What a runner says next: tokens, and the numbers behind them to the last bit."""
    found: list[Any] = []
    for prompt in ([], [make_token_input([4, 7])]):
        result = runner.generate_result(prompt, SEEDED)
        found.append([result.token_ids, result.logprobs, runner.history, runner.position])
    return found


def restore(files: str) -> None:
    """Prints what follows on each of the conversations, given as JSON: [[model, file], ...]."""
    said = []
    for model, file in json.loads(files):
        with load_stateful(Path(model)) as runner:
            runner.restore(file)
            said.append(go_on(runner))
    say(json.dumps(said))


def killed(file: str) -> None:
    """Dies when the new file is complete, but not in its place."""

    def die(_: object) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    with load_llama() as runner:
        runner.prefill(make_token_input(LONG[:3]))
        os.fsync = die
        runner.save(file)


def killed_behind(given: str) -> None:
    """Dies behind a call of the system while it saves, given as JSON: [file, which one]; says its name."""
    file, which = json.loads(given)
    num_calls = 0

    def count(frame: object, event: str, called: Any) -> None:
        nonlocal num_calls
        if event != "c_return":
            return
        is_file = isinstance(getattr(called, "__self__", None), io.FileIO)
        if (is_file or called.__module__ == os.open.__module__) and called.__name__ in WRITING:
            num_calls += 1
            if num_calls == which:
                sys.setprofile(None)
                say(called.__name__)
                os.kill(os.getpid(), signal.SIGKILL)

    with load_llama() as runner:
        runner.prefill(make_token_input(LONG[:3]))
        sys.setprofile(count)
        runner.save(file)
        sys.setprofile(None)


def parted(folder: str) -> None:
    """Goes on with what it finds there, saves a fork, goes on otherwise and saves that too."""
    with load_llama() as runner:
        runner.restore(Path(folder) / "first.emm")
        with runner.fork() as fork:
            fork.generate_result([], SEEDED)
            runner.prefill(make_token_input([9, 8]))
            fork.save(Path(folder) / "fork.emm")
            runner.save(Path(folder) / "other.emm")


def forever(file: str) -> None:
    """Saves 5, 10, 15 and 20 positions again and again, and says so after the first time."""
    with load_llama() as runner:
        while True:
            runner.reset()
            for _ in range(4):
                runner.prefill(make_token_input(LONG[:5]))
                runner.save(file)
            say("saved")


def no_room(file: str) -> None:
    """Saves where no file may be larger than 4 KiB; prints the error, and what the runner holds."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    with load_llama() as runner:
        runner.prefill(make_token_input(LONG))
        try:
            runner.save(file)
        except StateFileError as error:
            say(str(error))
        say(json.dumps(runner.history))


if __name__ == "__main__":
    tasks = (restore, killed, killed_behind, parted, forever, no_room)
    {task.__name__: task for task in tasks}[sys.argv[1]](sys.argv[2])
