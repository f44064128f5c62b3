"""Symbols of a transducer as segments: a sentence each, with the times of tokens and words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from executorch_mm import _core
from executorch_mm._engine.text_stream import TextStream
from executorch_mm.speech._words import words_of
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.segment import Partial, Segment
from executorch_mm.tokenizer import Tokenizer

_ENDS = (".", "?", "!")


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
        return self.text.endswith(_ENDS) and piece.startswith(" ")

    def split(self, count: int) -> tuple[_Sentence, _Sentence]:
        """The first symbols, and the rest."""
        first = _Sentence(self.pieces[:count], self.tokens[:count], self.times[:count])
        return first, _Sentence(self.pieces[count:], self.tokens[count:], self.times[count:])

    def segment(self, config: SpeechConfig, latest: float) -> Segment:
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


class Sentences:
    """Collects the symbols of a clip or stream.

    Args:
        tokenizer: Of the model.
        config: Of the transcription.
        frame_seconds: From one frame of the encoder to the next.
        start: Seconds before the first frame.
        latest: Where the audio ends, as far as known: the encoder's last frame, and what a duration says, may
            reach beyond it.
        after: Token before the first one.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        config: SpeechConfig,
        frame_seconds: float,
        start: float = 0.0,
        latest: float = math.inf,
        after: int | None = None,
    ) -> None:
        self._text = TextStream(tokenizer, after=() if after is None else (after,))
        self._config = config
        self._frame_seconds = frame_seconds
        self._start = start
        self._latest = latest
        self._sentence = _Sentence()
        self.last_token = after

    def push(self, symbol: _core.Symbol) -> Segment | None:
        """Adds a symbol; the sentence that has ended before it."""
        piece = self._text.push(symbol.token)
        time = self._time(symbol)
        ended = None
        if self._sentence.is_complete_before(piece):
            ended, self._sentence = self._sentence.segment(self._config, time[0]), _Sentence()
        self._sentence.pieces.append(piece)
        self._sentence.tokens.append(symbol.token)
        self._sentence.times.append(time)
        self.last_token = symbol.token
        return ended

    @property
    def partial(self) -> Partial | None:
        """The sentence that has not ended."""
        sentence = self._sentence
        return Partial(sentence.text, sentence.times[0][0], 0.0) if sentence.tokens else None

    def finish(self, latest: float | None = None) -> Segment | None:
        """The last sentence, at the end of the audio.

        Args:
            latest: Where that is, if it was not known before.
        """
        if not self._sentence.tokens:
            return None
        self._sentence.pieces[-1] += self._text.finish()
        return self._ended(len(self._sentence.tokens), self._latest if latest is None else latest)

    def pause(self, now: float, pause_seconds: float, longest: float) -> Segment | None:
        """What is over although no sentence ends.

        Args:
            now: Seconds that have been heard.
            pause_seconds: A time without symbols after which all is.
            longest: Seconds that a segment may take: then all is but the last word, which may go on.
        """
        sentence = self._sentence
        if not sentence.tokens:
            return None
        if now - max(end for _, end in sentence.times) >= pause_seconds:
            return self._ended(len(sentence.tokens), math.inf)
        if now - sentence.times[0][0] <= longest:
            return None
        words = [i for i, piece in enumerate(sentence.pieces) if i and piece.startswith(" ")]
        count = words[-1] if words else len(sentence.tokens)
        return self._ended(count, sentence.times[count][0] if words else math.inf)

    def _ended(self, count: int, latest: float) -> Segment:
        ended, self._sentence = self._sentence.split(count)
        return ended.segment(self._config, latest)

    def _time(self, symbol: _core.Symbol) -> tuple[float, float]:
        """Beginning and end in seconds; a symbol without a duration lasts for its frame."""
        end = symbol.frame + max(1, symbol.duration)
        first, last = (self._start + frame * self._frame_seconds for frame in (symbol.frame, end))
        return min(first, self._latest), min(last, self._latest)
