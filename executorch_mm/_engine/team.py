"""Several sessions of one model that share many requests."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from queue import SimpleQueue
from typing import Generic, Protocol, TypeVar

from executorch_mm._engine.ahead import OnError, in_order, result_or_error
from executorch_mm.errors import ExecutorchMMError, InputError, shown

_MOST_SESSIONS = 256

RequestT = TypeVar("RequestT")
PreparedT = TypeVar("PreparedT")
ResultT = TypeVar("ResultT")


class AnySession(Protocol):
    """What a session has, whatever its model does."""

    def close(self) -> None: ...

    def stop(self) -> None: ...


SessionT = TypeVar("SessionT", bound=AnySession)


def checked_sessions(num_sessions: object) -> int:
    """How many sessions answer at the same time.

    Raises:
        InputError: It is no such number.
    """
    given = num_sessions
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= _MOST_SESSIONS:
        raise InputError(f"num_sessions: expected 1 to {_MOST_SESSIONS}, got {shown(given)}")
    return given


def by_sessions(
    make: Callable[[], SessionT],
    num_sessions: int,
    requests: Iterator[RequestT],
    prepare: Callable[[SessionT, RequestT], PreparedT],
    answer: Callable[[SessionT, PreparedT, Callable[[], bool]], ResultT],
    ahead: int,
    on_error: OnError,
) -> Generator[ResultT | ExecutorchMMError, None, None]:
    """Answers many requests in their order, as many at a time as there are sessions.

    Closing stops those under way and closes the sessions.

    Args:
        make: A new session, which is closed at the end.
        num_sessions: How many.
        requests: Any number of them.
        prepare: What can be done for a request before a session is free; the session given may be in use.
        answer: The answer of a session that is free. The function tells whether all have been stopped.
        ahead: How many requests are made ready beside those that are answered.
        on_error: As in `result_or_error`.
    """
    with ExitStack() as at_the_end:
        sessions = [at_the_end.enter_context(closing(make())) for _ in range(num_sessions)]
        team = _Team(sessions, prepare, answer)
        results = in_order(requests, team.answer, num_sessions - 1 + ahead)
        at_the_end.callback(results.close)  # waits, so it comes before the sessions are closed
        at_the_end.callback(team.stop)
        for result in results:
            yield result_or_error(result, on_error)


class _Team(Generic[SessionT, RequestT, PreparedT, ResultT]):
    """Sessions that share the requests; parameters as in `by_sessions`."""

    def __init__(
        self,
        sessions: Sequence[SessionT],
        prepare: Callable[[SessionT, RequestT], PreparedT],
        answer: Callable[[SessionT, PreparedT, Callable[[], bool]], ResultT],
    ) -> None:
        self._sessions = sessions
        self._prepare = prepare
        self._answer = answer
        self._is_stopped = False
        self._idle: SimpleQueue[SessionT] = SimpleQueue()
        for session in sessions:
            self._idle.put(session)

    def answer(self, request: RequestT) -> ResultT:
        """The answer of whichever session is free first."""
        prepared = self._prepare(self._sessions[0], request)
        session = self._idle.get()
        try:
            return self._answer(session, prepared, lambda: self._is_stopped)
        finally:
            self._idle.put(session)

    def stop(self) -> None:
        """Ends the answers under way, and all that come."""
        self._is_stopped = True
        for session in self._sessions:
            session.stop()
