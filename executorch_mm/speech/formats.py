"""Segments as text, SubRip and WebVTT, one after the other as they come."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

from executorch_mm.speech.segment import Segment

SubtitleFormat: TypeAlias = Literal["txt", "srt", "vtt"]


def write(name: SubtitleFormat, segments: Iterable[Segment], *, words: bool = False) -> Iterator[str]:
    """The pieces of a file in this format; each segment's piece comes with the segment.

    Args:
        name: "txt" has a line for each segment.
        segments: In order.
        words: A piece for each word instead; segments must have them.
    """
    return _WRITERS[name](_each_word(segments) if words else segments)


def _each_word(segments: Iterable[Segment]) -> Iterator[Segment]:
    for segment in segments:
        for word in segment.words:
            yield Segment(word.word, word.start, word.end)


def _txt(segments: Iterable[Segment]) -> Iterator[str]:
    for segment in segments:
        yield f"{_text(segment)}\n"


def _srt(segments: Iterable[Segment]) -> Iterator[str]:
    for number, segment in enumerate(segments, start=1):
        yield f"{number}\n{_times(segment, ',')}\n{_text(segment)}\n\n"


def _vtt(segments: Iterable[Segment]) -> Iterator[str]:
    head = "WEBVTT\n\n"  # with the first segment: not where the audio cannot be read
    for segment in segments:
        yield f"{head}{_times(segment, '.')}\n{_vtt_text(segment)}\n\n"
        head = ""
    if head:
        yield head


_WRITERS: dict[SubtitleFormat, Callable[[Iterable[Segment]], Iterator[str]]] = {
    "txt": _txt,
    "srt": _srt,
    "vtt": _vtt,
}


def _times(segment: Segment, point: str) -> str:
    """Of a segment, cut to whole milliseconds, so that nothing ends behind the audio."""
    # A millionth of a millisecond more: 8.96 s are not quite 8960 ms in floats.
    start, end = (math.floor(seconds * 1000 + 1e-6) / 1000 for seconds in (segment.start, segment.end))
    return f"{clock(start, point)} --> {clock(end, point)}"


def clock(seconds: float, point: str) -> str:
    """Hours, minutes, seconds and milliseconds: "00:01:02.500" with "." for the point."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _text(segment: Segment) -> str:
    """On one line, and without what both formats take for times."""
    return " ".join(segment.text.split()).replace("-->", "->")


def _vtt_text(segment: Segment) -> str:
    return _text(segment).replace("&", "&amp;").replace("<", "&lt;")
