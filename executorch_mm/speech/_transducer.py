"""Transducers (RNN-T, TDT): a whole audio clip at once, symbol by symbol, each with its time."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from executorch_mm import _core
from executorch_mm._engine.text_stream import TextStream
from executorch_mm.arrays import AnyArray, to_numpy
from executorch_mm.errors import InputError
from executorch_mm.preprocess import Waveform
from executorch_mm.preprocess.audio import to_waveform
from executorch_mm.sampling import deadline_ns
from executorch_mm.speech._transcriber import Hearing, SpeechProgress
from executorch_mm.speech._words import words_of
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.segment import Partial, Segment, SpeechEvent
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from executorch_mm.speech._transcriber import Speech

Clip: TypeAlias = "Waveform | AnyArray"
"""An audio clip, or features (1, bins, columns) that the caller has made of one."""

_SENTENCE_ENDS = (".", "?", "!")


@dataclass
class _Sentence:
    """A segment as far as it has been heard."""

    pieces: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    times: list[tuple[float, float]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def is_complete_before(self, piece: str) -> bool:
        """Whether it ends where this text begins: behind a stop, at the next word."""
        return self.text.endswith(_SENTENCE_ENDS) and piece.startswith(" ")

    @property
    def partial(self) -> Partial:
        return Partial(text=self.text, start=self.times[0][0], temperature=0.0)

    def segment(self, config: SpeechConfig, latest: float = math.inf) -> Segment:
        """It is over: the next sentence begins at `latest`, maybe on the frame of its last symbol."""
        times = tuple((min(start, latest), min(end, latest)) for start, end in self.times)
        return Segment(
            text=self.text,
            start=times[0][0],
            end=max(end for _, end in times),
            tokens=tuple(self.tokens),
            token_times=times,
            words=words_of(self.pieces, times, None) if config.word_timestamps else (),
        )


class TransducerModel:
    """Plays files with the methods `encoder`, `decoder_step` and `joint`.

    Args:
        contract: The model's promises.
        tokenizer: Of the model.
    """

    def __init__(self, contract: _core.TransducerContract, tokenizer: Tokenizer) -> None:
        self._contract = contract
        self._tokenizer = tokenizer

    @property
    def sampling_rate(self) -> int:
        """See `Transcriber`."""
        return self._contract.sample_rate

    @property
    def languages(self) -> tuple[str, ...]:
        """See `Transcriber`."""
        return ()

    @property
    def window_seconds(self) -> float:
        """See `Transcriber`."""
        return 0.0

    @property
    def longest_seconds(self) -> float:
        """See `Transcriber`."""
        return self._contract.max_samples / self._contract.sample_rate

    def check(self, config: SpeechConfig) -> None:
        """See `Transcriber`."""
        if config.language is not None:
            raise InputError(f"language: a transducer cannot be told one, got {config.language!r}")
        if config.task != "transcribe":
            raise InputError(f"task: a transducer only transcribes, got {config.task!r}")
        if config.prompt is not None:
            raise InputError("prompt: a transducer takes none")
        if config.temperatures[0] > 0:
            raise InputError(
                f"temperature: a transducer takes the likeliest symbol, got {config.temperature!r}"
            )
        if config.short_windows:
            raise InputError("short_windows: a transducer hears what there is")
        if config.beam_size != 1:
            raise InputError(f"beam_size: a transducer follows one text, got {config.beam_size}")
        if config.max_new_tokens >= 0:
            raise InputError(f"max_new_tokens: a transducer has no limit, got {config.max_new_tokens}")

    def prepare(self, audio: Speech, sampling_rate: int | None) -> Clip:
        """See `Transcriber`; besides, a float array of three dimensions counts as features."""
        is_array = isinstance(audio, np.ndarray) or hasattr(audio, "__dlpack__")
        array = to_numpy(audio, "audio") if is_array else None
        if array is not None and array.ndim == 3:
            return np.ascontiguousarray(array)
        if not self._contract.has_preprocessor:
            raise InputError(
                "audio: the model has no method preprocessor, so it needs features: expected floats "
                f"(1, {self._contract.num_bins}, columns), got an audio clip"
            )
        return to_waveform(audio, sampling_rate).resampled(self.sampling_rate)

    def seconds(self, clip: Clip) -> float:
        """See `Transcriber`."""
        if isinstance(clip, Waveform):
            return len(clip.samples) / clip.sampling_rate
        return float(clip.shape[2] * self._contract.window_stride)

    def transcribe(
        self,
        session: _core.TransducerDecoder,
        clip: Clip,
        config: SpeechConfig,
        hearing: Hearing,
        progress: SpeechProgress,
    ) -> Generator[SpeechEvent, None, None]:
        """See `Transcriber`."""
        duration = self.seconds(clip)
        progress(0.0, duration)
        timings = session.timings
        end_ns = deadline_ns(config.timeout, timings.start_ns)
        if isinstance(clip, Waveform):
            session.begin_samples(clip.samples, end_ns)
        else:
            session.begin_features(clip, clip.shape[2], end_ns)
        text = TextStream(self._tokenizer)
        sentence = _Sentence()
        is_late = False
        while not is_late and (symbol := session.next(end_ns)) is not None:
            now_ns = _core.now_ns()
            hearing.token_times_ns.append(now_ns - timings.start_ns)
            piece = text.push(symbol.token)
            time = self._time(symbol, duration)
            if sentence.is_complete_before(piece):
                hearing.segments.append(sentence.segment(config, time[0]))
                yield hearing.segments[-1]
                sentence = _Sentence()
            sentence.pieces.append(piece)
            sentence.tokens.append(symbol.token)
            sentence.times.append(time)
            yield sentence.partial
            is_late = now_ns >= end_ns
        if sentence.tokens:
            sentence.pieces[-1] += text.finish()
            hearing.segments.append(sentence.segment(config))
            yield hearing.segments[-1]
        is_late = is_late or _core.now_ns() >= end_ns
        hearing.finish_reason = "timeout" if is_late else "cancelled" if session.is_cancelled else "stop"
        progress(duration, duration)

    def _time(self, symbol: _core.Symbol, duration: float) -> tuple[float, float]:
        """Beginning and end in seconds; a symbol without a duration lasts for its frame.

        The encoder's last frame, and what a duration says, may reach beyond the end of the audio.
        """
        frame = self._contract.frame_seconds
        end = symbol.frame + max(1, symbol.duration)
        return min(symbol.frame * frame, duration), min(end * frame, duration)
