"""Requests of tasks: the model works in a thread, the task waits for it or reads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator
from typing import Generic, Protocol, TypeVar

from executorch_mm import _core
from executorch_mm._engine.turnstile import Ticket, Turnstile
from executorch_mm.errors import ExecutionError

ResultT = TypeVar("ResultT")
PieceT = TypeVar("PieceT")

AHEAD = 1024
"""Pieces that may wait for their reader while others wait for the runner."""
_PATIENCE = 1.0  # seconds after which a thread that waits looks whether its reader's event loop is gone


class _Session(Protocol):
    def begin_request(self) -> None: ...
    def cancel(self) -> None: ...


class Job(Generic[ResultT]):
    """A request in a thread of its own, which goes through the turnstile by itself.

    Args:
        turnstile: Of the runner.
        session: Of the runner.
        work: The request, for the thread.
        on_end: Called in the thread at the end of the request.
    """

    def __init__(
        self,
        turnstile: Turnstile,
        session: _Session,
        work: Callable[[], ResultT],
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._turnstile = turnstile
        self._session = session
        self._work = work
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._results: list[ResultT] = []
        self._error: BaseException | None = None
        self._change = threading.Lock()
        self._is_in = False
        self._is_cancelled = False

    def start(self, ticket: Ticket) -> None:
        """Starts the thread, which enters with the ticket.

        Raises:
            ExecutionError: There can be no more threads.
        """
        try:
            self._thread = threading.Thread(
                target=self._run, args=[ticket], name="executorch_mm", daemon=True
            )
            self._thread.start()
        except (RuntimeError, MemoryError) as error:
            raise ExecutionError(f"no thread can be started for the request: {error}") from error

    def cancel(self) -> None:
        """Ends the request before the model's next call, and no other's."""
        with self._change:
            self._is_cancelled = True
            if self._is_in:
                self._session.cancel()

    async def ended(self) -> None:
        """Waits until the runner is free again; a cancellation ends the request and is raised then."""
        try:
            await asyncio.wait([self._ended])
        except asyncio.CancelledError:
            self.cancel()
            while not self._ended.done():
                with contextlib.suppress(asyncio.CancelledError):  # again: what it asks for is being done
                    await asyncio.wait([self._ended])
            self._thread.join()
            raise
        except GeneratorExit:  # the event loop is gone
            self.cancel()
            raise
        self._thread.join()  # which has nothing left to do

    async def result(self) -> ResultT:
        """What the request gave, or the exception that ended it; as `ended`."""
        await self.ended()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback holds this object
        return self._results[0]

    def _run(self, ticket: Ticket) -> None:
        has_entered = ticket.enter()
        if has_entered:
            try:
                self._begin()
                self._results.append(self._work())
            except BaseException as error:  # noqa: BLE001 (goes to the task)
                self._error = error
            with self._change:
                self._is_in = False
        # Before the next one is let in, whose answer could otherwise be known first; the task goes on only
        # when this thread has ended.
        self._on_end()
        with contextlib.suppress(RuntimeError):  # the event loop is gone
            self._loop.call_soon_threadsafe(self._ended.set_result, None)
        if has_entered:
            self._turnstile.leave()

    def _begin(self) -> None:
        self._session.begin_request()  # forgets a cancellation
        with self._change:
            self._is_in = True
            if self._is_cancelled:
                self._session.cancel()


class Channel(Generic[PieceT]):
    """The pieces of an answer on their way from a job's thread to the task that reads them.

    A piece is made when the reader asks for it, so that a reader who leaves has seen all that there is. While
    others wait for the runner, up to `AHEAD` pieces are made before they are asked for, so that a slow reader
    keeps nobody waiting.

    Args:
        turnstile: Of the runner.

    Attributes:
        is_ahead: Whether that holds always: for a reader who takes several at a time.
    """

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile
        self.is_ahead: bool = False
        self._resting: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = threading.Condition()
        self._pieces: deque[PieceT] = deque()
        self._reader: asyncio.Future[None] | None = None  # while it waits
        self._is_complete = False
        self._is_left = False

    def fill(self, pieces: Generator[PieceT, None, None], deadline_ns: int) -> None:
        """Makes the pieces, in the job's thread.

        Args:
            pieces: Closed in the end.
            deadline_ns: When they are made without being asked for, since then they come to an end.
        """
        self._turnstile.watch(self._look)
        try:
            while self._is_wanted(deadline_ns):
                for piece in pieces:
                    self._put(piece)
                    break
                else:
                    return
        finally:
            self._turnstile.watch(None)
            pieces.close()

    async def get(self) -> PieceT | None:
        """The next piece, for the task; None when there are no more."""
        self._loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                self._changed.notify()
                if self._pieces:
                    return self._pieces.popleft()
                if self._is_complete:
                    return None
                self._reader = reader = self._loop.create_future()
            await reader

    @property
    def has_next(self) -> bool:
        """Whether `get` has a piece without waiting."""
        return bool(self._pieces)

    async def rest(self, seconds: float) -> None:
        """Waits so long without being woken by pieces, for the task; no longer than they come."""
        loop = asyncio.get_running_loop()
        with self._changed:
            if self._is_complete:
                return
            self._resting = resting = loop.create_future()
        timer = loop.call_later(seconds, _set, resting)
        try:
            await resting
        finally:
            timer.cancel()

    def complete(self) -> None:
        """No more pieces come."""
        with self._changed:
            self._is_complete = True
            self._wake()
            self._reader, self._resting = self._resting, None
            self._wake()

    def leave(self) -> None:
        """Nobody reads any more."""
        with self._changed:
            self._is_left = True
            self._changed.notify()

    def _look(self) -> None:
        with self._changed:
            self._changed.notify()

    def _is_wanted(self, deadline_ns: int) -> bool:
        with self._changed:
            while not self._is_left and (self._loop is None or not self._loop.is_closed()):
                is_early = self.is_ahead or self._turnstile.is_awaited
                if self._reader is not None or (is_early and len(self._pieces) < AHEAD):
                    return True
                seconds = (deadline_ns - _core.now_ns()) / 1e9
                if seconds <= 0:
                    return True
                self._changed.wait(min(seconds, _PATIENCE))
        return False

    def _put(self, piece: PieceT) -> None:
        with self._changed:
            self._pieces.append(piece)
            self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(RuntimeError):  # the event loop is gone
                reader.get_loop().call_soon_threadsafe(_set, reader)


def _set(reader: asyncio.Future[None]) -> None:
    if not reader.done():
        reader.set_result(None)
