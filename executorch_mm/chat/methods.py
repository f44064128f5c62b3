"""The runner's methods for chats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from executorch_mm._engine.requests import Request
from executorch_mm._loading.shown_options import show_options
from executorch_mm.config import (
    SHOWN,
    ChatGenerationOptions,
    GenerationConfig,
    with_options,
    without_synonyms,
)
from executorch_mm.errors import ExecutionError, InputError, shown

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from executorch_mm._engine.access import Progress
    from executorch_mm._engine.reply import Delta
    from executorch_mm._engine.result import GenerationResult
    from executorch_mm._engine.streams import AsyncStream, Stream
    from executorch_mm.chat.chat import Chat, ChatOptions
    from executorch_mm.chat.template import Message
    from executorch_mm.chat.tools import Tool

_T = TypeVar("_T")


class ChatMethods(ABC):
    """Chats for a runner: messages in, an answer out.

    Messages are the whole conversation each time, as with a web API, whatever the runner was used for before;
    nothing has to be reset. What the context already holds of it is not read again: from its start, the
    tokens, images and audio that are the same. A model that cannot go back in its context starts again.
    """

    @property
    @abstractmethod
    def _chat(self) -> Chat:
        """Makes prompts of messages."""

    @abstractmethod
    def _stream(self, request: Request, progress: Progress | None) -> Stream[str, GenerationResult]:
        """The answer to a prompt, piece by piece."""

    @abstractmethod
    def _astream(
        self, prepare: Callable[[], Awaitable[Request]], progress: Progress | None
    ) -> AsyncStream[str, GenerationResult]:
        """The answer to a prompt, piece by piece, for a task, which prepares the request while it waits."""

    @abstractmethod
    def _deltas(self, request: Request, progress: Progress | None) -> Stream[Delta, GenerationResult]:
        """The answer to a prompt, told apart, piece by piece."""

    @abstractmethod
    def _adeltas(self, prepare: Callable[[], Awaitable[Request]]) -> AsyncStream[Delta, GenerationResult]:
        """The same for a task, which prepares the request while it waits."""

    @abstractmethod
    async def _aresult(self, prepare: Callable[[], Awaitable[Request]]) -> GenerationResult:
        """The whole answer to a prompt, for a task, which prepares the request while it waits."""

    @abstractmethod
    def _result(self, request: Request) -> GenerationResult:
        """The whole answer to a prompt."""

    @property
    def has_chat_template(self) -> bool:
        """Whether there is a chat template among the model's files.

        Raises:
            InputError: A file that should hold one is damaged.
        """
        return self._chat.has_template()

    def chat(
        self,
        messages: Sequence[Message] | str,
        config: GenerationConfig | None = None,
        *,
        tools: Sequence[Tool] | None = None,
        chat_options: ChatOptions | None = None,
        **options: Unpack[ChatGenerationOptions],
    ) -> GenerationResult:
        """Answers a conversation.

        Args:
            messages: The whole conversation, in OpenAI's form or Hugging Face's: mappings (or dataclasses,
                or pydantic's models) with a role and content, which is a text or a list of parts:
                `{"type": "text", "text": ...}`,
                `{"type": "image", "image": image}` (or url=, path=, base64=),
                `{"type": "image_url", "image_url": {"url": ...}}`, `{"type": "audio", "audio": audio}`,
                `{"type": "input_audio", "input_audio": {"data": base64, "format": "wav"}}`,
                `{"type": "video", "video": [frames]}`. A text is one message of the user.
            config: Options of the answer; None for the defaults. `num_bos` counts what the template writes;
                `echo` has no effect.
            tools: What the model may call: JSON schemas, as OpenAI's API and transformers take them;
                functions with types and a docstring, which become the schemas that transformers makes;
                pydantic's models, whose fields are the arguments.
            chat_options: Documents, another template and its variables, the time it is told, and whether
                control tokens that messages spell are those tokens.
            **options: Fields of `GenerationConfig`, which override those of `config`; `max_tokens` and
                `max_completion_tokens`, as in OpenAI's API, are `max_new_tokens`.

        Raises:
            InputError: A message or tool is wrong, there is no template, or it fails. Nothing has changed.
            CapacityError: The conversation does not fit. The context holds the part in common.
            ExecutionError: The model failed.
            BusyError: Another request is running.

        Examples:
            >>> from executorch_mm import MultimodalRunner
            >>> from executorch_mm.demo import make_scene, render
            >>> runner = MultimodalRunner.demo()
            >>> question = {"type": "text", "text": "how many shapes are there?"}
            >>> image = {"type": "image", "image": render(make_scene(seed=7))}
            >>> runner.chat([{"role": "user", "content": [image, question]}]).text
            '...'
        """
        return self._result(self._chat_request(messages, config, tools, chat_options, options))

    @overload
    def stream_chat(
        self,
        messages: Sequence[Message] | str,
        config: GenerationConfig | None = None,
        *,
        tools: Sequence[Tool] | None = None,
        chat_options: ChatOptions | None = None,
        progress: Progress | None = None,
        deltas: Literal[False] = False,
        **options: Unpack[ChatGenerationOptions],
    ) -> Stream[str, GenerationResult]: ...

    @overload
    def stream_chat(
        self,
        messages: Sequence[Message] | str,
        config: GenerationConfig | None = None,
        *,
        tools: Sequence[Tool] | None = None,
        chat_options: ChatOptions | None = None,
        progress: Progress | None = None,
        deltas: Literal[True],
        **options: Unpack[ChatGenerationOptions],
    ) -> Stream[Delta, GenerationResult]: ...

    def stream_chat(
        self,
        messages: Sequence[Message] | str,
        config: GenerationConfig | None = None,
        *,
        tools: Sequence[Tool] | None = None,
        chat_options: ChatOptions | None = None,
        progress: Progress | None = None,
        deltas: bool = False,
        **options: Unpack[ChatGenerationOptions],
    ) -> Stream[str, GenerationResult] | Stream[Delta, GenerationResult]:
        """The answer piece by piece, as an iterator; parameters and errors are those of `chat`.

        The messages are checked by this call, the model runs with the first piece asked for. Leaving the loop
        early closes the stream and ends the request.

        Args:
            messages: As in `chat`, like the others.
            config: The same.
            tools: The same.
            chat_options: The same.
            progress: As in `generate`.
            deltas: Give `Delta`s, which tell content, thinking and calls of tools apart, and not texts.
            **options: As in `chat`.
        """
        is_told_apart = _checked_flag(deltas)
        request = self._chat_request(messages, config, tools, chat_options, options)
        return self._deltas(request, progress) if is_told_apart else self._stream(request, progress)

    async def achat(
        self,
        messages: Sequence[Message] | str,
        config: GenerationConfig | None = None,
        *,
        tools: Sequence[Tool] | None = None,
        chat_options: ChatOptions | None = None,
        **options: Unpack[ChatGenerationOptions],
    ) -> GenerationResult:
        """`chat` for a task, which waits and is cancelled as in `astream`.

        The messages are made ready in a thread while the task waits; it keeps its place meanwhile.
        """
        return await self._aresult(
            in_thread(lambda: self._chat_request(messages, config, tools, chat_options, options))
        )

    @overload
    def astream_chat(
        self,
        messages: Sequence[Message] | str,
        config: GenerationConfig | None = None,
        *,
        tools: Sequence[Tool] | None = None,
        chat_options: ChatOptions | None = None,
        deltas: Literal[False] = False,
        **options: Unpack[ChatGenerationOptions],
    ) -> AsyncStream[str, GenerationResult]: ...

    @overload
    def astream_chat(
        self,
        messages: Sequence[Message] | str,
        config: GenerationConfig | None = None,
        *,
        tools: Sequence[Tool] | None = None,
        chat_options: ChatOptions | None = None,
        deltas: Literal[True],
        **options: Unpack[ChatGenerationOptions],
    ) -> AsyncStream[Delta, GenerationResult]: ...

    def astream_chat(
        self,
        messages: Sequence[Message] | str,
        config: GenerationConfig | None = None,
        *,
        tools: Sequence[Tool] | None = None,
        chat_options: ChatOptions | None = None,
        deltas: bool = False,
        **options: Unpack[ChatGenerationOptions],
    ) -> AsyncStream[str, GenerationResult] | AsyncStream[Delta, GenerationResult]:
        """`stream_chat` for a task; it waits and is cancelled as `astream` is.

        The messages are made ready in a thread while the task waits; it keeps its place meanwhile.
        """
        is_told_apart = _checked_flag(deltas)
        prepare = in_thread(lambda: self._chat_request(messages, config, tools, chat_options, options))
        return self._adeltas(prepare) if is_told_apart else self._astream(prepare, None)

    def _chat_request(
        self,
        messages: Sequence[Message] | str,
        config: GenerationConfig | None,
        tools: Sequence[Tool] | None,
        chat_options: ChatOptions | None,
        options: ChatGenerationOptions,
    ) -> Request:
        from executorch_mm.chat.chat import ChatOptions

        config = with_options(config, without_synonyms(options))
        if chat_options is None:
            chat_options = ChatOptions()
        if not isinstance(chat_options, ChatOptions):
            raise InputError(f"chat_options: expected ChatOptions or None, got {shown(chat_options)}")
        prompt = self._chat.prompt(messages, tools, chat_options, config.num_bos)
        return Request.of_chat(prompt, config)


def _checked_flag(deltas: object) -> bool:
    if not isinstance(deltas, bool):
        raise InputError(f"deltas: expected a bool, got {shown(deltas)}")
    return deltas


def in_thread(prepare: Callable[[], Request]) -> Callable[[], Awaitable[Request]]:
    """Prepares a request in a thread, for a task that waits."""

    async def prepared() -> Request:
        import asyncio  # not at the top: it takes as long as all the rest

        try:
            return await asyncio.to_thread(prepare)
        except RuntimeError as error:
            if "can't start new thread" not in str(error):
                raise
            raise ExecutionError(f"no thread can be started for the messages: {error}") from error

    return prepared


show_options(ChatMethods, SHOWN)
