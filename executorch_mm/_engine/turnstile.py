"""One request at a time: threads are refused meanwhile, tasks wait."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from executorch_mm.errors import BusyError

if TYPE_CHECKING:
    from concurrent.futures import Future


class Turnstile:
    """Lets one request through at a time.

    Tasks, of one event loop or of several, are let in in the order in which they came; no thread waits for
    them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tickets: deque[Future[None]] = deque()  # of the tasks that wait

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """For the length of a request.

        Raises:
            BusyError: Another one is under way.
        """
        taken: list[bool] = []
        try:
            # One call for the interpreter: Ctrl-C comes before or after it, never when the lock has been
            # taken and nobody knows.
            taken.extend(map(self._lock.acquire, [False]))
            if not taken[0]:
                raise BusyError(
                    "the runner is in use: by another thread, or by a stream that has not been closed"
                )
            yield
        finally:
            if taken == [True]:
                self._lock.release()
                self._admit()

    @contextlib.asynccontextmanager
    async def awaited(self) -> AsyncIterator[None]:
        """For the length of a task's request, which waits for those that came before it."""
        import asyncio
        from concurrent.futures import Future

        ticket: Future[None] = Future()
        self._tickets.append(ticket)
        try:
            self._admit()
            await asyncio.wrap_future(ticket)
            yield
        finally:
            if not ticket.cancel():  # who has been let in must leave, cancelled or not
                self._lock.release()
                self._admit()

    def _admit(self) -> None:
        """Lets in the first of those who wait; called when the lock is given back and when someone comes."""
        while self._tickets and self._lock.acquire(blocking=False):
            with contextlib.suppress(IndexError):  # another thread has emptied the line
                ticket = self._tickets.popleft()
                if ticket.set_running_or_notify_cancel():
                    ticket.set_result(None)
                    return
            self._lock.release()
