"""A whole audio clip, written down."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from executorch_mm.speech.formats import SubtitleFormat, write
from executorch_mm.speech.segment import Segment, Word
from executorch_mm.stats import Stats, as_html, counted, duration


@dataclass(frozen=True, repr=False)
class Transcription:
    """A whole audio clip.

    Attributes:
        text: Of all segments.
        segments: In order.
        language: Its code, given or found; None where the model knows only one or nothing was heard.
        duration: Of the audio, in seconds.
        duration_after_vad: Of what a voice activity detector took for speech; None where none was asked.
        stats: What it cost. The finish reason is "stop", "timeout" or "cancelled".
    """

    text: str
    segments: tuple[Segment, ...]
    language: str | None
    duration: float
    stats: Stats
    duration_after_vad: float | None = None

    @property
    def words(self) -> tuple[Word, ...]:
        """Of all segments; () where they were not asked for."""
        return tuple(word for segment in self.segments for word in segment.words)

    def to_srt(self, *, words: bool = False) -> str:
        """The segments as a SubRip file.

        Args:
            words: A subtitle for each word, of a transcription with `word_timestamps`.
        """
        return self._written("srt", words)

    def to_vtt(self, *, words: bool = False) -> str:
        """The segments as a WebVTT file.

        Args:
            words: As in `to_srt`.
        """
        return self._written("vtt", words)

    def to_verbose_json(self) -> str:
        """What OpenAI's API calls verbose_json, as a JSON object: text, segments, and words if there are."""
        segments = [
            {
                "id": number,
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                "tokens": segment.tokens,
                "temperature": segment.temperature,
                "avg_logprob": segment.avg_logprob,
                "compression_ratio": segment.compression_ratio,
                "no_speech_prob": segment.no_speech_prob,
            }
            for number, segment in enumerate(self.segments)
        ]
        words = [{"word": word.word.strip(), "start": word.start, "end": word.end} for word in self.words]
        content = {
            "language": self.language,
            "duration": self.duration,
            "text": self.text,
            "segments": segments,
        }
        return json.dumps(content | ({"words": words} if words else {}), ensure_ascii=False)

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return {
            "text": self.text,
            "language": self.language,
            "duration": self.duration,
            "duration_after_vad": self.duration_after_vad,
            "segments": [dataclasses.asdict(segment) for segment in self.segments],
            "stats": self.stats.to_dict(),
        }

    def to_json(self) -> str:
        """`to_dict()` as a JSON object."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 60 else self.text[:60] + "..."
        facts = [
            counted(len(self.segments), "segment"),
            f"{self.duration:.1f} s",
            *filter(None, [self.language]),
        ]
        return f"<Transcription: {text!r}, {', '.join(facts)}, finish reason: {self.stats.finish_reason}>"

    def _repr_html_(self) -> str:
        """For notebooks: the text, what was heard, and what it cost."""
        rows = {
            "finish reason": self.stats.finish_reason or "-",
            "language": self.language or "-",
            "audio": f"{self.duration:.1f} s",
            "segments": str(len(self.segments)),
            "total": duration(self.stats.total_seconds),
        }
        return as_html(self.text, rows)

    def _written(self, name: SubtitleFormat, words: bool) -> str:
        return "".join(write(name, self.segments, words=words))
