"""Transducers (RNN-T, TDT): symbol by symbol, each with its time; whole audio clips, or chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np

from executorch_mm import _core
from executorch_mm.arrays import AnyArray, to_numpy
from executorch_mm.errors import ContractError, InputError
from executorch_mm.preprocess import Waveform
from executorch_mm.preprocess.audio import to_waveform
from executorch_mm.sampling import deadline_ns
from executorch_mm.speech._chunks import ChunkStream, samples_per_column
from executorch_mm.speech._feature_stream import find_delay
from executorch_mm.speech._sentences import Sentences
from executorch_mm.speech._transcriber import Hearing, SpeechProgress
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.segment import SpeechEvent
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from executorch_mm.speech._feature_stream import Floats
    from executorch_mm.speech._transcriber import Speech

Clip: TypeAlias = "Waveform | AnyArray"
"""An audio clip, or features (1, bins, columns) that the caller has made of one."""


class TransducerModel:
    """Plays files with the methods `encoder`, `decoder_step` and `joint`.

    Args:
        session: Any of the model, which is not kept.
        tokenizer: Of the model.

    Raises:
        ContractError: Its encoder takes chunks, and its preprocessor does not make of the parts of a clip
            what it makes of the whole.
    """

    def __init__(self, session: _core.TransducerDecoder, tokenizer: Tokenizer) -> None:
        self._contract = session.contract
        self._tokenizer = tokenizer
        self._delay = self._found_delay(session) if self.takes_chunks else None

    def _found_delay(self, session: _core.TransducerDecoder) -> int | None:
        contract = self._contract
        if not contract.has_preprocessor:
            return None
        hop = samples_per_column(contract)
        if abs(hop - contract.window_stride * contract.sample_rate) > 1e-6 * hop:
            raise ContractError(
                f"window_stride: expected whole samples from column to column, for an encoder of chunks, got "
                f"{contract.window_stride:g} s at {contract.sample_rate} Hz"
            )
        return find_delay(session.features, hop, contract.max_samples, contract.max_columns)

    @property
    def frame_seconds(self) -> float:
        """From one frame of the encoder to the next."""
        return self._contract.frame_seconds

    @property
    def takes_chunks(self) -> bool:
        """Whether the encoder goes on from chunk to chunk."""
        return self._contract.takes_chunks

    def stream(self, session: _core.TransducerDecoder, *, of_features: bool = False) -> ChunkStream:
        """One of the audio that an encoder of chunks hears.

        Args:
            session: Any of the model, which is not kept.
            of_features: It gets features and no samples.
        """
        return ChunkStream(session, None if of_features else self._delay)

    def sentences(
        self, config: SpeechConfig, start: float = 0.0, latest: float = math.inf, after: int | None = None
    ) -> Sentences:
        """Collects symbols; the parameters are those of `Sentences`."""
        return Sentences(self._tokenizer, config, self._contract.frame_seconds, start, latest, after)

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
        if self.takes_chunks and self._contract.has_preprocessor:
            return math.inf
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
            bins = self._contract.num_bins
            if self.takes_chunks and array.shape[:2] != (1, bins):
                raise InputError(f"audio: expected features (1, {bins}, columns), got {array.shape}")
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
        sentences = self.sentences(config, latest=duration)
        is_late = False
        for symbol in self._symbols(
            session, clip, end_ns, lambda done: progress(min(done, duration), duration)
        ):
            now_ns = _core.now_ns()
            hearing.token_times_ns.append(now_ns - timings.start_ns)
            if (ended := sentences.push(symbol)) is not None:
                hearing.segments.append(ended)
                yield ended
            if (partial := sentences.partial) is not None:
                yield partial
            if is_late := now_ns >= end_ns:
                break
        if (ended := sentences.finish()) is not None:
            hearing.segments.append(ended)
            yield ended
        is_late = is_late or _core.now_ns() >= end_ns
        hearing.finish_reason = "timeout" if is_late else "cancelled" if session.is_cancelled else "stop"
        progress(duration, duration)

    def _symbols(
        self, session: _core.TransducerDecoder, clip: Clip, end_ns: int, heard: Callable[[float], object]
    ) -> Generator[_core.Symbol, None, None]:
        """Of a whole clip; `heard` gets the seconds after each chunk."""
        if self.takes_chunks:
            yield from self._symbols_of_chunks(session, clip, end_ns, heard)
            return
        if isinstance(clip, Waveform):
            session.begin_samples(clip.samples, end_ns)
        else:
            session.begin_features(clip, clip.shape[2], end_ns)
        while (symbol := session.next(end_ns)) is not None:
            yield symbol

    def _symbols_of_chunks(
        self, session: _core.TransducerDecoder, clip: Clip, end_ns: int, heard: Callable[[float], object]
    ) -> Generator[_core.Symbol, None, None]:
        stream = self.stream(session, of_features=not isinstance(clip, Waveform))
        audio = clip.samples if isinstance(clip, Waveform) else cast("Floats", clip)
        size = self._contract.chunk_columns
        if isinstance(clip, Waveform):
            size *= samples_per_column(self._contract)
        length = audio.shape[-1]
        for start in range(0, length, size):
            stream.push(audio[..., start : start + size])
            is_last = start + size >= length
            for symbol in stream.symbols(session, end_ns, is_last=is_last):
                if symbol is None:
                    heard(stream.num_frames * self._contract.frame_seconds)
                else:
                    yield symbol
            if session.is_cancelled or _core.now_ns() >= end_ns:
                return
