"""Many requests to one model: several sessions answer them at the same time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal, overload

from executorch_mm._engine.ahead import (
    OnError,
    checked_ahead,
    checked_on_error,
    checked_requests,
    in_order,
    result_or_error,
)
from executorch_mm._loading.shown_options import show_options
from executorch_mm.config import SHOWN, GenerationConfig, GenerationOptions, with_options
from executorch_mm.errors import ExecutorchMMError, InputError, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm._engine.result import GenerationResult
    from executorch_mm.chat.chat import ChatOptions
    from executorch_mm.runner.batch_request import AnyRequest
    from executorch_mm.runner.session import Session

_MOST_SESSIONS = 256


class ModelMap:
    """Answers to many requests, for a model that has sessions."""

    @abstractmethod
    def session(self) -> Session:
        """A new conversation."""

    @overload
    def map(
        self,
        requests: Iterable[AnyRequest],
        config: GenerationConfig | None = None,
        *,
        num_sessions: int = 1,
        prefetch: int = 2,
        on_error: Literal["raise"] = "raise",
        chat_options: ChatOptions | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generator[GenerationResult, None, None]: ...

    @overload
    def map(
        self,
        requests: Iterable[AnyRequest],
        config: GenerationConfig | None = None,
        *,
        num_sessions: int = 1,
        prefetch: int = 2,
        on_error: Literal["return"],
        chat_options: ChatOptions | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generator[GenerationResult | ExecutorchMMError, None, None]: ...

    def map(
        self,
        requests: Iterable[AnyRequest],
        config: GenerationConfig | None = None,
        *,
        num_sessions: int = 1,
        prefetch: int = 2,
        on_error: OnError = "raise",
        chat_options: ChatOptions | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generator[GenerationResult | ExecutorchMMError, None, None]:
        """Answers many requests, each on its own, in their order, as `MultimodalRunner.map` does.

        Args:
            requests: As there. Not more than `num_sessions` + `prefetch` of them are in memory at a time.
            config: As there.
            num_sessions: Sessions that answer at the same time, each in a thread: they take turns with the
                model, and sampling, stop texts and callbacks of one go on while another has it. 1 to 256.
            prefetch: As there.
            on_error: As there.
            chat_options: As there.
            **options: As there.

        Returns:
            A generator of results. Requests go on while nobody asks for the next one. Closing it, or leaving
            its loop, stops those under way and closes the sessions.

        Raises:
            InputError: An option is wrong, or the model holds one conversation only.
            ExecutorchMMError: As there.
        """
        config = with_options(config, options)
        checked = checked_requests(requests)
        ahead, wanted = checked_ahead(prefetch), checked_on_error(on_error)
        given: object = num_sessions
        if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= _MOST_SESSIONS:
            raise InputError(f"num_sessions: expected 1 to {_MOST_SESSIONS}, got {shown(given)}")
        return self._map(checked, config, chat_options, num_sessions, ahead, wanted)

    def _map(
        self,
        requests: Iterator[AnyRequest],
        config: GenerationConfig,
        chat_options: ChatOptions | None,
        num_sessions: int,
        ahead: int,
        on_error: OnError,
    ) -> Generator[GenerationResult | ExecutorchMMError, None, None]:
        with ExitStack() as at_the_end:
            sessions = [at_the_end.enter_context(self.session()) for _ in range(num_sessions)]
            team = _Team(sessions, config, chat_options)
            results = in_order(requests, team.answer, num_sessions - 1 + ahead)
            at_the_end.callback(results.close)  # waits, so it comes before the sessions are closed
            at_the_end.callback(team.stop)
            for result in results:
                yield result_or_error(result, on_error)


class _Team:
    """Sessions that share the requests.

    Args:
        sessions: At their beginnings.
        config: Of the answers.
        chat_options: Of messages.
    """

    def __init__(
        self, sessions: Sequence[Session], config: GenerationConfig, chat_options: ChatOptions | None
    ) -> None:
        self._sessions = sessions
        self._config = config
        self._chat_options = chat_options
        self._is_stopped = False
        self._idle: SimpleQueue[Session] = SimpleQueue()
        for session in sessions:
            self._idle.put(session)

    def answer(self, request: AnyRequest) -> GenerationResult:
        """The answer of whichever session is free first."""
        prepared = self._sessions[0]._prepared(request, self._config, self._chat_options)
        session = self._idle.get()
        try:
            return session._requests.result_anew(prepared, lambda: self._is_stopped)
        finally:
            self._idle.put(session)

    def stop(self) -> None:
        """Ends the answers under way, and all that come."""
        self._is_stopped = True
        for session in self._sessions:
            session.stop()


show_options(ModelMap, SHOWN)
