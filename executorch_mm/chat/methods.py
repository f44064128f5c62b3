"""The runner's methods for chats."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass

from executorch_mm.chat.chat import Chat, ChatOptions
from executorch_mm.chat.context import ChatPrompt
from executorch_mm.chat.template import Message
from executorch_mm.config import GenerationConfig
from executorch_mm.inputs import Prompt
from executorch_mm.stats import Stats


@dataclass(frozen=True)
class ChatResult:
    """An answer.

    Attributes:
        text: The whole of it.
        stats: What the request cost; `num_prompt_tokens` counts only what was not in the context yet.
    """

    text: str
    stats: Stats


class ChatMethods(ABC):
    """Chats for a runner: messages in, an answer out.

    Messages are the whole conversation each time, as with a web API; nothing has to be reset in between. What
    the context already holds of it is not read again: the tokens from the start that are the same, and the
    same pictures and sounds. In the way of an answer that would not be told apart from it, it does not matter
    what ran on the runner before.
    """

    _chat: Chat

    @abstractmethod
    def _stream(self, inputs: Prompt | ChatPrompt, config: GenerationConfig) -> Generator[str, None, None]:
        """The answer to a prompt."""

    @property
    @abstractmethod
    def stats(self) -> Stats:
        """What the last finished request cost."""

    @abstractmethod
    def stop(self) -> None:
        """Ends the running request."""

    @property
    def has_chat_template(self) -> bool:
        """Whether there is a chat template among the model's files.

        Raises:
            InputError: A file that should hold one is damaged.
        """
        return self._chat.has_template()

    def chat(
        self,
        messages: Sequence[Message],
        config: GenerationConfig | None = None,
        *,
        options: ChatOptions | None = None,
    ) -> ChatResult:
        """Answers a conversation.

        Args:
            messages: The whole conversation, in OpenAI's form or Hugging Face's: mappings with a role and
                content, which is a text or a list of parts: `{"type": "text", "text": ...}`,
                `{"type": "image", "image": picture}` (or url=, path=, base64=),
                `{"type": "image_url", "image_url": {"url": ...}}`, `{"type": "audio", "audio": sound}`,
                `{"type": "input_audio", "input_audio": {"data": base64, "format": "wav"}}`,
                `{"type": "video", "video": [frames]}`.
            config: Options of the answer; None for the defaults. `num_bos` counts what the template writes;
                `echo` has no effect.
            options: Tools, documents, another template and its variables.

        Raises:
            InputError: A message is wrong, there is no template, or it fails. Nothing has changed.
            CapacityError: The conversation does not fit. The context holds the part in common.
            ExecutionError: The model failed.
            BusyError: Another request is running.

        Example:
            >>> from executorch_mm import MultimodalRunner
            >>> from executorch_mm.demo import make_scene, render
            >>> runner = MultimodalRunner.demo()
            >>> question = {"type": "text", "text": "how many shapes are there?"}
            >>> picture = {"type": "image", "image": render(make_scene(seed=7))}
            >>> runner.chat([{"role": "user", "content": [picture, question]}]).text
            '...'
        """
        with contextlib.closing(self.stream_chat(messages, config, options=options)) as pieces:
            text = "".join(pieces)
        return ChatResult(text, self.stats)

    def stream_chat(
        self,
        messages: Sequence[Message],
        config: GenerationConfig | None = None,
        *,
        options: ChatOptions | None = None,
    ) -> Generator[str, None, None]:
        """The answer piece by piece, as an iterator; parameters and errors are those of `chat`.

        The messages are checked by this call, the model runs with the first piece asked for. Leaving the loop
        early closes the stream and ends the request.
        """
        config = config or GenerationConfig()
        prompt = self._chat.prompt(messages, options or ChatOptions(), config.num_bos)
        return self._stream(prompt, dataclasses.replace(config, num_bos=0))

    async def achat(
        self,
        messages: Sequence[Message],
        config: GenerationConfig | None = None,
        *,
        options: ChatOptions | None = None,
    ) -> ChatResult:
        """`chat` without holding up the event loop; cancelling the task ends the request."""
        pieces = self.astream_chat(messages, config, options=options)
        async with contextlib.aclosing(pieces):
            text = "".join([piece async for piece in pieces])
        return ChatResult(text, self.stats)

    async def astream_chat(
        self,
        messages: Sequence[Message],
        config: GenerationConfig | None = None,
        *,
        options: ChatOptions | None = None,
    ) -> AsyncGenerator[str, None]:
        """`stream_chat` without holding up the event loop; cancelling the task ends the request.

        The model runs in a thread of the event loop's pool while a piece is awaited.
        """
        pieces = await asyncio.to_thread(self.stream_chat, messages, config, options=options)
        try:
            while (piece := await self._pull(pieces)) is not None:
                yield piece
        finally:
            pieces.close()

    async def _pull(self, pieces: Generator[str, None, None]) -> str | None:
        pull = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
        try:
            return await asyncio.shield(pull)
        except asyncio.CancelledError:
            self.stop()
            await pull  # a thread cannot be left behind in the model
            raise
