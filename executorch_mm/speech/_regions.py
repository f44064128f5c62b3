"""Where somebody speaks in an audio clip: from frames to regions, and from those to what a model hears."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from executorch_mm.config import is_finite
from executorch_mm.errors import InputError, shown
from executorch_mm.preprocess import Waveform
from executorch_mm.speech.segment import Partial, Segment, SpeechEvent


@dataclass(frozen=True)
class RegionRules:
    """From frames with and without speech to regions; times in seconds.

    Attributes:
        min_speech: Shorter runs of frames are a click.
        min_silence: Shorter pauses are a part of what is said.
        pad: Added before and behind.
    """

    min_speech: float
    min_silence: float
    pad: float

    def regions(
        self, is_speech: npt.NDArray[np.bool_], frame: float, duration: float
    ) -> list[tuple[float, float]]:
        """Beginnings and ends in order, without overlap.

        Args:
            is_speech: (frames)
            frame: Seconds of a frame.
            duration: Of the audio clip.
        """
        edges = np.flatnonzero(np.diff(np.concatenate(([False], is_speech, [False])).astype(np.int8)))
        runs = [(a * frame, b * frame) for a, b in edges.reshape(-1, 2).tolist()]
        joined: list[tuple[float, float]] = []
        for start, end in runs:
            if end - start < self.min_speech - 1e-9:
                continue
            if joined and start - joined[-1][1] < self.min_silence:
                start = joined.pop()[0]
            joined.append((start, end))
        padded: list[tuple[float, float]] = []
        for start, end in joined:
            start, end = max(0.0, start - self.pad), min(duration, end + self.pad)
            if padded and start <= padded[-1][1]:
                start = padded.pop()[0]
            padded.append((start, end))
        return padded


@dataclass(frozen=True)
class SpeechPart:
    """A part of an audio clip.

    Attributes:
        waveform: Its samples.
        start: Where it begins, in seconds.
    """

    waveform: Waveform
    start: float

    def placed(self, event: SpeechEvent) -> SpeechEvent:
        """What was heard in the part, at its time in the audio clip."""
        if isinstance(event, Partial):
            return replace(event, start=event.start + self.start)
        return self.placed_segment(event)

    def placed_segment(self, segment: Segment) -> Segment:
        """The same of a segment."""
        return replace(
            segment,
            start=segment.start + self.start,
            end=segment.end + self.start,
            token_times=tuple((a + self.start, b + self.start) for a, b in segment.token_times),
            words=tuple(
                replace(word, start=word.start + self.start, end=word.end + self.start)
                for word in segment.words
            ),
        )


def parts_of(waveform: Waveform, regions: object, window: float) -> list[SpeechPart]:
    """The parts in which somebody speaks.

    Args:
        waveform: The whole audio clip.
        regions: Beginnings and ends in seconds, as a detector gives them.
        window: Seconds that the model hears at once: regions within it are one part, with what is between.

    Raises:
        InputError: They are no regions of the audio clip, in order.
    """
    rate, count = waveform.sampling_rate, len(waveform.samples)
    spans: list[tuple[int, int]] = []
    for start, end in _checked(regions, count / rate):
        first, last = round(start * rate), min(round(end * rate), count)
        if first >= last:
            continue
        if spans and last - spans[-1][0] <= window * rate:
            first = spans.pop()[0]
        spans.append((first, last))
    return [
        SpeechPart(replace(waveform, samples=waveform.samples[first:last]), first / rate)
        for first, last in spans
    ]


def _checked(regions: object, duration: float) -> Iterator[tuple[float, float]]:
    wanted = "vad_filter: expected (start, end) in seconds, each behind the one before"
    if not isinstance(regions, (list, tuple)):
        raise InputError(f"{wanted}, got {shown(regions)}")
    behind = 0.0
    for region in regions:
        if not isinstance(region, (list, tuple)) or len(region) != 2:
            raise InputError(f"{wanted}, got {shown(region)}")
        start, end = region
        if not (is_finite(start) and is_finite(end)) or not behind - 1e-6 <= start <= end:
            raise InputError(f"{wanted}, got {shown(region)} behind {behind:g}")
        first = min(max(float(start), behind), duration)
        behind = max(first, min(float(end), duration))
        yield first, behind


def frames_of(seconds: float, frame: float) -> int:
    """Whole frames of such a length, one at least."""
    return max(1, math.ceil(seconds / frame))
