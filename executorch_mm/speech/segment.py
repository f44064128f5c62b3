"""What was said, and when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Partial:
    """What a window's text is so far. It replaces the window's earlier ones, and its segments replace it.

    Attributes:
        text: From the beginning of the window; shorter than before where another temperature is tried.
        start: Where the window begins, in seconds.
        temperature: That of this attempt.
    """

    text: str
    start: float
    temperature: float


@dataclass(frozen=True)
class Word:
    """A word of what was said, with the signs around it.

    Attributes:
        word: Its text, usually with a space in front; a character in languages without spaces.
        start: Seconds from the beginning of the audio.
        end: The same.
        probability: Mean of those of its tokens; None where the model does not tell.
    """

    word: str
    start: float
    end: float
    probability: float | None = None


@dataclass(frozen=True)
class Segment:
    """A part of what was said, final.

    Attributes:
        text: As the model wrote it, usually with a space in front.
        start: Seconds from the beginning of the audio.
        end: The same.
        tokens: Ids, those of times included.
        avg_logprob: Mean logarithm of the probabilities of the window's tokens.
        no_speech_prob: How likely the model found it that nothing is said in the window; 0 where it has no
            such token.
        compression_ratio: Bytes of the window's text for each byte that zlib makes of it.
        temperature: That the window was decoded with.
        token_times: Beginning and end of each token, in seconds; () where they were not asked for.
        words: In order; () where they were not asked for.
    """

    text: str
    start: float
    end: float
    tokens: tuple[int, ...] = ()
    avg_logprob: float = 0.0
    no_speech_prob: float = 0.0
    compression_ratio: float = 0.0
    temperature: float = 0.0
    token_times: tuple[tuple[float, float], ...] = ()
    words: tuple[Word, ...] = ()


SpeechEvent: TypeAlias = "Partial | Segment"
