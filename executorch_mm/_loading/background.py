"""Work beside the caller's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

ResultT = TypeVar("ResultT")


class Background(Generic[ResultT]):
    """Does something on a thread of its own, which no program waits for when it ends.

    Where no thread can be started it is done here, when the result is asked for.

    Args:
        work: What to do.
    """

    def __init__(self, work: Callable[[], ResultT]) -> None:
        self._work = work
        self._results: list[ResultT] = []
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(
            target=self._run, name="executorch_mm", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:  # out of threads or memory
            self._thread = None

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 (goes to who asks for the result)
            self._error = error

    def wait(self) -> None:
        """Until it is done."""
        if self._thread is not None:
            self._thread.join()

    def result(self) -> ResultT:
        """What came of it, or the exception."""
        self.wait()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # which holds this frame
        return self._results[0] if self._results else self._work()
