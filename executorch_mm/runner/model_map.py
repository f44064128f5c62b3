"""Many requests to one model: several sessions answer them at the same time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Literal, overload

from executorch_mm._engine.ahead import OnError, checked_ahead, checked_on_error, checked_requests
from executorch_mm._engine.team import by_sessions, checked_sessions
from executorch_mm._loading.shown_options import show_options
from executorch_mm.config import SHOWN, GenerationConfig, GenerationOptions, with_options
from executorch_mm.errors import ExecutorchMMError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm._engine.requests import Request
    from executorch_mm._engine.result import GenerationResult
    from executorch_mm.chat.chat import ChatOptions
    from executorch_mm.runner.batch_request import AnyRequest
    from executorch_mm.runner.session import Session


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

        def prepare(session: Session, request: AnyRequest) -> Request:
            return session._prepared(request, config, chat_options)

        def answer(session: Session, request: Request, is_stopped: Callable[[], bool]) -> GenerationResult:
            return session._requests.result_anew(request, is_stopped)

        return by_sessions(
            self.session,
            checked_sessions(num_sessions),
            checked_requests(requests),
            prepare,
            answer,
            checked_ahead(prefetch),
            checked_on_error(on_error),
        )


show_options(ModelMap, SHOWN)
