"""Many requests, one after the other: what the next ones need is made ready meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Literal, cast, overload

from executorch_mm._engine.ahead import (
    OnError,
    checked_ahead,
    checked_on_error,
    checked_requests,
    in_order,
    result_or_error,
)
from executorch_mm._engine.requests import Request, Requests
from executorch_mm._loading.shown_options import show_options
from executorch_mm.chat.methods import ChatMethods
from executorch_mm.config import SHOWN, GenerationConfig, GenerationOptions, with_options
from executorch_mm.errors import ExecutorchMMError
from executorch_mm.inputs import as_parts

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm._engine.result import GenerationResult
    from executorch_mm.chat.chat import ChatOptions
    from executorch_mm.inputs import Prompt
    from executorch_mm.runner.batch_request import AnyRequest


class MapMethods(ChatMethods):
    """Answers to many requests, for a runner that has requests."""

    _requests: Requests

    @overload
    def map(
        self,
        requests: Iterable[AnyRequest],
        config: GenerationConfig | None = None,
        *,
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
        prefetch: int = 2,
        on_error: OnError = "raise",
        chat_options: ChatOptions | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generator[GenerationResult | ExecutorchMMError, None, None]:
        """Answers many requests, each on its own, in their order.

        Files are decoded and images, audio and chat templates prepared for the next requests, in threads
        beside this one, while the model works. Not more than `prefetch` + 1 requests are in memory at a time,
        whatever their number.

        Args:
            requests: Any iterable, a generator too: prompts as in `generate`, which start a conversation
                each, lists of messages as in `chat`, or `BatchRequest`s, which have options of their own.
            config: Options of the answers; None for the defaults.
            prefetch: Requests that are made ready before their turn, 0 to 1,024; with 0 no thread is started.
            on_error: "raise" ends with the first request that fails. "return" gives the error in place of its
                result and goes on.
            chat_options: Of messages, as in `chat`.
            **options: Fields of `GenerationConfig`, which override those of `config`.

        Returns:
            A generator of results. The model runs while the next one is asked for; closing the generator, or
            leaving its loop, waits for the preparation under way and ends it. `stop()` ends one answer only.
            The conversation is that of the last request afterwards.

        Raises:
            InputError: An option is wrong.
            ExecutorchMMError: With "return" too, what is of no single request: the runner is closed, busy, of
                another process, or the model's own process has ended.

        Examples:
            >>> from executorch_mm import MultimodalRunner
            >>> from executorch_mm.demo import make_scene, render
            >>> runner = MultimodalRunner.demo()
            >>> prompts = (["<|user|>", render(make_scene(seed=seed)), "describe this picture<|end|>"
            ...     "<|assistant|>"] for seed in (7, 8))
            >>> [result.text for result in runner.map(prompts, max_new_tokens=20)]
            ['...', '...']
        """
        config = with_options(config, options)
        checked = checked_requests(requests)
        ahead, wanted = checked_ahead(prefetch), checked_on_error(on_error)
        prepare = partial(self._prepared, config=config, chat_options=chat_options)
        return self._results(in_order(checked, prepare, ahead), wanted)

    def _prepared(
        self, request: AnyRequest, config: GenerationConfig, chat_options: ChatOptions | None
    ) -> Request:
        from executorch_mm.runner.batch_request import as_batch_request

        wanted = as_batch_request(request)
        config = wanted.config or config
        if wanted.messages is None:
            made = Request(as_parts(cast("Prompt", wanted.prompt)), config)
        else:
            options = wanted.chat_options or chat_options
            made = self._chat_request(wanted.messages, config, wanted.tools, options, {})
        return self._requests.ready(made)

    def _results(
        self, prepared: Generator[Callable[[], Request], None, None], on_error: OnError
    ) -> Generator[GenerationResult | ExecutorchMMError, None, None]:
        with closing(prepared):
            for request in prepared:
                yield result_or_error(lambda: self._requests.result_anew(request()), on_error)  # noqa: B023


show_options(MapMethods, SHOWN)
