"""The runner's methods for prompts: answered at once, piece by piece, or read without an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from executorch_mm._engine.access import Progress
from executorch_mm._engine.answer_text import deltas, texts
from executorch_mm._engine.callbacks import checked_callback
from executorch_mm._engine.requests import Request, Requests
from executorch_mm._engine.result import GenerationResult
from executorch_mm._loading.shown_options import show_options
from executorch_mm.config import SHOWN, GenerationConfig, GenerationOptions, with_options
from executorch_mm.errors import InputError
from executorch_mm.inputs import Prompt
from executorch_mm.stats import Stats

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm._engine.reply import Delta
    from executorch_mm._engine.streams import AsyncStream, Stream


class AnswerMethods:
    """Answers for a runner that has requests."""

    _requests: Requests

    def generate(
        self,
        inputs: Prompt,
        config: GenerationConfig | None = None,
        token_callback: Callable[[str], object] | None = None,
        stats_callback: Callable[[Stats], object] | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> None:
        """Answers a prompt and hands the text over piece by piece.

        Args:
            inputs: A str, a `MultimodalInput`, a PIL image, or a list of these, read in this order. Empty
                to go on after `prefill()`.
            config: Options; None for the defaults.
            token_callback: Gets each piece of text, whole characters only. Called on this thread. An
                exception in it ends the request and comes out of this call; the conversation goes on from
                there.
            stats_callback: Gets the `Stats` once, at the end.
            progress: Gets (positions read, positions of the prompt, what comes next) before each call of the
                model that reads the prompt, and once when it has been read. What comes next is
                "encode_image", "encode_audio", "encode_text" or "prefill". The number of positions may still
                change while an encoder is to run whose output has no fixed size.
            **options: Fields of `GenerationConfig`, which override those of `config`.

        Raises:
            InputError: A part of the prompt or an option is wrong for this model. Nothing has changed.
            CapacityError: The prompt does not fit. Nothing has changed.
            ExecutionError: The model failed.
            BusyError: Another request is running.
        """
        config = with_options(config, options)
        on_piece = checked_callback(_ignore if token_callback is None else token_callback, "token_callback")
        on_stats = checked_callback(stats_callback, "stats_callback") if stats_callback is not None else None
        self._requests.answer(_for_one_answer(Request(inputs, config)), on_piece, progress)
        if on_stats is not None:
            on_stats(self._requests.stats)

    def generate_text(
        self, inputs: Prompt, config: GenerationConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> str:
        """The whole answer as one string; parameters and errors are those of `generate`."""
        return self._result(_for_one_answer(Request(inputs, with_options(config, options)))).text

    def generate_result(
        self, inputs: Prompt, config: GenerationConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> GenerationResult:
        """The whole answer with its tokens, their logprobs and times, and why it ended.

        Parameters and errors are those of `generate`.
        """
        return self._result(Request(inputs, with_options(config, options)))

    def stream(
        self,
        inputs: Prompt,
        config: GenerationConfig | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Stream[str, GenerationResult]:
        """The answer piece by piece, as an iterator; parameters and errors are those of `generate`.

        Work starts with the first piece asked for. Leaving the loop early closes the stream and ends the
        request; the conversation holds what was generated until then. When it is exhausted, the stream's
        `result` is what `generate_result` returns.
        """
        return self._stream(Request(inputs, with_options(config, options)), progress)

    def astream(
        self,
        inputs: Prompt,
        config: GenerationConfig | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncStream[str, GenerationResult]:
        """The answer piece by piece, as an asynchronous iterator; parameters are those of `generate`.

        The model, and with it `progress` and logits processors, runs in a thread that ends with the stream.
        Where another request is running, the stream waits until it is over, in the order in which streams
        and `agenerate_*` came; `timeout` counts from then on, whether the stream is read or not. While others
        wait, up to 1,024 pieces are made before they are asked for. Cancelling the task ends the request
        before the model's next call, and what awaits the task gets control once that is done. Close a stream
        that is left early: `async with contextlib.aclosing(runner.astream(...)) as pieces`.

        Raises:
            InputError, CapacityError, ExecutionError: As in `generate`.
        """
        request = _for_one_answer(Request(inputs, with_options(config, options)))
        return self._astream(_ready(request), progress)

    async def agenerate_text(
        self, inputs: Prompt, config: GenerationConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> str:
        """`generate_text` for a task, which waits and is cancelled as in `astream`."""
        request = _for_one_answer(Request(inputs, with_options(config, options)))
        return (await self._aresult(_ready(request))).text

    async def agenerate_result(
        self, inputs: Prompt, config: GenerationConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> GenerationResult:
        """`generate_result` for a task, which waits and is cancelled as in `astream`."""
        return await self._aresult(_ready(Request(inputs, with_options(config, options))))

    def warmup(self) -> None:
        """Runs each method of the model once, so that the first request does not pay for what comes once.

        That is reading the weights from the file and starting threads, for the most part. At the start of a
        conversation only: later the model has run, and nothing happens.

        Raises:
            ExecutionError: The model failed.
            BusyError: A request is running.
        """
        self._requests.warmup()

    def _stream(self, request: Request, progress: Progress | None) -> Stream[str, GenerationResult]:
        return self._requests.answer_stream(_for_one_answer(request), progress, texts)

    def _astream(
        self, prepare: Callable[[], Awaitable[Request]], progress: Progress | None
    ) -> AsyncStream[str, GenerationResult]:
        async def prepare_one() -> Request:
            return _for_one_answer(await prepare())

        return self._requests.answer_async(prepare_one, progress, texts)

    def _deltas(self, request: Request, progress: Progress | None) -> Stream[Delta, GenerationResult]:
        return self._requests.answer_stream(_for_one_answer(request), progress, deltas)

    def _adeltas(self, prepare: Callable[[], Awaitable[Request]]) -> AsyncStream[Delta, GenerationResult]:
        async def prepare_one() -> Request:
            return _for_one_answer(await prepare())

        return self._requests.answer_async(prepare_one, None, deltas)

    def _result(self, request: Request) -> GenerationResult:
        return self._requests.result(request)

    async def _aresult(self, prepare: Callable[[], Awaitable[Request]]) -> GenerationResult:
        return await self._requests.result_async(prepare)


show_options(AnswerMethods, SHOWN)


def _ignore(_piece: str) -> None:
    pass


def _for_one_answer(request: Request) -> Request:
    if (count := request.config.num_return_sequences) > 1:
        raise InputError(
            f"num_return_sequences: expected 1 where text is returned or streamed, got {count}: "
            "generate_result and chat return several answers"
        )
    return request


def _ready(request: Request) -> Callable[[], Awaitable[Request]]:
    async def prepare() -> Request:
        return request

    return prepare
