"""Speech that is transcribed while it is spoken, by a model that hears whole clips: local agreement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from executorch_mm.preprocess import Waveform
from executorch_mm.speech._live_audio import LiveAudio
from executorch_mm.speech._regions import SpeechPart
from executorch_mm.speech.config import SpeechConfig
from executorch_mm.speech.live import LiveTranscription
from executorch_mm.speech.segment import Partial, Segment, SpeechEvent
from executorch_mm.speech.transcription import Transcription
from executorch_mm.speech.vad import EnergyVad, VoiceActivityDetector

# Seconds: kept before what is heard, so that the detector knows the noise; and kept of what is silent.
_CONTEXT = 3.0
_MARGIN = 0.3
_MOST_PROMPT = 200  # characters of what was said before


class WindowedLive(LiveTranscription):
    """Hears what is not final yet as a clip, again at each step."""

    def __init__(
        self,
        hear: Callable[[Waveform, SpeechConfig], Transcription],
        audio: LiveAudio,
        config: SpeechConfig,
        rate: int,
        longest: float,
        step_seconds: float,
        pause_seconds: float,
        max_seconds_behind: float,
        *,
        takes_prompt: bool,
    ) -> None:
        """By `SpeechRunner.live()`, which checks the parameters.

        Args:
            hear: Transcribes a clip.
            audio: Turns chunks into samples at the model's rate.
            config: Of each transcription.
            rate: The model's, samples per second.
            longest: Seconds that the model hears at a time.
            step_seconds: As in `SpeechRunner.live`, like the next ones.
            pause_seconds: The same.
            max_seconds_behind: The same.
            takes_prompt: Whether the model goes by what was said before.
        """
        super().__init__(audio, rate, round(step_seconds * rate), max_seconds_behind)
        self._hear = hear
        self._config = config
        self._longest = round(longest * rate)
        self._pause = pause_seconds
        self._takes_prompt = takes_prompt and config.condition_on_previous_text
        given = config.vad_filter
        usual = EnergyVad(speech_pad_ms=100)
        self._detect: VoiceActivityDetector = usual if isinstance(given, bool) else given
        # Samples by their number from the beginning of all: what is kept, what is not final.
        self._kept = np.zeros(0, np.float32)
        self._kept_from = self._start = 0
        self._hypothesis: list[Segment] = []
        self._partial: Partial | None = None
        self._said = ""
        self._language = config.language

    @property
    def language(self) -> str | None:
        """See `LiveTranscription`."""
        return self._language

    @property
    def _room(self) -> int:
        return self._longest - (self._end - self._start)

    def _advance(self, samples: np.ndarray, *, is_last: bool = False) -> list[SpeechEvent]:
        self._kept = np.concatenate([self._kept, samples])
        self._end += len(samples)
        spoken = self._spoken()
        if not spoken and not self._hypothesis:
            self._forget(self._end if is_last else max(self._start, self._end - round(_MARGIN * self._rate)))
            return []
        if spoken and not self._hypothesis:
            self._start = max(self._start, spoken[0][0] - round(_MARGIN * self._rate))
        behind = spoken[-1][1] if spoken else self._start
        is_final = is_last or self._end - behind >= self._pause * self._rate
        end = min(self._end, behind + round(_MARGIN * self._rate)) if is_final else self._end
        segments = self._heard(self._start, max(end, self._start + 1))
        if segments is None:  # stopped
            return []
        return self._finals(segments, self._end if is_final else None)

    def _spoken(self) -> list[tuple[int, int]]:
        """Regions of speech that are not final yet."""
        if not len(self._kept):
            return []
        regions = self._detect(Waveform(self._kept, self._rate))
        found = [[self._kept_from + round(time * self._rate) for time in region] for region in regions]
        return [(max(a, self._start), b) for a, b in found if b > self._start]

    def _heard(self, start: int, end: int) -> list[Segment] | None:
        """What is said in a part; None where it was stopped."""
        first = start - self._kept_from
        clip = Waveform(self._kept[first : end - self._kept_from], self._rate)
        config = self._config.replace(language=self._language)
        if self._takes_prompt and self._said:
            config = config.replace(prompt=f"{config.prompt or ''} {self._said[-_MOST_PROMPT:]}".strip())
        result = self._hear(clip, config)
        if result.stats.finish_reason not in ("stop", None):
            return None
        if self._language is None and result.segments:
            self._language = result.language
        part = SpeechPart(clip, start / self._rate)
        return [part.placed_segment(segment) for segment in result.segments]

    def _finals(self, segments: list[Segment], all_until: int | None) -> list[SpeechEvent]:
        """Makes segments final; `all_until` is where nothing is left before."""
        count, start = len(segments), self._start
        if all_until is None:
            agreed = 0
            for one, other in zip(self._hypothesis, segments[:-1], strict=False):
                if one.text != other.text:
                    break
                agreed += 1
            is_full = self._end - self._start > self._longest - 2 * self._step
            count = max(agreed, len(segments) - 1, 0) if is_full else agreed
            if count:
                start = max(start, min(round(segments[count - 1].end * self._rate), self._end))
            if is_full and self._end - start > self._longest - 3 * self._step:
                count, start = len(segments), self._end
        else:
            start = all_until
        events: list[SpeechEvent] = [*segments[:count]]
        self._said += "".join(segment.text for segment in segments[:count])
        self._said = self._said[-2 * _MOST_PROMPT :]
        self._hypothesis = segments[count:]
        self._forget(start)
        text = "".join(segment.text for segment in self._hypothesis)
        if text.strip():
            partial = Partial(text, self._hypothesis[0].start, self._hypothesis[0].temperature)
            if partial != self._partial or events:
                events.append(partial)
            self._partial = partial
        else:
            self._partial = None
        return events

    def _forget(self, start: int) -> None:
        """What is before is final, or silent."""
        self._start = start
        first = max(self._kept_from, start - round(_CONTEXT * self._rate))
        self._kept = self._kept[first - self._kept_from :].copy()
        self._kept_from = first
