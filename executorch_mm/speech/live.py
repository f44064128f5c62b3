"""Speech that is transcribed while it is spoken."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from executorch_mm._engine.ahead import checked_requests
from executorch_mm.config import is_finite
from executorch_mm.errors import InputError, QueueFullError, shown
from executorch_mm.speech._live_audio import LiveAudio
from executorch_mm.speech.segment import SpeechEvent

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class LiveTranscription(ABC):
    """Writes down what is said while the audio comes, from `SpeechRunner.live()`.

    A model that hears whole clips hears, each `step_seconds`, what is not final yet. A segment is final where
    two hypotheses in a row agree on it and something follows, where the speaker pauses, and where the model
    can hear no more at a time. A transducer whose encoder takes chunks hears each of them once, when it is
    complete: what it has written does not change, and a segment is final at the end of a sentence, where the
    speaker pauses, and after 30 s. Memory is bounded however long the audio: what is final is forgotten.

    Use one of `feed()`, `stream()` and `astream()`; or `push()` in the thread that records and `step()` in
    another. The runner is busy only while it hears.

    Examples:
        >>> with runner.live(sampling_rate=16000, language="en") as live:  # doctest: +SKIP
        ...     for event in live.stream(chunks):
        ...         print(event.text)
    """

    def __init__(self, audio: LiveAudio, rate: int, step: int, max_seconds_behind: float) -> None:
        """By `SpeechRunner.live()`, which checks the parameters.

        Args:
            audio: Turns chunks into samples at the model's rate.
            rate: The model's, samples per second.
            step: Samples that there must be before any are heard.
            max_seconds_behind: As in `SpeechRunner.live`.
        """
        self._audio = audio
        self._rate = rate
        self._step = step
        self._most_waiting = max(round(max_seconds_behind * rate), step)
        self._change = threading.Lock()
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        self._is_closed = False
        self._end = 0  # samples that have been heard

    @property
    def seconds(self) -> float:
        """How much audio has been heard."""
        return self._end / self._rate

    @property
    def seconds_behind(self) -> float:
        """How much audio waits to be heard."""
        return self._num_waiting / self._rate

    @property
    def is_streaming(self) -> bool:
        """Whether what was said does not change: each `Partial` goes on where the one before ended."""
        return False

    @property
    def language(self) -> str | None:
        """Its code, once it is known."""
        return None

    def push(self, chunk: object) -> None:
        """Takes a chunk without hearing it; from any thread.

        Args:
            chunk: Samples as `make_audio_input` takes them, of any length, a `Waveform`, or bytes of PCM, 16
                bits little endian, at the rate and of the channels of `SpeechRunner.live`.

        Raises:
            InputError: It is none of these, or the transcription is closed.
            QueueFullError: `max_seconds_behind` of audio wait already: the model does not keep up. The chunk
                is not taken.
        """
        self._push(chunk, self._most_waiting)

    def _push(self, chunk: object, most: int | None) -> None:
        with self._change:
            if self._is_closed:
                raise InputError("live: expected one that is open, got one that is closed")
            if most is not None and self._num_waiting >= most:
                raise QueueFullError(
                    f"live: {self.seconds_behind:.1f} s of audio wait: the model does not keep up; call "
                    "step() more often, or leave audio out"
                )
            samples = self._audio.samples(chunk)
            if len(samples):
                self._waiting.append(samples)
                self._num_waiting += len(samples)

    def _take(self, most: int) -> np.ndarray:
        with self._change:
            everything = np.concatenate([np.zeros(0, np.float32), *self._waiting])
            taken, left = everything[:most], everything[most:]
            self._waiting, self._num_waiting = ([left] if len(left) else []), len(left)
            return taken

    def feed(self, chunk: object) -> list[SpeechEvent]:
        """Takes a chunk and hears it, step by step; how the audio is cut into chunks makes no difference.

        Args:
            chunk: As in `push`.

        Returns:
            `Segment`s, which are final, and at most one `Partial` for each step or chunk of the model: what
            else is said so far.

        Raises:
            InputError: As in `push`.
            BusyError: The runner serves another request.
            ExecutionError: The model failed.
        """
        self._push(chunk, None)
        events: list[SpeechEvent] = []
        while self._num_waiting >= self._step:
            events += self._advance(self._take(self._at_once))
        return events

    def step(self) -> list[SpeechEvent]:
        """Hears what has been pushed; all of it at once where the model has fallen behind.

        Returns:
            As `feed`; nothing where less than `step_seconds` wait, or the chunk of a model that takes them
            is not complete.

        Raises:
            BusyError, ExecutionError: As in `feed`.
        """
        if self._num_waiting < self._step:
            return []
        return self._advance(self._take(max(self._step, self._room // self._step * self._step)))

    def flush(self) -> list[SpeechEvent]:
        """Hears what is left and makes all of it final. Audio may follow, whose times go on.

        Returns:
            `Segment`s.

        Raises:
            BusyError, ExecutionError: As in `feed`.
        """
        events: list[SpeechEvent] = []
        with self._change:
            rest = self._audio.finish()
            self._waiting.append(rest)
            self._num_waiting += len(rest)
        while self._num_waiting >= self._step:
            events += self._advance(self._take(self._at_once))
        events += self._advance(self._take(self._step), is_last=True)
        return events

    def stream(self, chunks: Iterable[object]) -> Generator[SpeechEvent, None, None]:
        """Hears chunks as they come, and flushes at their end.

        Args:
            chunks: Any iterable of what `push` takes. It is asked for the next chunk when the last one has
                been heard: so it is slowed down where the model does not keep up.

        Raises:
            InputError, BusyError, ExecutionError: As in `feed`.
        """
        return self._stream(checked_requests(chunks, "chunks"))

    def _stream(self, chunks: Iterator[object]) -> Generator[SpeechEvent, None, None]:
        for chunk in chunks:
            yield from self.feed(chunk)
        yield from self.flush()

    def astream(self, chunks: AsyncIterable[object]) -> AsyncGenerator[SpeechEvent, None]:
        """`stream` for a task: the model runs in a thread while the task waits.

        Args:
            chunks: An asynchronous iterable of what `push` takes.

        Raises:
            InputError, BusyError, ExecutionError: As in `feed`.
        """
        if not isinstance(chunks, AsyncIterable):
            raise InputError(f"chunks: expected an asynchronous iterable of chunks, got {shown(chunks)}")
        return self._astream(chunks)

    async def _astream(self, chunks: AsyncIterable[object]) -> AsyncGenerator[SpeechEvent, None]:
        import asyncio  # here: it takes as long to import as all the rest

        async for chunk in chunks:
            for event in await asyncio.to_thread(self.feed, chunk):
                yield event
        for event in await asyncio.to_thread(self.flush):
            yield event

    def close(self) -> None:
        """Takes no more audio; what waits is forgotten."""
        with self._change:
            self._is_closed = True
            self._waiting, self._num_waiting = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LiveTranscription: {self.seconds:.1f} s heard, {self.seconds_behind:.1f} s behind>"

    @property
    def _at_once(self) -> int:
        """Samples that `feed` lets the model hear at a time."""
        return self._step

    @property
    @abstractmethod
    def _room(self) -> int:
        """Samples that can be heard at once."""

    @abstractmethod
    def _advance(self, samples: np.ndarray, *, is_last: bool = False) -> list[SpeechEvent]:
        """Takes in samples and says what has become final, and what else is said."""


def checked_seconds(value: object, name: str, low: float, high: float) -> float:
    """A duration within bounds.

    Raises:
        InputError: It is none.
    """
    if not is_finite(value) or not low <= value <= high:
        raise InputError(f"{name}: expected {low:g} to {high:g} seconds, got {shown(value)}")
    return float(value)
