"""Whisper's rules, each against a small implementation of its own that shares no code with ours."""

from __future__ import annotations

import numpy as np
import pytest

from executorch_mm.preprocess import AudioProcessor, LogMelConfig, Waveform
from executorch_mm.speech import Segment, SpeechConfig
from executorch_mm.speech._whisper_window import Attempt, compression_ratio
from executorch_mm.speech._windows import Windows, split
from executorch_mm.speech.formats import clock, write

END, FIRST = 40, 45


def reference_split(tokens: list[int], size: int) -> tuple[list[tuple[int, int, list[int]]], int]:
    """Segments as (first step, last step, tokens) and the step to go on from, by walking over the tokens."""
    is_time = [token >= FIRST for token in tokens]
    segments, begin = [], 0
    for index in range(1, len(tokens)):
        if is_time[index - 1] and is_time[index]:
            segments.append(tokens[begin:index])
            begin = index
    ends_alone = len(tokens) >= 2 and is_time[-1] and not is_time[-2]
    if not segments:
        times = [token - FIRST for token in tokens if token >= FIRST]
        end = times[-1] if times and times[-1] != 0 else size
        return [(0, end, tokens)], size
    if ends_alone:
        segments.append(tokens[begin:])
    cut = [(part[0] - FIRST, part[-1] - FIRST, part) for part in segments]
    return cut, size if ends_alone else cut[-1][1]


def test_windows_are_cut_where_the_reference_cuts_them() -> None:
    random = np.random.default_rng(3)
    size, seen = 14, set()
    for _ in range(500):
        tokens, now = [FIRST + int(random.integers(0, 3))], 0
        while len(tokens) < random.integers(2, 14):
            now = min(max(now, tokens[-1] - FIRST if tokens[-1] >= FIRST else now) + 1, size)
            text = [int(token) for token in random.integers(0, END, random.integers(1, 4))]
            end = [FIRST + now]
            tokens += text + end + (end if random.random() < 0.5 and now < size else [])
            if random.random() < 0.2:
                tokens = tokens[: -int(random.integers(1, 3))]
        expected, go_on = reference_split(tokens, size)
        spans, steps = split(tokens, FIRST)
        got = [(span.start, size if span.end is None else span.end, [*span.tokens]) for span in spans]
        assert got == expected
        assert (size if steps is None else steps) == (go_on or size)
        seen.add((len(spans) > 1, steps is None))
    assert len(seen) == 4


def test_without_times_a_window_is_one_segment() -> None:
    [span], steps = split([1, 50, 2], None)
    assert (span.start, span.end, span.tokens, steps) == (0, None, (1, 50, 2), None)


@pytest.mark.parametrize(
    ("attempt", "config", "is_silence", "is_good"),
    [
        (Attempt(avg_logprob=-0.5, compression_ratio=1.0), SpeechConfig(), False, True),
        (Attempt(avg_logprob=-1.5), SpeechConfig(), False, False),
        (Attempt(avg_logprob=-1.5), SpeechConfig(logprob_threshold=None), False, True),
        (Attempt(avg_logprob=-0.5, compression_ratio=3.0), SpeechConfig(), False, False),
        (Attempt(compression_ratio=3.0), SpeechConfig(compression_ratio_threshold=None), False, True),
        (Attempt(avg_logprob=-1.5, no_speech_prob=0.9), SpeechConfig(), True, True),
        (Attempt(avg_logprob=-0.5, no_speech_prob=0.9), SpeechConfig(), False, True),
        (Attempt(avg_logprob=-1.5, no_speech_prob=0.9), SpeechConfig(no_speech_threshold=None), False, False),
        (Attempt(avg_logprob=-0.5, no_speech_prob=0.9), SpeechConfig(logprob_threshold=None), True, True),
    ],
)
def test_a_text_is_kept_tried_again_or_taken_for_silence(
    attempt: Attempt, config: SpeechConfig, is_silence: bool, is_good: bool
) -> None:
    assert attempt.is_silence(config) is is_silence
    assert attempt.is_good(config) is is_good


def test_a_repetition_compresses_better_than_speech() -> None:
    assert compression_ratio("and then " * 40) > 2.4
    assert compression_ratio("ask not what your country can do for you") < 2.4
    assert compression_ratio("") == 0.0


def test_a_window_from_any_frame_is_a_part_of_the_whole_spectrogram() -> None:
    processor = AudioProcessor(LogMelConfig(bins=20, chunk_seconds=2))
    samples = np.random.default_rng(0).standard_normal(16000 * 5 + 77).astype(np.float32)
    windows = Windows(Waveform(samples, 16000), processor)
    whole = np.concatenate([*processor(Waveform(samples, 16000))], axis=1)
    assert windows.num_frames == 500  # transformers leaves out the frame that is filled in part
    whole[:, 500:] = 0
    whole = np.pad(whole, ((0, 0), (0, 200)))
    for start in (0, 1, 150, 200, 399, 400, 499):
        window = windows.features(start)
        assert window.flags.c_contiguous
        np.testing.assert_array_equal(window, whole[:, start : start + 200])
    assert windows.features(200).base is not None  # no copy where a chunk begins
    assert windows.end(100) == 300
    assert windows.end(400) == 500
    assert windows.after(100, 50) == 200
    assert windows.seconds(499) == 4.99
    assert windows.seconds(500) == windows.duration
    assert Windows(Waveform(samples[: 16000 + 77], 16000), processor).num_frames == 101  # as there too


def test_an_audio_clip_of_one_window_is_followed_by_silence_as_the_feature_extractor_leaves_it() -> None:
    processor = AudioProcessor(LogMelConfig(bins=20, chunk_seconds=2))
    audio = Waveform(np.ones(16000, np.float32), 16000)
    np.testing.assert_array_equal(Windows(audio, processor).features(0), processor(audio)[0])


def test_only_what_nobody_could_hear_is_silent() -> None:
    processor = AudioProcessor(LogMelConfig(bins=20, chunk_seconds=1))
    samples = np.zeros(48000, np.float32)
    samples[16000 + 8000] = 2.0**-15
    windows = Windows(Waveform(samples, 16000), processor)
    assert [windows.is_silent(start) for start in (0, 100, 160, 200)] == [True, False, True, True]


def test_times_are_written_with_hours_and_milliseconds() -> None:
    assert clock(0, ",") == "00:00:00,000"
    assert clock(59.9996, ".") == "00:01:00.000"
    assert clock(7384.25, ",") == "02:03:04,250"


def test_subtitles_have_one_line_for_a_segment_and_nothing_that_looks_like_markup() -> None:
    segments = [Segment(" one\ntwo ", 0.5, 1.0), Segment(" a --> b <i> & c", 61.0, 62.5)]
    assert "".join(write("txt", segments)) == "one two\na -> b <i> & c\n"
    assert "".join(write("srt", segments)) == (
        "1\n00:00:00,500 --> 00:00:01,000\none two\n\n2\n00:01:01,000 --> 00:01:02,500\na -> b <i> & c\n\n"
    )
    assert "".join(write("vtt", segments)) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.000\none two\n\n"
        "00:01:01.000 --> 00:01:02.500\na -&gt; b &lt;i> &amp; c\n\n".replace("-&gt;", "->")
    )
