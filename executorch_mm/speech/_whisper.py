"""Encoder-decoder models (Whisper): window by window, each from where the last segment ended."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm import _core
from executorch_mm.errors import ContractError, InputError
from executorch_mm.preprocess import AudioProcessor, LogMelConfig, Waveform
from executorch_mm.preprocess.audio import to_waveform
from executorch_mm.preprocess.find import FoundProcessors
from executorch_mm.speech._alignment import token_starts
from executorch_mm.speech._languages import language_code
from executorch_mm.speech._transcriber import Hearing, SpeechProgress
from executorch_mm.speech._whisper_tokens import WhisperTokens
from executorch_mm.speech._whisper_window import Attempt, Window, WindowDecoder, text_of
from executorch_mm.speech._windows import TIME_STEP, Span, Windows, split
from executorch_mm.speech._words import pieces_of, words_of
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.segment import Segment, SpeechEvent, Word
from executorch_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from executorch_mm.speech._transcriber import Speech

# A window's length is a multiple of this where the encoder takes shorter ones, ...
_LENGTH_SECONDS = 1
# ... with so much silence behind the audio at least: without, the last words may come again and again.
_MARGIN_SECONDS = 4
# What was sampled at a higher temperature is no model for what follows.
_MAX_TEMPERATURE_OF_CONTEXT = 0.5


class WhisperModel:
    """Plays files with the methods `encoder` and `text_decoder`.

    Args:
        contract: The model's promises.
        tokenizer: Of the model.
        folders: Where its configuration may be.
        processor_path: preprocessor_config.json or its folder; None looks in the folders.

    Raises:
        ContractError: The encoder takes other features than the processor makes, or the model's control
            tokens are not known.
        InputError: A file is damaged.
    """

    def __init__(
        self,
        contract: _core.Contract,
        tokenizer: Tokenizer,
        folders: Sequence[Path],
        processor_path: Path | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._tokens = WhisperTokens.read(folders, tokenizer, contract)
        self._has_alignment = contract.num_alignment_heads > 0
        self._num_positions = min(contract.capacity, self._tokens.num_positions)
        features = contract.methods["encoder"].inputs[0]
        taken = features.shape[1:]
        found = FoundProcessors(folders, processor_path).feature_extractor
        self._processor = found or AudioProcessor(LogMelConfig(bins=taken[0]))
        config = self._processor.config
        if not isinstance(config, LogMelConfig):
            raise ContractError(f"encoder: expected a Whisper feature extractor beside it, got {config!r}")
        self._window_seconds = float(config.chunk_seconds)
        made = (config.bins, config.chunk_seconds * config.sampling_rate // config.hop)
        if taken != made:
            raise ContractError(f"encoder: expected features {made} as the processor makes, got {taken}")
        shortest = contract.metadata.get("min_audio_frames")
        self._lengths: tuple[int, ...] = ()
        self._margin = 0
        if features.is_dynamic and isinstance(shortest, int):
            second = config.sampling_rate // config.hop
            step, self._margin = _LENGTH_SECONDS * second, _MARGIN_SECONDS * second
            self._lengths = tuple(length for length in range(step, made[1], step) if length >= shortest)

    @property
    def sampling_rate(self) -> int:
        """See `Transcriber`."""
        return self._processor.config.sampling_rate

    @property
    def languages(self) -> tuple[str, ...]:
        """See `Transcriber`."""
        return tuple(self._tokens.languages)

    @property
    def window_seconds(self) -> float:
        """See `Transcriber`."""
        return self._window_seconds

    @property
    def longest_seconds(self) -> float:
        """See `Transcriber`."""
        return self._window_seconds

    def check(self, config: SpeechConfig) -> None:
        """See `Transcriber`."""
        tokens = self._tokens
        if config.language is not None and language_code(config.language, tokens.languages) is None:
            known = ", ".join(sorted(tokens.languages)) or "none: it knows one only"
            raise InputError(
                f"language: expected one of the model's ({known}), by code or English name, got "
                f"{config.language!r}"
            )
        if config.task != "transcribe" and not (tokens.languages and config.task in tokens.tasks):
            raise InputError(f"task: the model does not {config.task}")
        if config.word_timestamps and not self._has_alignment:
            raise InputError(
                "word_timestamps: the program does not tell what its decoder looks at: expected a second "
                "output of text_decoder, (1, heads, frames), as tools/whisper exports it"
            )
        if config.short_windows and not self._lengths:
            raise InputError(
                "short_windows: the program's encoder takes whole windows: expected a dynamic length and "
                "min_audio_frames in the metadata, as tools/whisper exports them"
            )
        if (config.timestamps or config.word_timestamps) and tokens.first_time is None:
            raise InputError("timestamps: the model has no tokens for times")
        if config.prompt and tokens.previous is None:
            raise InputError("prompt: the model has no token for an earlier text")

    def prepare(self, audio: Speech, sampling_rate: int | None) -> Waveform:
        """See `Transcriber`."""
        return to_waveform(audio, sampling_rate).resampled(self.sampling_rate)

    def seconds(self, clip: Waveform) -> float:
        """See `Transcriber`."""
        return len(clip.samples) / clip.sampling_rate

    def transcribe(
        self,
        session: _core.Session,
        clip: Waveform,
        config: SpeechConfig,
        hearing: Hearing,
        progress: SpeechProgress,
    ) -> Generator[SpeechEvent, None, None]:
        """See `Transcriber`."""
        start_ns = _core.now_ns()
        lengths = self._lengths if config.short_windows else ()
        windows = Windows(clip, self._processor, lengths, self._margin)
        hearing.prepare_ns += _core.now_ns() - start_ns
        if config.language is not None:
            hearing.language = language_code(config.language, self._tokens.languages)
        decoder = WindowDecoder(session, self._tokenizer, self._tokens, self._num_positions, config, hearing)
        asks_times = config.timestamps or config.word_timestamps or windows.num_frames > windows.size
        first_time = self._tokens.first_time if asks_times else None
        context = hearing.context
        if context is None:
            context = self._tokenizer.encode(f" {config.prompt.strip()}") if config.prompt else []
        frame = 0
        while frame < windows.num_frames:
            start, end = windows.seconds(frame), windows.seconds(windows.end(frame))
            progress(start, windows.duration)
            attempt = Attempt()
            if not windows.is_silent(frame):
                whole = windows.features(frame)
                window = Window(start, windows.shortest(frame, whole), context, first_time, whole)
                attempt = yield from decoder.decode(window)
            steps = None
            if not attempt.is_silence(config):
                spans, steps = split(attempt.tokens, first_time)
                last = len(hearing.segments)
                times: list[float] = []
                if config.word_timestamps:
                    times = self._token_times(attempt, windows.num_frames - frame, start, end)
                self._add_segments(hearing.segments, attempt, spans, start, end, times, hearing.language)
                segments = hearing.segments[last:]
                yield from segments
                context = [*context, *(token for segment in segments for token in segment.tokens)]
            if attempt.interruption is not None:
                hearing.finish_reason = attempt.interruption
                return
            if not config.condition_on_previous_text or attempt.temperature > _MAX_TEMPERATURE_OF_CONTEXT:
                context = []
            hearing.context = context
            frame = windows.end(frame) if steps is None else windows.after(frame, steps)
        progress(windows.duration, windows.duration)
        hearing.finish_reason = "stop"

    def _token_times(self, attempt: Attempt, num_frames: int, start: float, end: float) -> list[float]:
        """When each token of a window begins, in seconds."""
        if not attempt.alignment:  # one token at most
            return [start] * len(attempt.tokens)
        length = attempt.alignment[0].shape[1]
        starts = token_starts(attempt.alignment, num_frames * length // attempt.num_frames)
        starts += [starts[-1]] * (len(attempt.tokens) - len(starts))
        seconds = attempt.num_frames * self._processor.config.hop / self.sampling_rate
        return [min(start + frame * seconds / length, end) for frame in starts]

    def _add_segments(
        self,
        segments: list[Segment],
        attempt: Attempt,
        spans: Sequence[Span],
        start: float,
        end: float,
        times: Sequence[float] = (),
        language: str | None = None,
    ) -> None:
        """Adds the spans of a window that hold a text and last, with times that lie in the window.

        The model may place a text behind the end of the audio, where its window is filled up: such a text
        gets the last step before the end.
        """
        behind = 0
        for span in spans:
            before, behind = behind, behind + len(span.tokens)
            text = text_of(span.tokens, self._tokenizer, self._tokens)
            if not text.strip() or span.start == span.end:
                continue
            first = start + span.start * TIME_STEP
            last = end if span.end is None else start + span.end * TIME_STEP
            earliest = segments[-1].end if segments else 0.0
            last = max(earliest, min(last, end))
            first = max(earliest, min(first, last - TIME_STEP if first >= end else last))
            token_times: tuple[tuple[float, float], ...] = ()
            if times:
                ends = [*times, max(last, times[-1])][before + 1 : behind + 1]
                token_times = tuple(zip(times[before:behind], ends, strict=True))
            spoken = segments[-1].words if segments else ()
            segments.append(
                Segment(
                    text=text,
                    start=first,
                    end=last,
                    tokens=span.tokens,
                    avg_logprob=attempt.avg_logprob,
                    no_speech_prob=attempt.no_speech_prob,
                    compression_ratio=attempt.compression_ratio,
                    temperature=attempt.temperature,
                    token_times=token_times,
                    words=self._words(
                        span.tokens,
                        token_times,
                        attempt.probabilities[before:behind],
                        spoken[-1].end if spoken else 0.0,
                        language,
                    ),
                )
            )

    def _words(
        self,
        tokens: Sequence[int],
        times: Sequence[tuple[float, float]],
        probabilities: Sequence[float],
        earliest: float,
        language: str | None,
    ) -> tuple[Word, ...]:
        if not times:
            return ()
        places = [place for place, token in enumerate(tokens) if not self._tokens.is_time(token)]
        return words_of(
            pieces_of([tokens[place] for place in places], self._tokenizer),
            [times[place] for place in places],
            [probabilities[place] for place in places],
            earliest,
            language,
        )
