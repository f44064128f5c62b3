"""A process of a batch: rows come on one file, answers go to another, in the same order."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from queue import Queue
from typing import IO, Any, NamedTuple

from executorch_mm.batch.journal import json_line
from executorch_mm.batch.tasks import Task, TaskOptions, failure_of, result_of
from executorch_mm.errors import ExecutorchMMError

_IN, _OUT = 3, 4


class _Ready(NamedTuple):
    id: str
    row: Mapping[str, Any]
    ready: Any
    error: Exception | None


def serve(options: str) -> None:
    """Answers rows until there are no more.

    Args:
        options: A JSON object of `TaskOptions`.
    """
    with os.fdopen(_IN, "rb") as rows, os.fdopen(_OUT, "wb") as answers:
        try:
            task = Task.of(TaskOptions(**json.loads(options)))
        except (ExecutorchMMError, MemoryError) as error:
            _write(answers, {"type": type(error).__name__, "message": str(error)})
            return
        _write(answers, None)
        waiting: Queue[_Ready] = Queue(1)
        threading.Thread(target=_read, args=[rows, task, waiting], daemon=True).start()
        while True:
            ready = waiting.get()
            _write(answers, _answer(task, ready))


def _read(rows: IO[bytes], task: Task[Any], waiting: Queue[_Ready]) -> None:
    """Prepares rows while the model works on those before."""
    for line in rows:
        row_id, row = json.loads(line)
        try:
            waiting.put(_Ready(row_id, row, task.ready(row), None))
        except Exception as error:  # noqa: BLE001 (of this row; the next ones go on)
            waiting.put(_Ready(row_id, row, None, error))
    os._exit(0)  # whoever gave the rows needs no more answers, or has been killed


def _answer(task: Task[Any], ready: _Ready) -> tuple[dict[str, Any], bool]:
    error = ready.error
    if error is None:
        try:
            return result_of(ready.row, ready.id, task.answer(ready.ready)), False
        except Exception as failure:  # noqa: BLE001 (the same)
            error = failure
    return failure_of(ready.row, ready.id, error), True


def _write(answers: IO[bytes], value: object) -> None:
    answers.write(json_line(value))
    answers.flush()
