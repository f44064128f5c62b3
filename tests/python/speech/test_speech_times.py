"""Times of what was said: within the audio, in order, and the same in every format."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from executorch_mm import Segment, SpeechConfig, SpeechRunner, Transcription
from executorch_mm.speech._whisper_window import Attempt
from executorch_mm.speech._windows import Span
from speech_cases import FOLDER, KINDS, RATE, clip

TRANSDUCERS = FOLDER.parent / "transducer"
FIRST_TIME = 268
CLOCK = re.compile(r"(\d\d):(\d\d):(\d\d)[.,](\d\d\d)")


@pytest.fixture(scope="module")
def runners() -> Iterator[dict[str, SpeechRunner]]:
    paths = {kind: FOLDER / f"{kind}.pte" for kind in KINDS}
    paths |= {name: TRANSDUCERS / f"{name}.pte" for name in ("tdt", "rnnt", "tdt_features", "rnnt_features")}
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(SpeechRunner(path, num_threads=1)) for name, path in paths.items()}


def expect_in_order(result: Transcription) -> None:
    """No time before the one before it, none behind the end; exactly, not to a rounding."""
    now = 0.0
    for segment in result.segments:
        assert now <= segment.start <= segment.end <= result.duration
        now = segment.end
        starts, ends = [start for start, _ in segment.token_times], [end for _, end in segment.token_times]
        assert all(segment.start <= start <= end <= segment.end for start, end in segment.token_times)
        assert starts == sorted(starts)
        assert ends == sorted(ends)
    written = json.loads(result.to_json())
    assert [(one["start"], one["end"]) for one in written["segments"]] == [
        (segment.start, segment.end) for segment in result.segments
    ]
    for text in (result.to_srt(), result.to_vtt()):
        times = [
            Fraction(int(h) * 3_600_000 + int(m) * 60_000 + int(s) * 1000 + int(ms), 1000)
            for h, m, s, ms in CLOCK.findall(text)
        ]
        assert len(times) == 2 * len(result.segments)
        assert times == sorted(times)
        assert all(time <= Fraction(result.duration) for time in times)
        assert all(
            abs(float(time) - seconds) < 0.001
            for time, seconds in zip(
                times, [x for one in result.segments for x in (one.start, one.end)], strict=True
            )
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 7, 160, 1601, 4000, 16_001, 40_123, 64_000])
def test_a_short_audio_clip_ends_where_it_ends(
    runners: dict[str, SpeechRunner], kind: str, size: int
) -> None:
    samples = clip("other")[16_000 : 16_000 + size] + np.float32(0.1)
    for seed in range(3):
        result = runners[kind].transcribe(
            samples, sampling_rate=RATE, timestamps=True, temperature=1.0, seed=seed, max_new_tokens=25,
            no_speech_threshold=None, language="en",
        )  # fmt: skip
        assert result.segments
        expect_in_order(result)


@pytest.mark.parametrize("kind", KINDS)
def test_times_of_a_long_audio_clip_go_forward_over_its_windows(
    runners: dict[str, SpeechRunner], kind: str
) -> None:
    config = SpeechConfig(temperature=1.0, max_new_tokens=30, no_speech_threshold=None, language="en")
    for seed in range(3):
        result = runners[kind].transcribe(
            clip("long")[: 65 * RATE + 77], config, sampling_rate=RATE, seed=seed
        )
        assert len(result.segments) > 2
        expect_in_order(result)


@pytest.mark.parametrize("name", ["tdt", "rnnt"])
@pytest.mark.parametrize("size", [1, 399, 400, 1601, 12_345, 16_000, 23_999])
def test_symbols_of_a_transducer_lie_within_the_audio(
    runners: dict[str, SpeechRunner], name: str, size: int
) -> None:
    random = np.random.default_rng(size)
    result = runners[name].transcribe(random.normal(0, 0.1, size).astype(np.float32), sampling_rate=RATE)
    expect_in_order(result)


@pytest.mark.parametrize("name", ["tdt_features", "rnnt_features"])
@pytest.mark.parametrize("columns", [1, 5, 77, 99, 151])
def test_symbols_over_features_lie_within_them(
    runners: dict[str, SpeechRunner], name: str, columns: int
) -> None:
    random = np.random.default_rng(columns)
    features = random.normal(0, 1, (1, 12, columns)).astype(np.float32)
    expect_in_order(runners[name].transcribe(features))


def placed(runner: SpeechRunner, *windows: tuple[float, float, list[Span]]) -> list[tuple[float, float]]:
    """Times of the segments of windows from start to end (seconds) with these spans."""
    segments: list[Segment] = []
    model: Any = runner._requests.model
    for start, end, spans in windows:
        model._add_segments(segments, Attempt(), spans, start, end)
    return [(segment.start, segment.end) for segment in segments]


def span(start: int, end: int | None) -> Span:
    return Span(start, end, (FIRST_TIME + start, 97, 98))


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([(0.0, 4.0, [span(0, 250)])], [(0, 4)]),
        ([(0.0, 4.0, [span(0, None)])], [(0, 4)]),
        ([(0.0, 4.0, [span(0, 100), span(100, 448)])], [(0, 2), (2, 4)]),
        # behind the end: the last step before it, unless something else is there
        ([(0.0, 4.0, [span(0, 100), span(250, 300)])], [(0, 2), (3.98, 4)]),
        ([(0.0, 4.0, [span(0, 200), span(250, 300)])], [(0, 4), (4, 4)]),
        ([(0.0, 4.0, [span(200, 300), span(300, 400)])], [(3.98, 4), (4, 4)]),
        ([(0.0, 0.01, [span(50, 60)])], [(0, 0.01)]),
        # a time beyond its window, as vocabularies with more times allow, and the window behind it
        ([(0.0, 30.0, [span(0, 1600)]), (30.0, 40.0, [span(0, 50)])], [(0, 30), (30, 31)]),
        ([(0, 40, [span(0, 1600)]), (30, 40, [span(0, 50), span(60, 120)])], [(0, 32), (32, 32), (32, 32.4)]),
        # no time between them: as in the reference, it says nothing
        ([(0.0, 4.0, [span(50, 50)])], []),
    ],
)  # fmt: skip
def test_a_text_is_placed_in_its_window_and_behind_the_one_before(
    runners: dict[str, SpeechRunner], windows: Any, expected: list[tuple[float, float]]
) -> None:
    assert placed(runners["kv"], *windows) == [pytest.approx(times) for times in expected]


def test_sums_of_floats_do_not_run_backwards(runners: dict[str, SpeechRunner]) -> None:
    # 0.1 + 0.2 and the like: every end of a window's text is the start of the next window
    for steps in range(1, 1500, 7):
        end = steps * 0.02
        [(_, first), (second, _)] = placed(
            runners["kv"], (0.0, 30.0, [span(0, steps)]), (steps * 2 * 160 / 16000, 60.0, [span(0, 10)])
        )
        assert second >= first
        assert first == pytest.approx(end)
