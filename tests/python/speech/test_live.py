"""Speech that is transcribed while it comes: what becomes final, in bounded memory, however it is cut."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_mm import (
    InputError,
    Partial,
    QueueFullError,
    Segment,
    SpeechConfig,
    SpeechRunner,
)
from executorch_mm.preprocess import Waveform
from executorch_mm.speech._live_audio import LiveAudio
from executorch_mm.speech._live_windows import WindowedLive
from executorch_mm.speech.transcription import Transcription
from executorch_mm.stats import Stats
from speech_cases import FOLDER, RATE, clip

Samples = npt.NDArray[np.float32]
CONFIG = SpeechConfig(temperature=0.0, no_speech_threshold=None, max_new_tokens=8, language="en")


def voice(seconds: float) -> Samples:
    """A tone that comes and goes four times a second."""
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 600 * t) * (0.5 - 0.5 * np.cos(8 * np.pi * t))).astype(np.float32)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


class Listener:
    """Stands in for a model: says one word for each whole second of a clip that has a voice in it."""

    def __init__(self, rate: int = RATE) -> None:
        self.rate = rate
        self.heard: list[tuple[float, str | None]] = []
        self.prompts: list[str | None] = []
        self.finish_reason = "stop"

    def __call__(self, audio: Waveform, config: SpeechConfig) -> Transcription:
        seconds = len(audio.samples) / self.rate
        self.heard.append((seconds, config.language))
        self.prompts.append(config.prompt)
        segments = []
        for second in range(max(1, int(seconds))):
            part = audio.samples[second * self.rate : (second + 1) * self.rate]
            if np.abs(part).max(initial=0) > 0.01:
                level = round(float(np.abs(part[: self.rate // 10]).sum()))
                segments.append(Segment(f" w{level}", float(second), min(second + 1.0, seconds)))
        text = "".join(segment.text for segment in segments)
        stats = Stats(finish_reason=self.finish_reason)
        return Transcription(text, tuple(segments), "en", seconds, stats)


def live(listener: Listener, **options: Any) -> WindowedLive:
    given = {"longest": 10.0, "step_seconds": 0.5, "pause_seconds": 0.8, "max_seconds_behind": 5.0} | options
    config = given.pop("config", SpeechConfig())
    return WindowedLive(
        listener, LiveAudio(RATE, 1, RATE), config, RATE, takes_prompt=True, **given
    )  # fmt: skip


def segments_of(events: list[Any]) -> list[Segment]:
    return [event for event in events if isinstance(event, Segment)]


def test_what_two_hypotheses_agree_on_is_final_and_the_rest_may_change() -> None:
    listener = Listener()
    transcription = live(listener)
    events = []
    for number in range(10):
        made = transcription.feed(voice(0.5))
        assert [event for event in made if isinstance(event, Partial)] == made[len(segments_of(made)) :]
        events += made
        assert listener.heard[-1][0] <= 3.1  # what is final is not heard again
        assert transcription.seconds == (number + 1) / 2
    final = segments_of(events)
    assert len(final) >= 3
    assert [segment.start for segment in final] == [float(second) for second in range(len(final))]
    events += transcription.flush()
    assert [(one.start, one.end) for one in segments_of(events)] == [(i, i + 1.0) for i in range(5)]


def test_a_pause_makes_all_before_it_final_and_silence_is_not_heard() -> None:
    listener = Listener()
    transcription = live(listener)
    transcription.feed(np.concatenate([silence(60), voice(1.5)]))
    assert len(listener.heard) == 3
    made = transcription.feed(silence(1.5))
    assert segments_of(made)
    assert isinstance(made[-1], Segment)  # nothing is left that may change
    assert segments_of(made)[0].start == pytest.approx(60, abs=0.35)
    calls = len(listener.heard)
    assert transcription.feed(silence(120)) == []
    assert len(listener.heard) == calls
    later = segments_of(transcription.feed(np.concatenate([voice(1), silence(2)])))
    assert later[0].start == pytest.approx(183, abs=0.35)
    assert transcription.flush() == []


def test_a_speaker_without_pauses_or_sentences_is_cut_where_the_model_hears_no_more() -> None:
    class OneSentence(Listener):
        def __call__(self, audio: Waveform, config: SpeechConfig) -> Transcription:
            seconds = len(audio.samples) / RATE
            self.heard.append((seconds, None))
            segment = Segment(f" {len(self.heard)}", 0.0, seconds)
            return Transcription(segment.text, (segment,), None, seconds, Stats(finish_reason="stop"))

    listener = OneSentence()
    transcription = live(listener)
    final = segments_of(transcription.feed(voice(60)))
    assert len(final) >= 5
    assert max(seconds for seconds, _ in listener.heard) <= 10
    assert all(a.end <= b.start + 1e-6 for a, b in itertools.pairwise(final))


def test_memory_is_bounded_however_long_the_audio() -> None:
    listener = Listener()
    transcription = live(listener, step_seconds=2.0)
    block = np.concatenate([voice(20), silence(40)])
    most = 0
    for _ in range(12):
        transcription.feed(block)
        most = max(most, len(transcription._kept), len(transcription._said))
    assert transcription.seconds == 720
    assert most <= 15 * RATE
    assert transcription.seconds_behind == 0
    assert all(seconds <= 10 for seconds, _ in listener.heard)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 30_000), max_size=12), st.sampled_from(["floats", "int16", "bytes"]))
def test_how_audio_is_cut_makes_no_difference(cuts: list[int], kind: str) -> None:
    integers = np.round(np.concatenate([voice(1.2), silence(1.1), voice(0.9)]) * 32767).astype("<i2")
    whole = live(Listener())
    expected = [*whole.feed(integers.astype(np.int16)), *whole.flush()]
    assert segments_of(expected)
    transcription = live(Listener())
    events: list[Any] = []
    data = integers.tobytes()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(integers)], strict=True):
        chunk: Any = integers[start:end].astype(np.int16)
        if kind == "floats":
            chunk = (chunk / np.float32(32768)).astype(np.float32)
        elif kind == "bytes":  # cut within samples too
            chunk = data[2 * start - start % 2 : 2 * end - end % 2 if end < len(integers) else len(data)]
        events += transcription.feed(chunk)
    events += transcription.flush()
    assert events == expected


def test_a_model_that_does_not_keep_up_is_said_and_catches_up_in_one_step() -> None:
    listener = Listener()
    transcription = live(listener)
    for _ in range(10):
        transcription.push(voice(0.5))
    assert transcription.seconds_behind == 5.0
    with pytest.raises(QueueFullError, match=r"5\.0 s of audio wait"):
        transcription.push(voice(0.5))
    assert transcription.step()
    assert len(listener.heard) == 1
    assert transcription.seconds_behind == 0
    assert transcription.step() == []
    transcription.push(voice(0.5))
    assert "0.5 s behind" in repr(transcription)


def test_what_was_said_is_shown_to_the_model_and_the_language_is_kept() -> None:
    listener = Listener()
    transcription = live(listener, config=SpeechConfig(prompt="names"))
    for _ in range(40):
        transcription.feed(np.concatenate([voice(1), silence(2)]))
    assert listener.heard[0][1] is None
    assert {language for _, language in listener.heard[3:]} == {"en"}
    assert transcription.language == "en"
    assert listener.prompts[0] == "names"
    assert all(prompt is not None and len(prompt) <= 210 for prompt in listener.prompts)
    alone = Listener()
    transcription = live(alone, config=SpeechConfig(condition_on_previous_text=False))
    for _ in range(3):
        transcription.feed(np.concatenate([voice(1), silence(2)]))
    assert set(alone.prompts) == {None}


def test_a_stop_leaves_what_was_not_final_to_the_next_step() -> None:
    listener = Listener()
    transcription = live(listener)
    listener.finish_reason = "cancelled"
    assert transcription.feed(voice(1.0)) == []
    listener.finish_reason = "stop"
    assert segments_of(transcription.flush())


def test_streams_read_chunks_as_they_come_and_flush() -> None:
    chunks = [voice(0.5), voice(0.5), silence(1.5), voice(0.7)]
    expected = []
    transcription = live(Listener())
    for chunk in chunks:
        expected += transcription.feed(chunk)
    expected += transcription.flush()
    assert [*live(Listener()).stream(iter(chunks))] == expected

    async def microphone() -> AsyncIterator[Samples]:
        for chunk in chunks:
            await asyncio.sleep(0)
            yield chunk

    async def collect() -> list[Any]:
        return [event async for event in live(Listener()).astream(microphone())]

    assert asyncio.run(collect()) == expected


def test_chunks_at_another_rate_are_resampled_without_seams() -> None:
    soxr = pytest.importorskip("soxr")
    samples = (0.3 * np.sin(np.arange(48_000) * 0.05)).astype(np.float32)
    audio = LiveAudio(48_000, 1, RATE)
    parts = [audio.samples(samples[start : start + 777]) for start in range(0, len(samples), 777)]
    whole = np.concatenate([*parts, audio.finish()])
    assert np.allclose(whole, soxr.resample(samples, 48_000, RATE), atol=1e-4)


def test_bytes_of_several_channels_are_averaged() -> None:
    pairs = np.array([[100, 300], [-200, -400], [0, 32_000]], "<i2")
    audio = LiveAudio(RATE, 2, RATE)
    data = pairs.tobytes()
    made = np.concatenate([audio.samples(data[:5]), audio.samples(memoryview(data)[5:])])
    assert np.allclose(made, np.array([200, -300, 16_000]) / 32768)


# On a model.


@pytest.fixture(scope="module")
def runner() -> Iterator[SpeechRunner]:
    with SpeechRunner(FOLDER / "kv.pte", num_threads=1) as runner:
        yield runner


def test_a_model_writes_what_it_hears_in_the_part(runner: SpeechRunner) -> None:
    with runner.live(CONFIG, sampling_rate=RATE, step_seconds=2.0) as transcription:
        events = transcription.feed(np.concatenate([silence(3), voice(3), silence(2)]))
        events += transcription.flush()
    found = segments_of(events)
    assert found
    assert all(2.5 <= segment.start <= segment.end <= 8 for segment in found)
    with pytest.raises(InputError, match="closed"):
        transcription.push(voice(1))
    assert runner.transcribe(clip("short"), CONFIG, sampling_rate=RATE).text  # the runner is free


def test_a_transducer_is_heard_live_too() -> None:
    with SpeechRunner(FOLDER.parent / "transducer" / "tdt.pte", num_threads=1) as transducer:
        loud = np.random.default_rng(3).normal(0, 0.1, RATE // 2).astype(np.float32)
        with transducer.live(sampling_rate=RATE, step_seconds=0.2, vad_filter=all_of_it) as transcription:
            events = [*transcription.feed(loud), *transcription.flush()]
        assert segments_of(events)
        assert transcription.seconds == 0.5
    with (
        SpeechRunner(FOLDER.parent / "transducer" / "tdt_features.pte", num_threads=1) as transducer,
        pytest.raises(InputError, match="live: expected a model that takes audio"),
    ):
        transducer.live(sampling_rate=RATE)


def all_of_it(audio: Waveform) -> list[tuple[float, float]]:
    return [(0.0, len(audio.samples) / audio.sampling_rate)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_rate": 0}, "sampling_rate: expected"),
        ({"sampling_rate": "16000"}, "sampling_rate: expected"),
        ({"channels": 9}, "channels: expected 1 to 8"),
        ({"step_seconds": 11.0}, "step_seconds: expected 0.1 to 10 seconds"),
        ({"pause_seconds": float("nan")}, "pause_seconds: expected"),
        ({"max_seconds_behind": True}, "max_seconds_behind: expected"),
        ({"language": "fr"}, "language: expected"),
        ({"word_timestamps": True}, "word_timestamps: the program"),
    ],
)
def test_wrong_options_are_named(runner: SpeechRunner, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        runner.live(**({"sampling_rate": RATE} | options))


@pytest.mark.parametrize(
    "chunk", ["text", None, 3, np.zeros((9, 9)), np.full(5, np.nan), Waveform(voice(1), 8000)]
)
def test_what_is_no_chunk_is_refused_and_nothing_is_lost(runner: SpeechRunner, chunk: Any) -> None:
    with runner.live(CONFIG, sampling_rate=RATE) as transcription:
        transcription.push(voice(0.2))
        with pytest.raises(InputError):
            transcription.feed(chunk)
        with pytest.raises(InputError, match="chunks: expected"):
            transcription.stream(np.asarray(0.5) if isinstance(chunk, np.ndarray) else chunk)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="chunks: expected an asynchronous"):
            transcription.astream(chunk)
        assert transcription.seconds_behind == 0.2


def test_a_path_is_no_chunk(runner: SpeechRunner) -> None:
    with runner.live(CONFIG, sampling_rate=RATE) as transcription, pytest.raises(InputError):
        transcription.push(Path("speech.wav"))
