"""Encoders that take windows shorter than 30 s: a short clip does not pay for a long one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from executorch_mm import InputError, SpeechConfig, SpeechRunner
from executorch_mm.preprocess import AudioProcessor, LogMelConfig, Waveform
from executorch_mm.speech._windows import Windows
from speech_cases import FOLDER, RATE, clip

SHORT, WORDS = FOLDER.parent / "speech_short", FOLDER.parent / "speech_words"
REQUESTS: list[dict[str, Any]] = json.loads((SHORT / "expected.json").read_text())["requests"]
PLAIN = SpeechConfig(
    temperature=0.0, compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None,
    max_new_tokens=20, language="en", condition_on_previous_text=False, short_windows=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def short() -> Iterator[SpeechRunner]:
    with SpeechRunner(SHORT / "short.pte", num_threads=1) as runner:
        yield runner


@pytest.fixture(scope="module")
def whole() -> Iterator[SpeechRunner]:
    """The same weights, but for its encoder's length."""
    with SpeechRunner(WORDS / "words.pte", num_threads=1) as runner:
        yield runner


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: f"{each['clip']}-{each['timestamps']}")
def test_a_short_clip_is_heard_as_by_a_transformers_model_of_four_seconds_more(
    request_: dict[str, Any], short: SpeechRunner, whole: SpeechRunner
) -> None:
    samples = clip(request_["clip"])[: int(request_["seconds"] * RATE)]
    heard, other = (
        runner.transcribe(
            samples,
            PLAIN,
            sampling_rate=RATE,
            timestamps=request_["timestamps"],
            short_windows=runner is short,
        )
        for runner in (short, whole)
    )
    first = heard.segments[0].tokens
    assert list(first) == request_["tokens"][: len(first)]
    assert len(first) == len(request_["tokens"]) or request_["timestamps"]
    assert first != other.segments[0].tokens


def test_a_clip_of_a_whole_window_is_heard_as_before(short: SpeechRunner, whole: SpeechRunner) -> None:
    samples = clip("long")[: 29 * RATE]
    one, other = (
        runner.transcribe(
            samples, PLAIN, sampling_rate=RATE, word_timestamps=True, short_windows=runner is short
        )
        for runner in (short, whole)
    )
    assert one.segments == other.segments


def test_it_is_off_unless_asked_for_and_refused_where_it_cannot_be(
    short: SpeechRunner, whole: SpeechRunner
) -> None:
    plain = PLAIN.replace(short_windows=False)
    one, other = (runner.transcribe(clip("other"), plain, sampling_rate=RATE) for runner in (short, whole))
    assert one.segments == other.segments
    with pytest.raises(InputError, match="short_windows: the program's encoder takes whole windows"):
        whole.transcribe(clip("other"), PLAIN, sampling_rate=RATE)
    with (
        SpeechRunner(FOLDER.parent / "transducer" / "tdt.pte", num_threads=1) as transducer,
        pytest.raises(InputError, match="short_windows: a transducer hears what there is"),
    ):
        transducer.transcribe(clip("short"), sampling_rate=RATE, short_windows=True)


def test_what_is_not_good_is_heard_again_in_a_whole_window(short: SpeechRunner, whole: SpeechRunner) -> None:
    alone = short.transcribe(clip("other"), PLAIN, sampling_rate=RATE)
    again = short.transcribe(clip("other"), PLAIN, sampling_rate=RATE, logprob_threshold=-100.0)
    repeats = short.transcribe(clip("other"), PLAIN, sampling_rate=RATE, compression_ratio_threshold=0.01)
    expected = whole.transcribe(clip("other"), PLAIN, sampling_rate=RATE, short_windows=False)
    assert alone.segments != expected.segments
    assert alone.segments[0].avg_logprob < -0.3  # of which it is not sure
    assert again.segments == repeats.segments == expected.segments


def test_words_lie_within_a_short_clip(short: SpeechRunner) -> None:
    for name in ("short", "other"):
        result = short.transcribe(clip(name), PLAIN, sampling_rate=RATE, word_timestamps=True)
        times = [time for segment in result.segments for pair in segment.token_times for time in pair]
        assert len({*times}) > 2
        assert 0 <= min(times) <= max(times) <= result.duration
        assert all(word.start <= word.end <= result.duration for word in result.words)


def test_sessions_beams_and_silence_take_short_windows_too(short: SpeechRunner) -> None:
    with SpeechRunner(SHORT / "short.pte", num_threads=1, isolate=True) as isolated:
        results = [
            runner.transcribe(clip("other"), PLAIN, sampling_rate=RATE, beam_size=3)
            for runner in (short, isolated)
        ]
    assert results[0].segments == results[1].segments
    late = np.concatenate([np.zeros(40 * RATE, np.float32), clip("short")])
    behind = short.transcribe(late, PLAIN, sampling_rate=RATE, vad_filter=lambda _: [(40.0, 44.0)])
    alone = short.transcribe(clip("short"), PLAIN, sampling_rate=RATE)
    assert behind.text == alone.text


@pytest.mark.parametrize(
    ("seconds", "start", "expected"),
    [(0.5, 0, 500), (5.0, 0, 900), (5.1, 0, 1000), (25.0, 0, 2900), (25.1, 0, 3000), (38.0, 3000, 1200)],
)
def test_the_shortest_length_that_holds_the_audio_is_taken(seconds: float, start: int, expected: int) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)
    windows = Windows(Waveform(samples, RATE), AudioProcessor(LogMelConfig()), range(100, 3000, 100), 400)
    window = windows.features(start)
    taken = windows.shortest(start, window)
    assert taken.shape == (80, expected)
    assert taken.flags.c_contiguous
    assert np.array_equal(taken, window[:, :expected])
    assert Windows(Waveform(samples, RATE), AudioProcessor(LogMelConfig())).shortest(start, window) is window
