"""Speech that is transcribed while it is spoken, by a transducer whose encoder takes chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from executorch_mm import _core
from executorch_mm.sampling import deadline_ns
from executorch_mm.speech._live_audio import LiveAudio
from executorch_mm.speech._transducer import TransducerModel
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.live import LiveTranscription
from executorch_mm.speech.segment import Partial, SpeechEvent

if TYPE_CHECKING:
    from executorch_mm.speech._methods import TransducerRequests

_LONGEST = 30.0  # seconds of a segment in which no sentence ends and nobody pauses
_COLUMNS_PER_SECOND = 100  # how finely audio is looked at for a chunk that is complete


class ChunkedLive(LiveTranscription):
    """Hears each chunk once, when it is complete, and goes on from the one before."""

    def __init__(
        self,
        requests: TransducerRequests,
        model: TransducerModel,
        audio: LiveAudio,
        config: SpeechConfig,
        pause_seconds: float,
        max_seconds_behind: float,
    ) -> None:
        """By `SpeechRunner.live()`, which checks the parameters.

        Args:
            requests: Of the session that hears.
            model: Its model.
            audio: Turns chunks into samples at the model's rate.
            config: Of the transcription.
            pause_seconds: As in `SpeechRunner.live`, like the next one.
            max_seconds_behind: The same.
        """
        rate = model.sampling_rate
        super().__init__(audio, rate, max(1, rate // _COLUMNS_PER_SECOND), max_seconds_behind)
        self._requests = requests
        self._model = model
        self._config = config
        self._pause = pause_seconds
        self._begun = 0  # samples before the stream that is heard now
        self._chunks = model.stream(requests.session)
        self._sentences = model.sentences(config)
        self._partial: Partial | None = None
        self._is_ending = False  # a flush has begun, which a stop may have kept from its end
        self._later: list[np.ndarray] = []  # audio behind it

    @property
    def is_streaming(self) -> bool:
        """See `LiveTranscription`."""
        return True

    @property
    def _at_once(self) -> int:
        return self._rate

    @property
    def _room(self) -> int:
        return max(self._num_waiting, self._step)

    def _advance(self, samples: np.ndarray, *, is_last: bool = False) -> list[SpeechEvent]:
        self._end += len(samples)
        if self._is_ending:
            self._later.append(samples)
        else:
            self._chunks.push(samples)
        self._is_ending |= is_last and self._end > self._begun
        if not self._is_ending and not self._chunks.is_ready:
            return []
        events = self._requests.serve(self._heard)
        has_more = is_last and not self._is_ending and self._end > self._begun
        return events + self._advance(samples[:0], is_last=True) if has_more else events

    def _heard(self, session: _core.TransducerDecoder) -> list[SpeechEvent]:
        timings = session.timings
        end_ns = deadline_ns(self._config.timeout, timings.start_ns)
        events: list[SpeechEvent] = []
        times: list[int] = []
        for symbol in self._chunks.symbols(session, end_ns, is_last=self._is_ending):
            if symbol is None:
                self._after_chunk(events)
                continue
            times.append(_core.now_ns() - timings.start_ns)
            if (ended := self._sentences.push(symbol)) is not None:
                events.append(ended)
        is_late = _core.now_ns() >= end_ns
        reason = "timeout" if is_late else "cancelled" if session.is_cancelled else "stop"
        if self._is_ending and reason == "stop":
            later = np.concatenate([np.zeros(0, np.float32), *self._later])
            self._begun = self._end - len(later)
            if (ended := self._sentences.finish(self._begun / self._rate)) is not None:
                events.append(ended)
            self._begin_again(session, later)
        self._requests.stats = self._requests.make_stats(
            session, finish_reason=reason, token_times_ns=tuple(times)
        )
        return events

    def _after_chunk(self, events: list[SpeechEvent]) -> None:
        """What has become final by a pause or its length, and what else is said."""
        now = self._begun / self._rate + self._chunks.num_frames * self._model.frame_seconds
        if (ended := self._sentences.pause(now, self._pause, _LONGEST)) is not None:
            events.append(ended)
        partial = self._sentences.partial
        if partial is not None and partial.text.strip() and partial != self._partial:
            events.append(partial)
        self._partial = partial

    def _begin_again(self, session: _core.TransducerDecoder, samples: np.ndarray) -> None:
        """Audio behind a flush is a stream of its own, whose text and times go on."""
        self._is_ending, self._later = False, []
        self._chunks = self._model.stream(session)
        self._chunks.push(samples)
        self._sentences = self._model.sentences(
            self._config, self._begun / self._rate, after=self._sentences.last_token
        )
        self._partial = None
