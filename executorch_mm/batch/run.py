"""A batch: rows in a file, a result for each in another, whatever happens in between."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from executorch_mm._files.paths import checked_path
from executorch_mm._loading.child_process import expect_python
from executorch_mm._loading.options import PathLike
from executorch_mm._loading.pretrained import ModelFiles, find_model
from executorch_mm.batch.journal import Journal
from executorch_mm.batch.options import BatchOptions
from executorch_mm.batch.pool import Answer, Answers, Feed, Pool
from executorch_mm.batch.rows import Row, count_rows, read_rows
from executorch_mm.batch.tasks import TaskOptions, endpoint_of, failure_of
from executorch_mm.batch.ways import Way, num_cores, ways
from executorch_mm.errors import ExecutionError, ExecutorchMMError, InputError, shown

_ROWS_A_PROCESS = 16  # that are under way, or done and wait for one before them
_TRIAL_SECONDS, _TRIAL_ROWS = 4.0, 6  # of each way at least; rows for each core
_TELL_SECONDS = 0.5
_RATE_SECONDS = 30.0


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch has come.

    Attributes:
        num_done: Rows that have a result, those of earlier runs included.
        num_before: Those of earlier runs.
        num_errors: Rows of this run whose result is an error.
        num_repeated: Rows that were passed over, because one before them has the same id.
        total: Rows of the file; None as long as nobody knows, on standard input.
        seconds: Since the first process was started.
        rows_per_second: Of late, and of the whole run at its end; 0 before the first.
        seconds_left: That the rest will take; None as long as nobody knows.
        processes: What works on it, in words.
    """

    num_done: int = 0
    num_before: int = 0
    num_errors: int = 0
    num_repeated: int = 0
    total: int | None = None
    seconds: float = 0.0
    rows_per_second: float = 0.0
    seconds_left: float | None = None
    processes: str = ""


def run_batch(
    rows: PathLike | None,
    results: PathLike | None,
    model: PathLike,
    tokenizer_path: PathLike | None = None,
    options: BatchOptions | None = None,
    on_progress: Callable[[BatchProgress], object] | None = None,
) -> BatchProgress:
    """Answers the rows of a file that have no result yet, and adds a result to another file for each.

    A row that fails has its error as its result. However the program is ended, the results that are there are
    whole, and the next call goes on from them. Rows are answered in processes of their own: one that crashes
    takes one row with it.

    Args:
        rows: Lines of JSON, or a table (.csv, .parquet); None for standard input.
        results: Where one JSON object a line goes; None for standard output.
        model: A .pte file, a folder with one, or a repository of the Hugging Face Hub as "owner/name".
        tokenizer_path: Of the tokenizer; None looks beside the model.
        options: How; None for the defaults.
        on_progress: Called at the beginning, twice a second and at the end, on this thread.

    Returns:
        How far it has come at the end.

    Raises:
        InputError: An option is wrong, the table is damaged, or the file of results holds something else.
        ModelLoadError, ContractError, TokenizerError: The model cannot be loaded.
        MissingDependencyError: A table is to be read and pyarrow is missing; the extra is `batch`.
        ExecutionError: More rows have failed than may, or no process can be started.
        OSError: A file cannot be read or written.
    """
    if not isinstance(options, (BatchOptions, type(None))):
        raise InputError(f"options: expected BatchOptions or None, got {shown(options)}")
    if on_progress is not None and not callable(on_progress):
        raise InputError(f"on_progress: expected something to call, got {shown(on_progress)}")
    source = None if rows is None else checked_path(rows, "rows")
    target = None if results is None else checked_path(results, "results")
    files = find_model(model)
    if tokenizer_path is not None:
        files = replace(files, tokenizer=checked_path(tokenizer_path, "tokenizer_path"))
    return Batch(source, target, files, options or BatchOptions(), on_progress).run()


class Batch:
    """A run of a batch.

    Args:
        source: Where the rows are; None for standard input.
        target: Where the results go; None for standard output.
        files: Of the model.
        options: How.
        on_progress: Called at the beginning, twice a second and at the end; None for nothing.
    """

    def __init__(
        self,
        source: Path | None,
        target: Path | None,
        files: ModelFiles,
        options: BatchOptions,
        on_progress: Callable[[BatchProgress], object] | None = None,
    ) -> None:
        self._source = source
        self._target = target
        self._files = files
        self._options = options
        self._on_progress = on_progress
        self._num_answered = self._num_before = self._num_errors = self._num_repeated = 0
        self._total: int | None = None
        self._processes = ""
        self._is_interrupted = False
        self._answers: Answers = SimpleQueue()
        self._waiting: dict[int, Answer] = {}
        self._start = self._told = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque()  # when so many had been answered

    def run(self) -> BatchProgress:
        """Runs it; see `run_batch`."""
        expect_python("workers")
        if self._source is not None:
            self._total = count_rows(self._source)
        self._journal = Journal(self._target, drops_errors=self._options.retry_errors)
        rows = self._fresh()
        with self._noting_interrupts(), closing(self._journal):
            first = next(rows, None)
            if first is not None:
                left = None if self._total is None else self._total - self._num_before
                possible = ways(self._options, self._files, left)
                most = max(way.num_processes for way in possible)
                self._feed = Feed(itertools.chain([first], rows), _ROWS_A_PROCESS * most)
                try:
                    self._answer_all(self._options.endpoint or _endpoint(first), possible)
                finally:
                    self._feed.close()
        self._total = self._num_before + self._num_answered + self._num_repeated
        self._marks.clear()
        return self._tell()

    @contextmanager
    def _noting_interrupts(self) -> Iterator[None]:
        """Ctrl-C ends the block also where what it raises is lost, as in a destructor."""

        def note(number: int, frame: FrameType | None) -> None:
            self._is_interrupted = True
            signal.default_int_handler(number, frame)

        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield  # it is the matter of whoever has another handler
            return
        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _fresh(self) -> Generator[Row, None, None]:
        """Rows that have no result yet."""
        before, ids = frozenset(self._journal.ids), set[str]()
        for row in read_rows(self._source):
            if row.id in ids:
                self._num_repeated += 1
                continue
            ids.add(row.id)
            if row.id in before:
                self._num_before += 1
            else:
                yield row

    def _answer_all(self, endpoint: str, possible: Sequence[Way]) -> None:
        """Answers rows in each way for a while, and the rest in the one that has turned out to be faster."""
        rates: list[float] = []
        if len(possible) > 1:
            for way in possible:
                with self._pool(endpoint, way) as pool:
                    rates.append(self._try(pool))
                    if way is possible[-1] and rates[-1] == max(rates):  # it is loaded already
                        self._processes = _said(possible, rates)
                        self._drain(pool)
        if not self._feed.is_over:
            self._processes = _said(possible, rates)
            with self._pool(endpoint, possible[rates.index(max(rates)) if rates else 0]) as pool:
                self._drain(pool)

    def _pool(self, endpoint: str, way: Way) -> Pool:
        options = self._options
        self._processes = self._processes or str(way)
        task = TaskOptions(
            endpoint=endpoint,
            model=str(self._files.model),
            tokenizer=str(self._files.tokenizer),
            data=tuple(map(str, self._files.data)),
            num_threads="auto" if way.num_threads is None else way.num_threads,
            media_folder=None if options.media_folder is None else str(options.media_folder),
            config=options.config,
            prompt=options.prompt,
            system=options.system,
        )
        return Pool(asdict(task), way.num_processes, _failed)

    def _try(self, pool: Pool) -> float:
        """Rows that it answers in a second."""
        start, before = time.monotonic(), self._num_answered
        self._feed.pause_after(_TRIAL_SECONDS, _TRIAL_ROWS * num_cores())
        self._drain(pool)
        self._feed.go_on()
        return (self._num_answered - before) / (time.monotonic() - start)

    def _drain(self, pool: Pool) -> None:
        """Writes what a pool answers until there are no more rows for now."""
        pool.run(self._feed, self._answers)
        self._tell()
        while True:
            if self._is_interrupted:
                raise KeyboardInterrupt
            try:
                answer = self._answers.get(timeout=_TELL_SECONDS)
            except Empty:
                self._tell()
                continue
            if answer is None:
                return
            if isinstance(answer, BaseException):
                raise answer
            self._take(answer)
            if time.monotonic() - self._told >= _TELL_SECONDS:
                self._tell()

    def _take(self, answer: Answer) -> None:
        self._num_answered += 1
        order = self._feed.order
        if not self._options.keep_order:
            order.popleft()
            self._write(answer)
            return
        self._waiting[answer.row.number] = answer
        while order and order[0] in self._waiting:
            self._write(self._waiting.pop(order.popleft()))

    def _write(self, answer: Answer) -> None:
        self._journal.write(answer.row.id, answer.result, is_error=answer.is_error)
        self._feed.done(1)
        if not answer.is_error:
            return
        self._num_errors += 1
        most = self._options.max_errors
        if most is not None and self._num_errors > most:
            raise ExecutionError(
                f"max_errors: more than {most} rows have failed, the last one with: {_message(answer.result)}"
            )

    def _tell(self) -> BatchProgress:
        now = self._told = time.monotonic()
        seconds = now - self._start
        self._marks.append((now, self._num_answered))
        while now - self._marks[0][0] > _RATE_SECONDS:
            self._marks.popleft()
        then, before = self._marks[0] if len(self._marks) > 1 else (self._start, 0)
        rate = (self._num_answered - before) / max(now - then, 1e-9)
        done = self._num_before + self._num_answered
        left = None if self._total is None else max(self._total - done - self._num_repeated, 0)
        progress = BatchProgress(
            num_done=done,
            num_before=self._num_before,
            num_errors=self._num_errors,
            num_repeated=self._num_repeated,
            total=self._total,
            seconds=seconds,
            rows_per_second=rate,
            seconds_left=left / rate if left is not None and rate else 0.0 if left == 0 else None,
            processes=self._processes,
        )
        if self._on_progress is not None:
            self._on_progress(progress)
        return progress


def _endpoint(row: Row) -> str:
    return endpoint_of(_values(row))


def _values(row: Row) -> dict[str, Any]:
    if row.error is not None:
        return {}
    values: dict[str, Any] = json.loads(row.text)
    return values


def _failed(row: Row, error: ExecutorchMMError) -> Answer:
    return Answer(row, failure_of(_values(row), row.id, error), is_error=True)


def _message(result: Any) -> str:
    return str(result["error"]["message"])


def _said(possible: Sequence[Way], rates: Sequence[float]) -> str:
    """What is used, and what came out of the others."""
    if not rates:
        return str(possible[0])
    ranked = sorted(zip(rates, possible, strict=True), reverse=True)
    (best, way), *others = ranked
    slower = ", ".join(f"{other}: {rate:.3g}" for rate, other in others)
    return f"{way} ({best:.3g} rows/s; {slower})"
