"""One window of an encoder-decoder model: its prompt, its language, and attempts at its tokens."""

from __future__ import annotations

import math
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from executorch_mm import _core
from executorch_mm._engine.access import read_prompt
from executorch_mm._engine.text_stream import TextStream
from executorch_mm.config import GenerationConfig
from executorch_mm.preprocess.steps import FloatArray
from executorch_mm.sampling import deadline_ns, generation_options
from executorch_mm.speech._transcriber import Hearing
from executorch_mm.speech._whisper_beams import Beam, BeamSearch
from executorch_mm.speech._whisper_tokens import WhisperTokens
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.segment import Partial
from executorch_mm.tokenizer import Tokenizer

# Of a short window. Measured with Whisper base: see the short windows in benchmarks/LOG.md.
_SURE_LOGPROB = -0.3


@dataclass(frozen=True)
class Window:
    """What is to be decoded.

    Attributes:
        start: In seconds.
        features: float32 (bins, frames); no more of the window than the audio fills.
        context: Tokens of what was said before.
        first_time: The token of the time 0; None for a text without times.
        whole: The features of all of the window.
    """

    start: float
    features: FloatArray
    context: Sequence[int]
    first_time: int | None
    whole: FloatArray


@dataclass(frozen=True)
class Attempt:
    """A window's tokens without the end token, and how good they are.

    Attributes:
        tokens: Texts and times.
        temperature: That they were chosen with.
        avg_logprob: Mean logarithm of their probabilities.
        text_logprob: The same without the times, which are less sure.
        compression_ratio: Of the text.
        no_speech_prob: How likely it is that nothing is said.
        interruption: "timeout" or "cancelled" where the tokens are not all.
        probabilities: Of each token.
        alignment: What the decoder's heads look at with each token, (heads, frames), where words are wanted;
            the last token's may be missing.
        num_frames: Of the features that the encoder was given.
    """

    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    avg_logprob: float = 0.0
    text_logprob: float = 0.0
    compression_ratio: float = 0.0
    no_speech_prob: float = 0.0
    interruption: str | None = None
    probabilities: tuple[float, ...] = ()
    alignment: tuple[FloatArray, ...] = ()
    num_frames: int = 0

    def is_silence(self, config: SpeechConfig) -> bool:
        """Whether it is no text, but what the model makes of a window without speech."""
        threshold = config.no_speech_threshold
        if threshold is None or self.no_speech_prob <= threshold:
            return False
        return config.logprob_threshold is None or self.avg_logprob <= config.logprob_threshold

    def is_sure(self, config: SpeechConfig) -> bool:
        """Whether it would hardly be another in a whole window."""
        is_unsure = config.logprob_threshold is not None and self.text_logprob < _SURE_LOGPROB
        return self.is_silence(config) or not is_unsure

    def is_good(self, config: SpeechConfig) -> bool:
        """Whether no other temperature needs to be tried."""
        ratio, logprob = config.compression_ratio_threshold, config.logprob_threshold
        repeats = ratio is not None and self.compression_ratio > ratio
        is_unlikely = logprob is not None and self.avg_logprob < logprob
        return self.is_silence(config) or not (repeats or is_unlikely)


class WindowDecoder:
    """Decodes the windows of one audio clip.

    Args:
        session: Of the model.
        tokenizer: Of the model.
        tokens: Its control tokens.
        num_positions: That its decoder has.
        config: Checked.
        hearing: Gets the language where it is found, and the times of tokens.
    """

    def __init__(
        self,
        session: _core.Session,
        tokenizer: Tokenizer,
        tokens: WhisperTokens,
        num_positions: int,
        config: SpeechConfig,
        hearing: Hearing,
    ) -> None:
        self._session = session
        session.read_alone(config.word_timestamps)
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._num_positions = num_positions
        self._config = config
        self._end_ns = deadline_ns(config.timeout, session.timings.start_ns)
        self._hearing = hearing
        self._no_speech_prob = 0.0

    def decode(self, window: Window) -> Generator[Partial, None, Attempt]:
        """The first good attempt, or the last; yields what the text is meanwhile.

        Whisper has learned from whole windows: what it is not sure of in a short one is heard again in one.
        """
        attempt = Attempt()
        temperatures = self._config.temperatures
        ways = [(temperature, window.whole) for temperature in temperatures]
        if window.features is not window.whole:
            ways.insert(0, (temperatures[0], window.features))
        encoded: FloatArray | None = None
        for temperature, features in ways:
            is_new = features is not encoded
            encoded = features
            attempt = yield from self._attempt(window, temperature, features if is_new else None)
            attempt = replace(attempt, num_frames=features.shape[1])
            is_enough = features is window.whole or attempt.is_sure(self._config)
            if attempt.interruption is not None or (is_enough and attempt.is_good(self._config)):
                break
        return attempt

    def _attempt(
        self, window: Window, temperature: float, features: FloatArray | None
    ) -> Generator[Partial, None, Attempt]:
        if not self._begin(window, features):
            return Attempt(interruption="cancelled" if self._session.is_cancelled else "timeout")
        if self._config.beam_size > 1 and temperature == 0:
            return (yield from self._search(window))
        generation = _core.Generation(self._session, self._options(window, temperature))
        stream = TextStream(self._tokenizer)
        tokens: list[int] = []
        text = ""
        alignment: list[FloatArray] = []
        while (token := generation.next()) is not None:
            if self._config.word_timestamps and tokens:  # the one before has been read to get this one
                alignment.append(self._session.alignment)
            tokens.append(token)
            if not self._tokens.is_time(token) and (piece := stream.push(token)):
                text += piece
                yield Partial(text, window.start, temperature)
        records = generation.records
        self._hearing.token_times_ns += [record.time_ns for record in records]
        reason = generation.finish_reason
        if self._config.word_timestamps and tokens and reason == "stop":
            alignment.append(self._session.alignment)
        return Attempt(
            tokens=tuple(tokens),
            temperature=temperature,
            avg_logprob=sum(record.logprob for record in records) / (len(tokens) + 1),
            text_logprob=self._text_logprob(tokens, [record.logprob for record in records]),
            compression_ratio=compression_ratio(text_of(tokens, self._tokenizer, self._tokens)),
            no_speech_prob=self._no_speech_prob,
            interruption=reason if reason in ("timeout", "cancelled") else None,
            probabilities=tuple(math.exp(record.logprob) for record in records[: len(tokens)]),
            alignment=tuple(alignment),
        )

    def _search(self, window: Window) -> Generator[Partial, None, Attempt]:
        """An attempt with several beams."""
        config, session = self._config, self._session
        options = self._options(window, 0.0)
        search = BeamSearch(
            session,
            options.sampling,
            config,
            self._tokens.ends,
            min(options.max_new_tokens, self._num_positions - session.position),
            self._end_ns,
            wants_alignment=config.word_timestamps,
        )
        beams, said = search.search(), ""
        try:
            while True:
                # A character may be said in part.
                text = text_of(next(beams), self._tokenizer, self._tokens).rstrip("\ufffd")
                if text != said:
                    said = text
                    yield Partial(text, window.start, 0.0)
        except StopIteration as end:
            best: Beam = end.value
        finally:
            beams.close()
            self._hearing.costs.add(search.costs)
        self._hearing.token_times_ns += search.times_ns
        return Attempt(
            tokens=best.tokens,
            avg_logprob=sum(best.logprobs) / (len(best.tokens) + 1),
            text_logprob=self._text_logprob(best.tokens, best.logprobs),
            compression_ratio=compression_ratio(text_of(best.tokens, self._tokenizer, self._tokens)),
            no_speech_prob=self._no_speech_prob,
            interruption=search.interruption,
            probabilities=tuple(math.exp(logprob) for logprob in best.logprobs[: len(best.tokens)]),
            alignment=best.alignment,
        )

    def _text_logprob(self, tokens: Sequence[int], logprobs: Sequence[float]) -> float:
        """Of the tokens but the times, and of the end token that may follow."""
        times = [self._tokens.is_time(token) for token in tokens] + [False]
        texts = [logprob for logprob, is_time in zip(logprobs, times, strict=False) if not is_time]
        return sum(texts) / max(len(texts), 1)

    def _begin(self, window: Window, features: FloatArray | None) -> bool:
        """Reads what comes before the window's tokens, and the clip where the model has not kept it."""
        session, tokens = self._session, self._tokens
        session.reset()
        clip = [] if features is None else [_core.PreparedInput.audio(features)]
        if tokens.languages and self._hearing.language is None:
            if not self._read([*clip, _ids([tokens.start])]):
                return False
            self._hearing.language = self._likeliest_language()
            if window.context:
                session.reset()
            clip = []
        if session.position == 0 and not self._read([*clip, _ids(self._opening(window.context))]):
            return False
        if tokens.no_speech is not None:
            self._no_speech_prob = float(np.exp(session.logprobs([tokens.no_speech])[0]))
        wanted = self._wanted(window)
        return not wanted or self._read([_ids(wanted)])

    def _read(self, parts: list[_core.PreparedInput]) -> bool:
        self._session.begin_prefill(parts)
        try:
            return read_prompt(self._session, self._end_ns)
        finally:
            self._session.abort_prefill()  # nothing to do once the prompt has been read

    def _likeliest_language(self) -> str:
        codes = list(self._tokens.languages)
        logprobs = self._session.logprobs(list(self._tokens.languages.values()))
        return codes[int(np.argmax(logprobs))]

    def _opening(self, context: Sequence[int]) -> list[int]:
        """As much of what was said before as the decoder has room for, and the start of a text."""
        previous, start = self._tokens.previous, self._tokens.start
        if not context or previous is None:
            return [start]
        return [previous, *context[-(self._num_positions // 2 - 1) :], start]

    def _wanted(self, window: Window) -> list[int]:
        """Control tokens for language, task and times."""
        tokens, language = self._tokens, self._hearing.language
        wanted: list[int | None] = []
        if language is not None:
            wanted += [tokens.languages[language], tokens.tasks.get(self._config.task)]
        if window.first_time is None:
            wanted.append(tokens.no_timestamps)
        return [token for token in wanted if token is not None]

    def _options(self, window: Window, temperature: float) -> _core.GenerationOptions:
        config, tokens = self._config, self._tokens
        limit = self._num_positions // 2 if config.max_new_tokens == -1 else config.max_new_tokens
        suppress = tokens.suppress
        if window.first_time is not None and tokens.no_timestamps is not None:
            suppress = (*suppress, tokens.no_timestamps)
        options = generation_options(
            GenerationConfig(
                max_new_tokens=limit,
                seq_len=self._num_positions,
                temperature=temperature,
                suppress_tokens=suppress,
                logprobs=0,
                seed=config.seed,
                timeout=config.timeout,
            ),
            tokens.ends,
        )
        options.sampling.begin_suppress_tokens = tokens.begin_suppress
        options.sampling.has_edited_logprobs = True
        if window.first_time is not None:
            options.sampling.timestamps = _core.TimestampRules(
                window.first_time, min(tokens.ends), tokens.max_initial
            )
        return options


def text_of(ids: Sequence[int], tokenizer: Tokenizer, tokens: WhisperTokens) -> str:
    """The text of a window's tokens, without times and control tokens."""
    return tokenizer.decode([token for token in ids if not tokens.is_time(token)])


def compression_ratio(text: str) -> float:
    """Bytes of a text for each byte that zlib makes of it: high for a text that repeats itself."""
    data = text.strip().encode("utf-8")
    return len(data) / len(zlib.compress(data))


def _ids(ids: Sequence[int]) -> _core.PreparedInput:
    return _core.PreparedInput.tokens(np.array(ids, np.int64))
