"""Voice activity detection: what counts as speech, and that what is left out changes no time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_mm import (
    ContractError,
    EnergyVad,
    ExecutorchMMError,
    InputError,
    Partial,
    Segment,
    SileroVad,
    SpeechConfig,
    SpeechRunner,
)
from executorch_mm.preprocess import Waveform
from executorch_mm.speech._regions import RegionRules, parts_of
from speech_cases import FOLDER, RATE, clip

Samples = npt.NDArray[np.float32]
VAD = FOLDER.parent / "vad"
PLAIN = SpeechConfig(
    temperature=0.0, compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None,
    max_new_tokens=20, language="en", timestamps=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def runner() -> Iterator[SpeechRunner]:
    with SpeechRunner(FOLDER / "kv.pte", num_threads=1) as runner:
        yield runner


def noise(seconds: float, level: float, seed: int = 0) -> Samples:
    random = np.random.default_rng(seed)
    return (level * random.standard_normal(round(seconds * RATE))).astype(np.float32)


def spoken(seconds: float, level: float = 0.3) -> Samples:
    """A voice of a kind: 150 Hz with harmonics, in four syllables a second."""
    t = np.arange(round(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 20))
    return (level / 2 * voice * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * t))).astype(np.float32)


@pytest.mark.parametrize("level", [0.0, 1e-5, 1e-3, 0.1])
def test_energy_finds_what_is_louder_than_the_noise_around(level: float) -> None:
    samples = noise(30, level)
    for start, end in ((4.0, 7.0), (15.0, 21.0)):
        samples[round(start * RATE) : round(end * RATE)] += spoken(end - start, max(0.3, 20 * level))
    found = EnergyVad(speech_pad_ms=0)(Waveform(samples, RATE))
    assert np.allclose(found, [(4.0, 7.0), (15.0, 21.0)], atol=0.15)
    padded = EnergyVad(speech_pad_ms=500)(Waveform(samples, RATE))
    assert np.allclose(padded, np.add(found, [-0.5, 0.5]), atol=0.002)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(60 * RATE, np.float32),
        noise(60, 0.1),
        noise(60, 1e-4),
        np.cumsum(noise(60, 0.002)) % 0.01,
        0.3 * np.sin(2 * np.pi * 50 * np.arange(60 * RATE) / RATE) + noise(60, 0.01),
        np.repeat([0.0, 0.4, 0.0], [30 * RATE, 320, 30 * RATE]),  # a click
        np.zeros(1, np.float32),
    ],
    ids=["silence", "noise", "hiss", "rumble", "hum", "click", "one sample"],
)
def test_energy_finds_nothing_in_what_stays_as_it_is(samples: npt.NDArray[Any]) -> None:
    assert EnergyVad()(Waveform(samples.astype(np.float32), RATE)) == []


def test_pauses_and_clicks_are_told_from_speech_by_their_length() -> None:
    rules = RegionRules(min_speech=0.2, min_silence=0.5, pad=0.1)
    frames = [0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1]  # of 0.1 s
    found = rules.regions(np.array(frames, bool), 0.1, 1.95)
    assert np.allclose(found, [(0.1, 0.9), (1.7, 1.95)])
    assert RegionRules(0.0, 0.0, 10.0).regions(np.array([0, 1, 0, 1], bool), 0.1, 0.4) == [(0.0, 0.4)]
    assert rules.regions(np.zeros(0, bool), 0.1, 0.0) == []


@pytest.mark.parametrize(
    ("name", "context", "window", "rate"), [("vad", 64, 512, 16000), ("vad_8k", 32, 256, 8000)]
)
def test_a_programs_probabilities_follow_from_windows_state_and_context(
    name: str, context: int, window: int, rate: int
) -> None:
    samples = noise(1.03, 0.2, seed=3) * np.linspace(0, 1, round(1.03 * RATE), dtype=np.float32)
    with SileroVad(VAD / f"{name}.pte") as detector:
        got = detector.probabilities(Waveform(samples, rate))
    padded = np.pad(samples.astype(np.float64), (context, -len(samples) % window))
    loudness, expected = 0.0, []
    for start in range(0, len(samples), window):
        before, now = padded[start : start + context], padded[start + context : start + context + window]
        loudness = 0.5 * loudness + 0.5 * np.mean(now**2)
        score = 200 * loudness + 4 * np.mean(np.abs(before)) - 4
        expected.append(1 / (1 + math.exp(-score)))
    assert np.allclose(got, expected, atol=1e-5)
    assert expected[0] < 0.1
    assert expected[-2] > 0.9


def test_speech_goes_on_until_it_is_clearly_unlikely() -> None:
    class Played(SileroVad):
        def probabilities(self, waveform: Waveform) -> npt.NDArray[np.float32]:
            return np.array([0.1, 0.49, 0.5, 0.4, 0.36, 0.34, 0.45, 0.1], np.float32)

    samples = Waveform(np.zeros(8 * 512, np.float32), RATE)
    options: dict[str, Any] = {"min_speech_duration_ms": 0, "min_silence_duration_ms": 0, "speech_pad_ms": 0}
    with Played(VAD / "vad.pte", **options) as detector:
        assert np.allclose(detector(samples), [(2 * 0.032, 5 * 0.032)])


def test_a_program_of_another_kind_is_refused() -> None:
    with pytest.raises(ContractError, match=r"forward: expected samples \(1, 576\) and a state"):
        SileroVad(VAD / "stateless.pte")
    with pytest.raises(ContractError, match="no such method"):
        SileroVad(FOLDER / "kv.pte")
    with SileroVad(VAD / "vad.pte") as detector:
        pass
    with pytest.raises(ExecutorchMMError, match="closed"):
        detector(Waveform(np.zeros(600, np.float32), RATE))


@pytest.mark.parametrize("make", [EnergyVad, lambda **options: SileroVad(VAD / "vad.pte", **options)])
def test_values_out_of_their_range_are_named(make: Callable[..., object]) -> None:
    for name in ("threshold", "min_speech_duration_ms", "min_silence_duration_ms", "speech_pad_ms"):
        for value in (-1, True, "1", float("nan"), 2**40):
            if name != "threshold" or value != 2**40 or make is not EnergyVad:
                with pytest.raises(InputError, match=name):
                    make(**{name: value})


@st.composite
def regions_of(draw: st.DrawFn) -> tuple[int, list[tuple[float, float]]]:
    cuts = draw(st.lists(st.integers(0, 300), max_size=12, unique=True))
    cuts = sorted(cuts)[: len(cuts) // 2 * 2]
    size = draw(st.integers(max([1, *cuts]), 320))
    return size * 100, [(a / 160, b / 160) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]


@settings(max_examples=200, deadline=None)
@given(regions_of(), st.sampled_from([0.0, 0.3, 1.0, 5.0]))
def test_parts_hold_all_regions_at_their_times_and_fill_a_window(
    given_regions: tuple[int, list[tuple[float, float]]], window: float
) -> None:
    size, regions = given_regions
    samples = np.arange(size, dtype=np.float32)
    parts = parts_of(Waveform(samples, RATE), regions, window)
    ends = [part.start + len(part.waveform.samples) / RATE for part in parts]
    for part in parts:
        first = round(part.start * RATE)
        assert np.array_equal(part.waveform.samples, samples[first : first + len(part.waveform.samples)])
        assert part.placed(Partial("a", 0.1, 0.0)).start == pytest.approx(part.start + 0.1)
    for start, end in regions:
        [at] = [i for i, part in enumerate(parts) if part.start <= start + 1e-9 and end <= ends[i] + 1e-9]
        is_first, is_last = parts[at].start == pytest.approx(start), ends[at] == pytest.approx(end)
        assert (is_first and is_last) or ends[at] - parts[at].start <= window + 1e-9
    for index in range(1, len(parts)):
        next_end = next(end for start, end in regions if start == pytest.approx(parts[index].start))
        assert next_end - parts[index - 1].start > window - 1e-9
    assert sum(ends) - sum(part.start for part in parts) >= sum(b - a for a, b in regions) - 1e-9


def test_a_pause_is_left_out_and_what_stands_behind_it_keeps_its_time(runner: SpeechRunner) -> None:
    alone = runner.transcribe(clip("other"), PLAIN, sampling_rate=RATE)
    late = np.concatenate([noise(50, 1e-5), clip("other"), noise(40, 1e-5)])
    regions = [(50.0, 50.0 + alone.duration)]
    result = runner.transcribe(late, PLAIN, sampling_rate=RATE, vad_filter=lambda _: regions)
    assert (result.duration, result.duration_after_vad) == (99.5, 9.5)
    assert result.text == alone.text
    assert [(s.start - 50, s.end - 50) for s in result.segments] == [
        pytest.approx((s.start, s.end)) for s in alone.segments
    ]
    assert result.to_dict()["duration_after_vad"] == 9.5
    # once, not four times as without
    assert result.stats.encode_audio_ns < 2 * alone.stats.encode_audio_ns + 5e8

    found = runner.transcribe(late, PLAIN, sampling_rate=RATE, vad_filter=True)
    assert found.segments
    assert all(49.5 <= segment.start <= segment.end <= 60 for segment in found.segments)


def test_a_stream_of_parts_gives_the_segments_of_the_result_and_progress_of_the_clip(
    runner: SpeechRunner,
) -> None:
    short = clip("other")
    samples = np.concatenate([short, np.zeros(30 * RATE, np.float32), short])
    heard: list[tuple[float, float]] = []
    stream = runner.stream_transcribe(
        samples, PLAIN, sampling_rate=RATE, vad_filter=lambda _: [(0.0, 9.5), (39.5, 49.0)],
        progress=lambda done, total: heard.append((done, total)),
    )  # fmt: skip
    events = list(stream)
    assert stream.result is not None
    assert [event for event in events if isinstance(event, Segment)] == [*stream.result.segments]
    assert {event.start for event in events if isinstance(event, Partial)} <= {done for done, _ in heard}
    assert heard == sorted(heard)
    assert (heard[0], heard[-1]) == ((0.0, 49.0), (49.0, 49.0))
    starts = [segment.start for segment in stream.result.segments]
    assert min(starts) < 9.5
    assert max(starts) >= 39.5
    assert not any(9.5 < start < 39.5 for start in starts)


def test_what_was_said_before_a_pause_is_context_behind_it(runner: SpeechRunner) -> None:
    short = clip("other")
    samples = np.concatenate([short, np.zeros(30 * RATE, np.float32), short])
    texts = []
    for condition in (True, False):
        result = runner.transcribe(
            samples, PLAIN, sampling_rate=RATE, vad_filter=lambda _: [(0.0, 9.5), (39.5, 49.0)],
            condition_on_previous_text=condition,
        )  # fmt: skip
        texts.append(
            ["".join(s.text for s in result.segments if (s.start > 30) is late) for late in (False, True)]
        )
    assert texts[0][0] == texts[1][0] == texts[1][1] != texts[0][1]


def test_without_speech_the_model_is_not_asked(runner: SpeechRunner) -> None:
    heard: list[tuple[float, float]] = []
    result = runner.transcribe(
        noise(40, 0.1), sampling_rate=RATE, vad_filter=True, progress=lambda *at: heard.append(at)
    )
    assert (result.segments, result.text, result.duration, result.duration_after_vad) == ((), "", 40.0, 0.0)
    assert result.stats.finish_reason == "stop"
    assert result.stats.encode_audio_ns == 0
    assert heard == [(40.0, 40.0)]


def test_a_transducer_hears_the_parts_alone(runner: SpeechRunner) -> None:
    with SpeechRunner(FOLDER.parent / "transducer" / "tdt.pte", num_threads=1) as transducer:
        samples = noise(0.9, 0.1, seed=5)
        alone = transducer.transcribe(samples, sampling_rate=RATE)
        assert alone.segments
        late = np.concatenate([np.zeros(3 * RATE, np.float32), samples])
        result = transducer.transcribe(late, sampling_rate=RATE, vad_filter=lambda _: [(3.0, 3.9)])
        assert result.text == alone.text
        times = [time for segment in result.segments for time in segment.token_times]
        expected = [time for segment in alone.segments for time in segment.token_times]
        assert np.allclose(times, np.add(expected, 3.0))
    with (
        SpeechRunner(FOLDER.parent / "transducer" / "tdt_features.pte", num_threads=1) as transducer,
        pytest.raises(InputError, match="vad_filter: expected an audio clip"),
    ):
        transducer.transcribe(np.zeros((1, 12, 40), np.float32), vad_filter=True)


@pytest.mark.parametrize(
    "said",
    [
        None, 3, "ab", [1.0], [(0.0, 1.0, 2.0)], [(1.0, 0.5)], [(0.5, 1.0), (0.2, 2.0)],
        [(float("nan"), 1.0)], [(-1.0, 1.0)], [("a", "b")], {0.0: 1.0},
    ],
)  # fmt: skip
def test_what_a_detector_may_not_say(runner: SpeechRunner, said: Any) -> None:
    with pytest.raises(InputError, match="vad_filter: expected"):
        runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE, vad_filter=lambda _: said)
    assert runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE).text


def test_a_filter_is_a_bool_or_a_detector(tmp_path: Path) -> None:
    for value in (None, 1, "silero.pte", tmp_path):
        with pytest.raises(InputError, match="vad_filter: expected True, False or a detector"):
            SpeechConfig(vad_filter=value)  # type: ignore[arg-type]
