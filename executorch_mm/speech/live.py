"""Speech that is transcribed while it is spoken."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from executorch_mm._engine.ahead import checked_requests
from executorch_mm.config import is_finite
from executorch_mm.errors import InputError, QueueFullError, shown
from executorch_mm.preprocess import Waveform
from executorch_mm.speech._live_audio import LiveAudio
from executorch_mm.speech._regions import SpeechPart
from executorch_mm.speech.segment import Partial, Segment, SpeechEvent
from executorch_mm.speech.vad import EnergyVad, VoiceActivityDetector

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from executorch_mm.speech.config import SpeechConfig
    from executorch_mm.speech.transcription import Transcription

# Seconds: kept before what is heard, so that the detector knows the noise; and kept of what is silent.
_CONTEXT = 3.0
_MARGIN = 0.3
_MOST_PROMPT = 200  # characters of what was said before


class LiveTranscription:
    """Writes down what is said while the audio comes, from `SpeechRunner.live()`.

    Each `step_seconds` the model hears what is not final yet. A segment is final where two hypotheses in a
    row agree on it and something follows, where the speaker pauses, and where the model can hear no more at
    a time. Memory is bounded however long the audio: what is final is forgotten.

    Use one of `feed()`, `stream()` and `astream()`; or `push()` in the thread that records and `step()` in
    another. The runner is busy only while it hears.

    Examples:
        >>> with runner.live(sampling_rate=16000, language="en") as live:  # doctest: +SKIP
        ...     for event in live.stream(chunks):
        ...         print(event.text)
    """

    def __init__(
        self,
        hear: Callable[[Waveform, SpeechConfig], Transcription],
        audio: LiveAudio,
        config: SpeechConfig,
        rate: int,
        longest: float,
        step_seconds: float,
        pause_seconds: float,
        max_seconds_behind: float,
        *,
        takes_prompt: bool,
    ) -> None:
        """By `SpeechRunner.live()`, which checks the parameters.

        Args:
            hear: Transcribes a clip.
            audio: Turns chunks into samples at the model's rate.
            config: Of each transcription.
            rate: The model's, samples per second.
            longest: Seconds that the model hears at a time.
            step_seconds: As in `SpeechRunner.live`, like the next ones.
            pause_seconds: The same.
            max_seconds_behind: The same.
            takes_prompt: Whether the model goes by what was said before.
        """
        self._hear = hear
        self._audio = audio
        self._config = config
        self._rate = rate
        self._longest = round(longest * rate)
        self._step = round(step_seconds * rate)
        self._pause = pause_seconds
        self._most_waiting = max(round(max_seconds_behind * rate), self._step)
        self._takes_prompt = takes_prompt and config.condition_on_previous_text
        given = config.vad_filter
        usual = EnergyVad(speech_pad_ms=100)
        self._detect: VoiceActivityDetector = usual if isinstance(given, bool) else given
        self._change = threading.Lock()
        self._waiting: list[np.ndarray] = []
        self._num_waiting = 0
        self._is_closed = False
        # Samples by their number from the beginning of all: what is kept, what is not final, the end.
        self._kept = np.zeros(0, np.float32)
        self._kept_from = self._start = self._end = 0
        self._hypothesis: list[Segment] = []
        self._partial: Partial | None = None
        self._said = ""
        self._language = config.language

    @property
    def seconds(self) -> float:
        """How much audio has been heard."""
        return self._end / self._rate

    @property
    def seconds_behind(self) -> float:
        """How much audio waits to be heard."""
        return self._num_waiting / self._rate

    @property
    def language(self) -> str | None:
        """Its code, once it is known."""
        return self._language

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
            `Segment`s, which are final, and at most one `Partial` for each step: what else is said so far.

        Raises:
            InputError: As in `push`.
            BusyError: The runner serves another request.
            ExecutionError: The model failed.
        """
        self._push(chunk, None)
        events: list[SpeechEvent] = []
        while self._num_waiting >= self._step:
            events += self._advance(self._take(self._step))
        return events

    def step(self) -> list[SpeechEvent]:
        """Hears what has been pushed; all of it at once where the model has fallen behind.

        Returns:
            As `feed`; nothing where less than `step_seconds` wait.

        Raises:
            BusyError, ExecutionError: As in `feed`.
        """
        if self._num_waiting < self._step:
            return []
        room = self._longest - (self._end - self._start)
        return self._advance(self._take(max(self._step, room // self._step * self._step)))

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
            events += self._advance(self._take(self._step))
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

    def _advance(self, samples: np.ndarray, *, is_last: bool = False) -> list[SpeechEvent]:
        """Takes in samples and says what has become final, and what else is said."""
        self._kept = np.concatenate([self._kept, samples])
        self._end += len(samples)
        spoken = self._spoken()
        if not spoken and not self._hypothesis:
            self._forget(self._end if is_last else max(self._start, self._end - round(_MARGIN * self._rate)))
            return []
        if spoken and not self._hypothesis:
            self._start = max(self._start, spoken[0][0] - round(_MARGIN * self._rate))
        behind = spoken[-1][1] if spoken else self._start
        is_final = is_last or self._end - behind >= self._pause * self._rate
        end = min(self._end, behind + round(_MARGIN * self._rate)) if is_final else self._end
        segments = self._heard(self._start, max(end, self._start + 1))
        if segments is None:  # stopped
            return []
        return self._finals(segments, self._end if is_final else None)

    def _spoken(self) -> list[tuple[int, int]]:
        """Regions of speech that are not final yet."""
        if not len(self._kept):
            return []
        regions = self._detect(Waveform(self._kept, self._rate))
        found = [[self._kept_from + round(time * self._rate) for time in region] for region in regions]
        return [(max(a, self._start), b) for a, b in found if b > self._start]

    def _heard(self, start: int, end: int) -> list[Segment] | None:
        """What is said in a part; None where it was stopped."""
        first = start - self._kept_from
        clip = Waveform(self._kept[first : end - self._kept_from], self._rate)
        config = self._config.replace(language=self._language)
        if self._takes_prompt and self._said:
            config = config.replace(prompt=f"{config.prompt or ''} {self._said[-_MOST_PROMPT:]}".strip())
        result = self._hear(clip, config)
        if result.stats.finish_reason not in ("stop", None):
            return None
        if self._language is None and result.segments:
            self._language = result.language
        part = SpeechPart(clip, start / self._rate)
        return [part.placed_segment(segment) for segment in result.segments]

    def _finals(self, segments: list[Segment], all_until: int | None) -> list[SpeechEvent]:
        """Makes segments final; `all_until` is where nothing is left before."""
        count, start = len(segments), self._start
        if all_until is None:
            agreed = 0
            for one, other in zip(self._hypothesis, segments[:-1], strict=False):
                if one.text != other.text:
                    break
                agreed += 1
            is_full = self._end - self._start > self._longest - 2 * self._step
            count = max(agreed, len(segments) - 1, 0) if is_full else agreed
            if count:
                start = max(start, min(round(segments[count - 1].end * self._rate), self._end))
            if is_full and self._end - start > self._longest - 3 * self._step:
                count, start = len(segments), self._end
        else:
            start = all_until
        events: list[SpeechEvent] = [*segments[:count]]
        self._said += "".join(segment.text for segment in segments[:count])
        self._said = self._said[-2 * _MOST_PROMPT :]
        self._hypothesis = segments[count:]
        self._forget(start)
        text = "".join(segment.text for segment in self._hypothesis)
        if text.strip():
            partial = Partial(text, self._hypothesis[0].start, self._hypothesis[0].temperature)
            if partial != self._partial or events:
                events.append(partial)
            self._partial = partial
        else:
            self._partial = None
        return events

    def _forget(self, start: int) -> None:
        """What is before is final, or silent."""
        self._start = start
        first = max(self._kept_from, start - round(_CONTEXT * self._rate))
        self._kept = self._kept[first - self._kept_from :].copy()
        self._kept_from = first


def checked_seconds(value: object, name: str, low: float, high: float) -> float:
    """A duration within bounds.

    Raises:
        InputError: It is none.
    """
    if not is_finite(value) or not low <= value <= high:
        raise InputError(f"{name}: expected {low:g} to {high:g} seconds, got {shown(value)}")
    return float(value)
