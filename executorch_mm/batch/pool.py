"""Processes that answer rows."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from executorch_mm import errors
from executorch_mm._loading.child_process import start_python
from executorch_mm.batch.rows import Row
from executorch_mm.errors import ExecutionError, ExecutorchMMError

if TYPE_CHECKING:
    from typing_extensions import Self

_IN, _OUT, _ERRORS = 3, 4, 2  # numbers of the files in a process
_DEPTH = 3  # rows in a process: one is answered, one is ready, one is being prepared
END = b"end\n"


class Answer(NamedTuple):
    """What became of a row.

    Attributes:
        row: The row.
        result: The line that says it.
        is_error: Whether it says why there is no answer.
    """

    row: Row
    result: Mapping[str, object]
    is_error: bool


Answers: TypeAlias = "SimpleQueue[Answer | BaseException | None]"
"""Answers, what ends the whole of it, and None when there are no more for now."""


class _EndedError(ExecutionError):
    """A process has ended."""


class Feed:
    """Rows for several processes.

    Args:
        rows: Any number of them.
        window: How many may be under way, or done and not written yet.

    Attributes:
        order: Numbers of the rows that were taken; whoever reads it takes those away that it needs no more.
        is_over: Whether there are no more rows at all.
    """

    def __init__(self, rows: Iterator[Row], window: int) -> None:
        self._rows = rows
        self._window = window
        self._changed = threading.Condition()
        self._reading = threading.Lock()
        self._num_taken = 0
        self._num_done = 0
        self._pause: tuple[float, int] | None = None
        self._is_closed = False
        self.order: deque[int] = deque()
        self.is_over: bool = False

    def take(self, *, waits: bool) -> Row | None:
        """The next row; None when there are no more for now.

        Args:
            waits: For the time when one may begin; False for who has answers that others wait for.
        """
        with self._changed:
            while not self._is_closed and self._num_taken - self._num_done >= self._window:
                if not waits:
                    return None
                self._changed.wait()
            if self._is_closed or self._is_paused():
                return None
            self._num_taken += 1
        with self._reading:  # which may take long
            row = None if self.is_over else next(self._rows, None)
            if row is not None:
                self.order.append(row.number)
                return row
            self.is_over = True
        with self._changed:
            self._num_taken -= 1
        return None

    def pause_after(self, seconds: float, least: int) -> None:
        """There are no more for now once this time is over and so many have been taken."""
        with self._changed:
            self._pause = (time.monotonic() + seconds, self._num_taken + least)

    def go_on(self) -> None:
        """Takes a pause back."""
        with self._changed:
            self._pause = None

    def done(self, count: int) -> None:
        """So many more have been written."""
        with self._changed:
            self._num_done += count
            self._changed.notify_all()

    def close(self) -> None:
        """There are no more rows."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _is_paused(self) -> bool:
        return (
            self._pause is not None
            and self._num_taken >= self._pause[1]
            and time.monotonic() >= self._pause[0]
        )


class Pool:
    """Processes with a model each.

    Args:
        options: Of each, as `worker.serve` takes them.
        count: How many processes.
        failed: Makes the result of a row whose process has ended.
    """

    def __init__(
        self, options: Mapping[str, object], count: int, failed: Callable[[Row, ExecutorchMMError], Answer]
    ) -> None:
        self._options = json.dumps(options)
        self._failed = failed
        self._is_closed = False
        self._change = threading.Lock()
        self._lines: list[_Line] = []
        try:
            for _ in range(count):
                self._lines.append(_Line(self._options))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Waits until all have loaded the model.

        Raises:
            ExecutorchMMError: One could not load it.
        """
        try:
            for line in self._lines:
                line.expect_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, feed: Feed, answers: Answers) -> None:
        """Answers rows until there are no more for now; then puts None. Returns at once.

        Args:
            feed: Gives them.
            answers: Takes the answers, and what ends the whole of it.
        """
        left = [len(self._lines)]

        def serve(index: int) -> None:
            try:
                self._serve(index, feed, answers)
            except BaseException as error:  # noqa: BLE001 (raised by who reads)
                answers.put(error)
            with self._change:
                left[0] -= 1
                is_last = left[0] == 0
            if is_last:
                answers.put(None)

        for index in range(len(self._lines)):
            threading.Thread(target=serve, args=[index], name="executorch_mm batch", daemon=True).start()

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        with self._change:
            self._is_closed = True
            for line in self._lines:
                line.reap(seconds=0)

    def _serve(self, index: int, feed: Feed, answers: Answers) -> None:
        again: deque[Row] = deque()  # that were in a process which has ended, one of them the reason
        while True:
            pending: deque[Row] = deque()
            try:
                self._feed(self._lines[index], feed, answers, again, pending)
            except _EndedError as ended:
                if self._is_closed:
                    return
                if len(pending) == 1:
                    answers.put(self._failed(pending.popleft(), ExecutionError(str(ended))))
                again.extendleft(reversed(pending))
                self._replace(index)
            else:
                return

    def _feed(
        self, line: _Line, feed: Feed, answers: Answers, again: deque[Row], pending: deque[Row]
    ) -> None:
        """Gives rows to a process and takes its answers, in the same order."""
        while True:
            while len(pending) < (1 if again else _DEPTH):
                row = again.popleft() if again else feed.take(waits=not pending)
                if row is None:
                    break
                if row.error is not None:
                    answers.put(self._failed(row, row.error))
                    continue
                pending.append(row)
                line.send(row)
            if not pending:
                return
            result, is_error = line.receive()
            answers.put(Answer(pending.popleft(), result, is_error))

    def _replace(self, index: int) -> None:
        with self._change:
            if self._is_closed:
                raise ExecutionError("the batch has been ended")
            self._lines[index] = _Line(self._options)
        self._lines[index].expect_ready()


class _Line:
    """The line to a process, and the process.

    Args:
        options: Of `worker.serve`.

    Raises:
        ExecutionError: It cannot be started.
    """

    def __init__(self, options: str) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self._to, self._from = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._process: int | None = None
        self._status = 0
        self._change = threading.Lock()
        files = {_IN: theirs_in, _OUT: theirs_out}
        with contextlib.suppress(AttributeError, OSError, ValueError):  # no stream of the system
            files[_ERRORS] = sys.stderr.fileno()
        try:
            self._process = start_python("executorch_mm.batch.worker", [options], files)
        except OSError as error:
            self._to.close()
            self._from.close()
            raise ExecutionError(f"no process can be started for the batch: {error}") from error
        finally:
            os.close(theirs_in)
            os.close(theirs_out)

    def expect_ready(self) -> None:
        """Waits until the model is loaded.

        Raises:
            ExecutorchMMError: It cannot be.
        """
        line = self._from.readline()
        if not line.endswith(b"\n"):
            raise ExecutionError(f"the model cannot be loaded: {self.reap()}")
        told = json.loads(line)
        if told is not None:
            kind = getattr(errors, told["type"], ExecutionError)
            raise kind(told["message"])

    def send(self, row: Row) -> None:
        """Gives it a row.

        Raises:
            _EndedError: It has ended.
        """
        try:
            self._to.write(b"[%b,%b]\n" % (json.dumps(row.id).encode(), row.text))
            self._to.flush()
        except (OSError, ValueError) as error:  # ValueError: it has been ended from here
            raise self.reap() from error

    def receive(self) -> tuple[dict[str, Any], bool]:
        """The answer to the row that came first of those that have none.

        Raises:
            _EndedError: It has ended.
        """
        try:
            line = self._from.readline()
        except ValueError:  # the same
            line = b""
        if not line.endswith(b"\n"):
            raise self.reap()
        result, is_error = json.loads(line)
        return result, is_error

    def reap(self, *, seconds: float = 1.0) -> _EndedError:
        """Closes the line and waits until the process has ended.

        Args:
            seconds: After which it is made to.

        Returns:
            How it has ended.
        """
        with self._change:
            if self._process is not None:
                with contextlib.suppress(ChildProcessError):  # the program wants to know of no ends
                    self._status = _wait(self._process, seconds)
                self._process = None
                for file in (self._to, self._from):
                    with contextlib.suppress(OSError):  # of what was to be sent
                        file.close()
        how = f"signal {-self._status}" if self._status < 0 else f"exit code {self._status}"
        return _EndedError(f"the process that had this row has ended with {how}")


def _wait(process: int, seconds: float) -> int:
    """The exit code of a process, which is killed when it takes its time; that of a signal is negative."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
