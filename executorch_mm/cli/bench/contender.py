"""A model in a process of its own that is measured, and how several take turns."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from executorch_mm import ExecutionError, ExecutorchMMError

if TYPE_CHECKING:
    from typing_extensions import Self

    from executorch_mm._loading.pretrained import ModelFiles

_SOCKET = 3  # its number in the process


class Task(NamedTuple):
    """What is measured.

    Attributes:
        prompt_tokens: Of a prompt.
        new_tokens: Of an answer.
        conversations: How many at the same time; 1 where that is not measured.
    """

    prompt_tokens: int
    new_tokens: int
    conversations: int


class Contender:
    """A model and a number of threads.

    Args:
        name: As the model was named.
        files: Of the model.
        threads: None for what the model's size says.

    Attributes:
        name: Of the file or repository.
        threads: That it runs on.
        capacity: Positions of its context.
        holds_several: Whether it can hold several conversations.
        load_seconds: How long loading took.
        rounds: What was measured, by name, round by round.

    Raises:
        ExecutorchMMError: The model cannot be loaded.
    """

    def __init__(self, name: str, files: ModelFiles, threads: int | None) -> None:
        import socket

        from executorch_mm._loading.child_process import expect_python, start_python

        expect_python("bench")
        ours, theirs = socket.socketpair()
        asked = json.dumps(
            [str(files.model), str(files.tokenizer), [str(path) for path in files.data], threads]
        )
        with theirs:
            self._process = start_python(
                "executorch_mm.cli.bench.worker", [asked], {_SOCKET: theirs.fileno()}
            )
        self._file = ours.makefile("rw", encoding="utf-8")
        ours.close()
        try:
            facts = self._answer()
        except BaseException:
            self.close()
            raise
        self.name: str = Path(name).name or name
        self.threads: int = int(facts["threads"])
        self.capacity: int = int(facts["capacity"])
        self.holds_several: bool = bool(facts["holds_several"])
        self.load_seconds: float = facts["load_seconds"]
        self.rounds: list[dict[str, float]] = []

    def run(self, task: Task) -> dict[str, float]:
        """One round."""
        try:
            self._file.write(json.dumps(task) + "\n")
            self._file.flush()
        except OSError:
            raise self._ended() from None
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):
            self._file.close()
        with suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._process, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self) -> dict[str, float]:
        try:
            line = self._file.readline()
        except OSError:
            line = ""
        if not line:
            raise self._ended()
        answer: dict[str, float] = json.loads(line)
        if "error" in answer:
            raise ExecutorchMMError(str(answer["error"]))
        return answer

    def _ended(self) -> ExecutionError:
        return ExecutionError("bench: the process that is measured has ended")


def take_turns(
    contenders: Sequence[Contender], task: Task, rounds: int, progress: Callable[[int], None]
) -> None:
    """Measures all of them in each round, every other round in reverse, after one that is not counted.

    Args:
        contenders: Whose rounds are added to.
        task: What to measure.
        rounds: How many.
        progress: Called with the number of each round, and at the end.

    Raises:
        ExecutorchMMError: One has failed.
    """
    for number in range(rounds + 1):
        progress(number)
        for contender in contenders if number % 2 else reversed(contenders):
            measured = contender.run(task)
            if number:
                contender.rounds.append(measured)
    progress(rounds + 1)
