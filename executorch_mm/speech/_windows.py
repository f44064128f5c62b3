"""From an audio clip to windows of features, and from a window's tokens to segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from executorch_mm.preprocess import AudioProcessor, Waveform
from executorch_mm.preprocess.steps import FloatArray

TIME_STEP = 0.02  # seconds from one time token to the next
# Half a step of 16 bits: nothing that could be heard.
_SILENCE = 2.0**-16


class Windows:
    """The features of an audio clip, a window at a time.

    Args:
        waveform: At the processor's rate.
        processor: Makes the features; a chunk of it is a window.
        lengths: Frames that the encoder may be given instead of a window's, rising.
        margin: Frames behind the audio that such a length has at least.

    Attributes:
        duration: Of the audio, in seconds.
        num_frames: Of the audio: with the one that it fills in part where it is one window, as in
            transformers.
        size: Frames of a window.
    """

    def __init__(
        self, waveform: Waveform, processor: AudioProcessor, lengths: Sequence[int] = (), margin: int = 0
    ) -> None:
        config = processor.config
        self._margin = margin
        self._lengths = lengths
        self._hop = config.hop
        self._rate = config.sampling_rate
        self._samples = waveform.samples
        self._chunks = processor.features(waveform)
        self.duration = len(waveform.samples) / self._rate
        self.size = int(self._chunks.shape[2])
        whole, rest = divmod(len(waveform.samples), config.hop)
        self.num_frames = whole + (rest > 0 and whole < self.size)
        if len(self._chunks) > 1:  # what stands behind the end of a longer audio clip in Whisper's reference
            self._chunks[-1, :, self.num_frames % self.size or self.size :] = 0

    def features(self, start: int) -> FloatArray:
        """(bins, size) from this frame on; a view where a chunk begins there."""
        chunk, offset = divmod(start, self.size)
        first: FloatArray = self._chunks[chunk]
        if offset == 0:
            return first
        window: FloatArray = np.zeros_like(first)
        window[:, : self.size - offset] = first[:, offset:]
        if chunk + 1 < len(self._chunks):
            window[:, self.size - offset :] = self._chunks[chunk + 1][:, :offset]
        return window

    def shortest(self, start: int, window: FloatArray) -> FloatArray:
        """As much of the window from this frame on as the encoder has to hear of the audio."""
        num_frames = self.end(start) - start + self._margin
        length = next((length for length in self._lengths if length >= num_frames), self.size)
        return window if length >= self.size else np.ascontiguousarray(window[:, :length])

    def end(self, start: int) -> int:
        """The frame behind the window from this one on."""
        return min(start + self.size, self.num_frames)

    def after(self, start: int, steps: int) -> int:
        """The frame so many steps of time tokens behind this one."""
        return start + round(steps * TIME_STEP * self._rate / self._hop)

    def seconds(self, frame: int) -> float:
        """Where a frame begins; the end of the audio behind its last one."""
        return self.duration if frame >= self.num_frames else frame * self._hop / self._rate

    def is_silent(self, start: int) -> bool:
        """Whether there is nothing to hear in the window from this frame on."""
        samples = self._samples[start * self._hop : (start + self.size) * self._hop]
        return bool(np.abs(samples).max(initial=0.0) < _SILENCE)


@dataclass(frozen=True)
class Span:
    """Tokens between two times, in steps from the window's beginning; no end means the window's."""

    start: int
    end: int | None
    tokens: tuple[int, ...]


def split(tokens: Sequence[int], first_time: int | None) -> tuple[list[Span], int | None]:
    """Cuts the tokens of a window where one text ends and the next begins.

    Args:
        tokens: Of the window, without the end token.
        first_time: The token of the time 0, or None where there are no times.

    Returns:
        The spans, and the step to go on from; None for the end of the window.
    """
    times = [None if first_time is None or token < first_time else token - first_time for token in tokens]
    cuts = [i for i in range(1, len(times)) if times[i - 1] is not None and times[i] is not None]
    # A text that ends where the next does not begin: nothing more is said.
    is_complete = len(times) > 1 and times[-2] is None and times[-1] is not None
    if not cuts:
        last = next((time for time in reversed(times) if time is not None), None)
        return [Span(0, last or None, tuple(tokens))], None
    if is_complete:
        cuts.append(len(tokens))
    spans = [
        Span(times[begin] or 0, times[end - 1], tuple(tokens[begin:end]))
        for begin, end in zip([0, *cuts], cuts, strict=False)
    ]
    return spans, None if is_complete else spans[-1].end or None
