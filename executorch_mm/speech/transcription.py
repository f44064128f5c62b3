"""A whole audio clip, written down."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from executorch_mm.speech.formats import SubtitleFormat, write
from executorch_mm.speech.segment import Segment
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

    def to_srt(self) -> str:
        """The segments as a SubRip file."""
        return self._written("srt")

    def to_vtt(self) -> str:
        """The segments as a WebVTT file."""
        return self._written("vtt")

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

    def _written(self, name: SubtitleFormat) -> str:
        return "".join(write(name, self.segments))
