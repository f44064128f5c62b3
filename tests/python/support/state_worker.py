"""What another process does with saved conversations.

python state_worker.py TASK ARGUMENTS
"""

from __future__ import annotations

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
    {"restore": restore, "killed": killed, "forever": forever, "no_room": no_room}[sys.argv[1]](sys.argv[2])
