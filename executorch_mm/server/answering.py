"""Prompts in, answers out: each prompt is read once, and its answers share the model step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from executorch_mm import (
    AsyncStream,
    Delta,
    GenerationConfig,
    GenerationResult,
    MultimodalInput,
    MultimodalRunner,
    Session,
)
from executorch_mm.server.models import LanguageModel, conversation
from executorch_mm.server.state import Served, ServerState

ResultT = TypeVar("ResultT")
Talk: TypeAlias = MultimodalRunner | Session
Piece: TypeAlias = str | Delta
Pieces: TypeAlias = AsyncStream[str, GenerationResult] | AsyncStream[Delta, GenerationResult]

_TOGETHER = 8  # prompts of one request that are answered at the same time


class Prompt(Protocol):
    """What is to be answered."""

    def result(self, talk: Talk, config: GenerationConfig) -> Coroutine[Any, Any, GenerationResult]:
        """The whole answer."""
        ...

    def stream(self, talk: Talk, config: GenerationConfig) -> Pieces:
        """The answer piece by piece."""
        ...

    @property
    def again(self) -> Prompt:
        """For a conversation that has read it."""
        ...


@dataclass(frozen=True)
class Question:
    """A prompt and how it is answered.

    Attributes:
        prompt: The prompt.
        config: Of its answers; answer i has the seed of the first plus i.
        count: Answers to it.
    """

    prompt: Prompt
    config: GenerationConfig
    count: int = 1


class Answering:
    """Answers the prompts of a request.

    Args:
        questions: Its prompts.
        model: Answers them.
        state: Of the server.
        served: Is told what they cost.
    """

    def __init__(
        self, questions: Sequence[Question], model: LanguageModel, state: ServerState, served: Served
    ) -> None:
        self._questions = questions
        self._model = model
        self._state = state
        self._served = served
        self._room = asyncio.Semaphore(_TOGETHER)
        self._stream: Pieces | None = None  # of the one answer that is asked for

    async def results(self) -> list[GenerationResult]:
        """All answers, those to the first prompt first."""
        async with self._state.places.place(self._seconds_left):
            self._served.begins()
            answers = await together([self._answers(question) for question in self._questions])
        return [answer for several in answers for answer in several]

    @property
    def has_next(self) -> bool:
        """Whether the next piece is there already."""
        return self._stream is not None and self._stream._channel.has_next

    async def rest(self) -> None:
        """Lets the model work for a while; what it writes then can be sent together."""
        seconds = self._state.options.stream_interval
        if self._stream is not None and seconds > 0:
            await self._stream._channel.rest(seconds)

    async def pieces(self) -> AsyncGenerator[tuple[int, Piece | GenerationResult], None]:
        """The pieces of all answers, with the number of the answer; the result of each ends it."""
        async with self._state.places.place(self._seconds_left):
            self._served.begins()
            if len(self._questions) == 1 and self._questions[0].count == 1:
                (question,) = self._questions
                with conversation(self._model) as talk:
                    stream = question.prompt.stream(talk, self._in_time(question.config))
                    stream._channel.is_ahead = self._state.options.stream_interval > 0
                    self._stream = stream
                    async with aclosing(self._read(0, stream, has_read=True)) as items:
                        async for item in items:
                            yield item
                return
            async with aclosing(self._merged()) as items:
                async for item in items:
                    yield item

    async def _answers(self, question: Question) -> list[GenerationResult]:
        async with self._room, self._branches(question) as branches:
            results = await together(
                [
                    prompt.result(talk, self._in_time(_nth(question.config, index)))
                    for index, (talk, prompt) in enumerate(branches)
                ]
            )
        for result in results:
            if question.count == 1:
                self._served.reads(result.stats)
            self._served.answers(result)
        return results

    async def _merged(self) -> AsyncGenerator[tuple[int, Piece | GenerationResult], None]:
        queue: asyncio.Queue[tuple[int, Piece | GenerationResult] | None] = asyncio.Queue()

        async def fill(index: int, stream: Pieces, *, has_read: bool) -> None:
            async with aclosing(self._read(index, stream, has_read=has_read)) as items:
                async for item in items:
                    queue.put_nowait(item)

        async def answer(first: int, question: Question) -> None:
            async with self._room, self._branches(question) as branches:
                await together(
                    [
                        fill(
                            first + index,
                            prompt.stream(talk, self._in_time(_nth(question.config, index))),
                            has_read=question.count == 1,
                        )
                        for index, (talk, prompt) in enumerate(branches)
                    ]
                )

        async def answer_all() -> None:
            counts = [question.count for question in self._questions]
            try:
                await together(
                    [answer(sum(counts[:index]), question) for index, question in enumerate(self._questions)]
                )
            finally:
                queue.put_nowait(None)

        task = asyncio.ensure_future(answer_all())
        try:
            while (item := await queue.get()) is not None:
                yield item
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _read(
        self, index: int, stream: Pieces, *, has_read: bool
    ) -> AsyncGenerator[tuple[int, Piece | GenerationResult], None]:
        try:
            async with aclosing(stream) as pieces:
                async for piece in pieces:
                    yield index, piece
        finally:
            if stream.result is not None:
                if has_read:
                    self._served.reads(stream.result.stats)
                self._served.answers(stream.result)
        if stream.result is not None:
            yield index, stream.result

    @asynccontextmanager
    async def _branches(self, question: Question) -> AsyncIterator[list[tuple[Talk, Prompt]]]:
        """A conversation for each answer, with what is still to be read: nothing in one of several."""
        with conversation(self._model) as talk:
            if question.count == 1:
                yield [(talk, question.prompt)]
                return
            reading = GenerationConfig(max_new_tokens=0, timeout=self._seconds_left)
            self._served.reads((await question.prompt.result(talk, reading)).stats)
            with ExitStack() as stack:
                forks = [stack.enter_context(talk.fork()) for _ in range(1, question.count)]
                yield [(each, question.prompt.again) for each in (talk, *forks)]

    def _in_time(self, config: GenerationConfig) -> GenerationConfig:
        return config.replace(timeout=self._seconds_left)

    @property
    def _seconds_left(self) -> float | None:
        return self._served.seconds_left(self._state.options.timeout)


class TextPrompt:
    """A prompt as it is, without a template.

    Args:
        parts: Its text or token ids; nothing to go on from what the conversation holds.
    """

    def __init__(self, parts: Sequence[str | MultimodalInput]) -> None:
        self._parts = list(parts)

    def result(self, talk: Talk, config: GenerationConfig) -> Coroutine[Any, Any, GenerationResult]:
        """The whole answer."""
        return talk.agenerate_result(self._parts, config)

    def stream(self, talk: Talk, config: GenerationConfig) -> Pieces:
        """The answer piece by piece."""
        return talk.astream(self._parts, config)

    @property
    def again(self) -> TextPrompt:
        """Nothing: a conversation goes on from what it holds."""
        return TextPrompt([])


def _nth(config: GenerationConfig, index: int) -> GenerationConfig:
    return config if config.seed is None or index == 0 else config.replace(seed=config.seed + index)


async def together(work: Sequence[Coroutine[Any, Any, ResultT]]) -> list[ResultT]:
    """What several coroutines give; where one fails, the others are cancelled and awaited.

    Args:
        work: The coroutines.
    """
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
