"""One request at a time: threads are refused meanwhile, tasks wait."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator
from typing import TypeVar

from executorch_mm.errors import BusyError

ResultT = TypeVar("ResultT")
PieceT = TypeVar("PieceT")

_PATIENCE = 1.0  # seconds after which who waits looks whether it has been forgotten


class Turnstile:
    """Lets one request through at a time.

    Tasks, of one event loop or of several, are let in in the order in which they came; no thread waits for
    them.

    Ctrl-C may come after any call of a function, but neither inside one that is written in C nor between its
    return and the next call. So whoever takes the lock does it inside the `try` that gives it back: with a
    context manager of Python's in between, the lock would be held for as long as the traceback is looked at.

    Args:
        what: What it leads to, for messages.
    """

    def __init__(self, what: str = "runner") -> None:
        self._what = what
        self._lock = threading.Lock()
        self._line: deque[Ticket] = deque()
        self._admitted: Ticket | None = None  # the last of them
        self._on_arrival: Callable[[], object] | None = None

    def call(self, request: Callable[[], ResultT]) -> ResultT:
        """Lets a request through.

        Raises:
            BusyError: Another one is under way.
        """
        taken: list[bool] = []
        try:
            self._take(taken)
            return request()
        finally:
            if True in taken:
                self._lock.release()  # the first call, and in C
                self.admit()

    def stream(self, request: Callable[[], Generator[PieceT, None, None]]) -> Generator[PieceT, None, None]:
        """Lets a request through that gives out pieces.

        Raises:
            BusyError: Another one is under way.
        """
        taken: list[bool] = []
        try:
            self._take(taken)
            yield from request()
        finally:
            if True in taken:
                self._lock.release()  # the first call, and in C
                self.admit()

    def queue(self) -> Ticket:
        """The next ticket, for the running task."""
        ticket = Ticket(self)
        self._line.append(ticket)
        self.admit()
        self._announce()
        return ticket

    def leave(self) -> None:
        """Whoever has been let in, by `call`, `stream` or `Ticket.enter`, leaves."""
        self._lock.release()
        self.admit()

    def watch(self, on_arrival: Callable[[], object] | None) -> None:
        """For the one who has been let in: calls back when somebody comes."""
        self._on_arrival = on_arrival

    @property
    def is_awaited(self) -> bool:
        """Whether tasks wait."""
        return bool(self._line)

    def admit(self) -> None:
        """Lets in the first of those who wait, if nobody is in."""
        while self._line:
            taken: list[bool] = []
            first: list[Ticket] = []
            try:
                self._try(taken)
                if True not in taken:
                    return
                with contextlib.suppress(IndexError):  # another thread has emptied the line
                    first.extend(map(deque.popleft, [self._line]))
                    self._admitted = first[0]
                    first[0].admit()
            finally:
                if True in taken and not any(ticket.is_admitted for ticket in first):
                    self._lock.release()
                    self._line.extendleft(ticket for ticket in first if not ticket.is_gone)
            if any(ticket.is_admitted for ticket in first):
                return

    def drop(self, ticket: Ticket) -> None:
        """Takes a ticket out of the line."""
        with contextlib.suppress(ValueError):
            self._line.remove(ticket)

    def _take(self, taken: list[bool]) -> None:
        self._try(taken)
        if True not in taken:
            self._announce()
            raise BusyError(
                f"the {self._what} is in use: by another thread, or by a stream that has not been closed"
            )

    def _try(self, taken: list[bool]) -> None:
        taken.extend(map(self._lock.acquire, [False]))  # one call for the interpreter
        if taken == [False] and self._admitted is not None and self._admitted.is_lost:
            self._lock.release()
            taken.extend(map(self._lock.acquire, [False]))

    def _announce(self) -> None:
        if (on_arrival := self._on_arrival) is not None:
            on_arrival()


class Ticket:
    """A task's place in the line."""

    def __init__(self, turnstile: Turnstile) -> None:
        import asyncio  # here: it takes as long to import as all the rest

        self._turnstile = turnstile
        self._loop = asyncio.get_running_loop()
        self._called = self._loop.create_future()
        self._admissions: list[None] = []
        self._entry = threading.Lock()  # held by the one who has entered
        self._has_left = threading.Event()

    @property
    def is_admitted(self) -> bool:
        """Whether somebody may enter with it."""
        return bool(self._admissions)

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits with it any more."""
        return self._has_left.is_set() or self._loop.is_closed()

    @property
    def is_lost(self) -> bool:
        """Whether nobody will enter with it though it has been admitted; true once, for the one who asks."""
        return self.is_admitted and self._loop.is_closed() and self.enter()

    async def turn(self) -> None:
        """Waits until it is admitted."""
        import asyncio

        while not self._called.done():
            self._turnstile.admit()
            await asyncio.wait([self._called], timeout=_PATIENCE)

    def admit(self) -> None:
        """By the one who holds the turnstile's lock, and passes it on unless the task is gone."""
        if self.is_gone:
            return
        self._admissions.append(None)
        with contextlib.suppress(RuntimeError):  # closed just now: `is_lost`
            self._loop.call_soon_threadsafe(self._call)
        if self._has_left.is_set() and self.enter():  # just now
            self._turnstile.leave()

    def _call(self) -> None:
        if not self._called.done():
            self._called.set_result(None)

    def enter(self) -> bool:
        """Whether one is in now; false where the task has left. Once admitted, from any thread."""
        return self._entry.acquire(blocking=False)

    def leave(self) -> None:
        """Without having entered, at any time; nothing happens once somebody has entered."""
        self._has_left.set()
        self._turnstile.drop(self)
        if self.is_admitted and self.enter():
            self._turnstile.leave()
