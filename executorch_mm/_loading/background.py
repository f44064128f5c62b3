"""Work beside the caller's own."""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

ResultT = TypeVar("ResultT")


class Background(Generic[ResultT]):
    """Does something on a thread of its own, which no program waits for when it ends.

    Where no thread can be started, or the thread has not come to it yet, it is done here when the result is
    asked for. So nobody waits for a thread that has ended of little memory before it began, as
    `threading.Thread.start` does.

    Args:
        work: What to do.
        starts: False for what is only done when it is asked for.
    """

    def __init__(self, work: Callable[[], ResultT], *, starts: bool = True) -> None:
        self._work = work
        self._results: list[ResultT] = []
        self._error: BaseException | None = None
        self._is_begun = threading.Lock()  # held by the one who does it
        self._is_done = threading.Event()
        if starts:
            with contextlib.suppress(RuntimeError):  # out of threads or memory
                _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        if not self._is_begun.acquire(blocking=False):
            return
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 (goes to who asks for the result)
            self._error = error
        finally:
            self._is_done.set()

    def wait(self) -> None:
        """Until it is done, if it has begun; it does not begin any more."""
        if self._is_begun.acquire(blocking=False):
            self._is_done.set()
        self._is_done.wait()

    def result(self) -> ResultT:
        """What came of it, or the exception."""
        self.wait()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # which holds this frame
        return self._results[0] if self._results else self._work()
