"""Transducers whose encoder takes chunks: clips, and audio that is heard while it comes."""

from __future__ import annotations

import asyncio
import math
import resource
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chunk_cases as cases
from chunk_cases import CLIPS, EXPECTED, HOP, NAMES, RATE, clip, expected, symbols
from executorch_mm import (
    BusyError,
    ExecutorchMMError,
    InputError,
    LiveTranscription,
    Partial,
    QueueFullError,
    Segment,
    SpeechRunner,
)
from executorch_mm.speech import transcription

WHOLE = 40_000  # samples of the first clip


@pytest.fixture(scope="module")
def runners() -> Iterator[dict[str, SpeechRunner]]:
    loaded = {name: cases.runner(name) for name in NAMES}
    yield loaded
    for each in loaded.values():
        each.close()


def heard(live: LiveTranscription, samples: npt.NDArray[np.float32], sizes: list[int]) -> list[Any]:
    """All that comes of a clip in parts of these sizes, over and over."""
    events: list[Any] = []
    start = number = 0
    while start < len(samples):
        end = start + sizes[number % len(sizes)]
        events += live.feed(samples[start:end])
        start, number = end, number + 1
    return events + live.flush()


@pytest.mark.parametrize(("name", "index"), CLIPS)
def test_a_clip_in_chunks_says_what_the_eager_model_says_of_the_whole(
    runners: dict[str, SpeechRunner], name: str, index: int
) -> None:
    samples = clip(name, index)
    made = runners[name].transcribe(samples, sampling_rate=RATE, word_timestamps=True)
    assert made.text == EXPECTED[name]["texts"][index]
    assert symbols(made.segments) == [pytest.approx(symbol) for symbol in expected(name, index)]
    assert "".join(word.word for word in made.words) == made.text
    assert made.duration == len(samples) / RATE
    assert made.stats.num_prompt_tokens == EXPECTED[name]["num_frames"][index]
    assert made.stats.finish_reason == "stop"


@pytest.mark.parametrize(("name", "index"), CLIPS)
def test_audio_that_comes_in_chunks_says_the_same(
    runners: dict[str, SpeechRunner], name: str, index: int
) -> None:
    with runners[name].live(sampling_rate=RATE) as live:
        events = heard(live, clip(name, index), [1600])
        assert symbols(events) == [pytest.approx(symbol) for symbol in expected(name, index)]
        assert live.seconds == len(clip(name, index)) / RATE
    segments = [event for event in events if isinstance(event, Segment)]
    assert "".join(segment.text for segment in segments) == EXPECTED[name]["texts"][index]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 6000), min_size=1, max_size=12))
def test_how_audio_is_cut_makes_no_difference(
    runners: dict[str, SpeechRunner], name: str, sizes: list[int]
) -> None:
    samples = clip(name, 1)
    sizes = [*sizes, 4000]  # not one sample at a time throughout: that takes long
    with runners[name].live(sampling_rate=RATE) as one, runners[name].live(sampling_rate=RATE) as other:
        assert heard(one, samples, sizes) == heard(other, samples, [len(samples)])


@pytest.mark.parametrize("name", NAMES)
def test_features_of_a_stream_are_those_of_the_whole_clip(
    runners: dict[str, SpeechRunner], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from executorch_mm.speech._chunks import Chunks

    pieces: list[npt.NDArray[np.float32]] = []
    push = Chunks.push
    monkeypatch.setattr(Chunks, "push", lambda self, columns: (pieces.append(columns), push(self, columns)))
    samples = clip(name, 1)[:20_013]
    with runners[name].live(sampling_rate=RATE) as live:
        heard(live, samples, [7, 993])
    core = runners[name]._requests.session
    core.begin_request()
    whole = core.features(samples)
    np.testing.assert_array_equal(np.concatenate(pieces, axis=2), whole)


@pytest.mark.parametrize("name", NAMES)
def test_a_chunk_is_heard_as_soon_as_its_columns_are_there(
    runners: dict[str, SpeechRunner], name: str
) -> None:
    made = EXPECTED[name]
    chunk_columns = made["chunk_frames"] * 4
    samples = clip(name, 0)
    with runners[name].live(sampling_rate=RATE) as live:
        for number in (1, 2, 3):
            # The window of the preprocessor reaches 200 samples beyond a column: it lacks one.
            needed = (number * chunk_columns + made["look_ahead"] + 1) * HOP
            start = round(live.seconds * RATE)
            live.feed(samples[start : needed - 160])
            assert live._chunks.num_frames == (number - 1) * made["chunk_frames"]
            live.feed(samples[needed - 160 : needed])
            assert live._chunks.num_frames == number * made["chunk_frames"]
    delay = (needed / RATE) - 3 * made["chunk_frames"] * made["frame_seconds"]
    assert delay == pytest.approx(0.01 * (made["look_ahead"] + 1))


def test_what_was_said_only_grows(runners: dict[str, SpeechRunner]) -> None:
    with runners["rnnt_caches"].live(sampling_rate=RATE) as live:
        before = ""
        for event in heard(live, clip("rnnt_caches", 0), [1600]):
            assert event.text.startswith(before)
            before = event.text if isinstance(event, Partial) else ""


def test_audio_behind_a_flush_is_a_new_stream_whose_times_go_on(runners: dict[str, SpeechRunner]) -> None:
    name = "rnnt_caches"
    with runners[name].live(sampling_rate=RATE) as live:
        first = heard(live, clip(name, 3), [1600])
        second = heard(live, clip(name, 3), [1600])
        assert live.flush() == []
    duration = len(clip(name, 3)) / RATE
    assert symbols(second) == [
        pytest.approx((token, start + duration, end + duration)) for token, start, end in symbols(first)
    ]
    assert second[-1].text == f" {first[-1].text}"  # the next word


@pytest.mark.parametrize("name", NAMES)
def test_streams_and_clips_over_one_load_know_nothing_of_each_other(name: str) -> None:
    with cases.model(name) as loaded, loaded.session() as one, loaded.session() as other:
        lives = [one.live(sampling_rate=RATE), one.live(sampling_rate=RATE), other.live(sampling_rate=RATE)]
        indices = [0, 1, 2]
        events: list[list[Any]] = [[], [], []]
        for start in range(0, WHOLE, 2000):
            for i, live in enumerate(lives):
                events[i] += live.feed(clip(name, indices[i])[start : start + 2000])
            made = one.transcribe(clip(name, 3), sampling_rate=RATE)
            assert symbols(made.segments) == [pytest.approx(symbol) for symbol in expected(name, 3)]
        for i, live in enumerate(lives):
            events[i] += live.flush()
            assert symbols(events[i]) == [pytest.approx(symbol) for symbol in expected(name, indices[i])]


def test_sessions_hear_at_the_same_time() -> None:
    name = "tdt_buffers"
    with cases.model(name) as loaded:
        sessions = [loaded.session() for _ in range(4)]
        found: dict[int, list[Any]] = {}

        def hear(number: int) -> None:
            with sessions[number].live(sampling_rate=RATE) as live:
                found[number] = heard(live, clip(name, number % 2), [1500 + number])

        threads = [threading.Thread(target=hear, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(4):
        assert symbols(found[number]) == [pytest.approx(symbol) for symbol in expected(name, number % 2)]


def test_a_stop_ends_the_step_and_the_next_one_goes_on(
    runners: dict[str, SpeechRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    from executorch_mm.speech._sentences import Sentences

    name = "rnnt_caches"
    push, count = Sentences.push, 0

    def push_and_stop(self: Sentences, symbol: Any) -> Segment | None:
        nonlocal count
        count += 1
        if count in (3, 20):
            runners[name].stop()
        return push(self, symbol)

    monkeypatch.setattr(Sentences, "push", push_and_stop)
    with runners[name].live(sampling_rate=RATE) as live:
        live.push(clip(name, 0))
        events = live.step()
        assert runners[name].stats.finish_reason == "cancelled"
        assert count == 3
        events += live.flush()
        assert count == 20
        events += live.flush()
    assert symbols(events) == [pytest.approx(symbol) for symbol in expected(name, 0)]


def test_audio_behind_a_flush_that_was_stopped_is_heard_behind_it(
    runners: dict[str, SpeechRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    from executorch_mm.speech._sentences import Sentences

    name, push = "rnnt_caches", Sentences.push
    with runners[name].live(sampling_rate=RATE) as live:

        def push_and_stop(self: Sentences, symbol: Any) -> Segment | None:
            runners[name].stop()
            return push(self, symbol)

        live.push(clip(name, 3))
        with monkeypatch.context() as patched:
            patched.setattr(Sentences, "push", push_and_stop)
            events = live.flush()  # a symbol or two
            assert runners[name].stats.finish_reason == "cancelled"
        events += live.feed(clip(name, 3))
        events += live.flush()
    duration = len(clip(name, 3)) / RATE
    wanted = expected(name, 3)
    assert symbols(events) == [pytest.approx(symbol) for symbol in wanted] + [
        pytest.approx((token, start + duration, end + duration)) for token, start, end in wanted
    ]


def test_a_timeout_leaves_the_rest_for_the_next_step(runners: dict[str, SpeechRunner]) -> None:
    name = "rnnt_caches"
    with runners[name].live(sampling_rate=RATE, timeout=1e-9) as live:
        assert heard(live, clip(name, 2), [1600]) == []
        assert runners[name].stats.finish_reason == "timeout"
    assert runners[name].transcribe(clip(name, 2), sampling_rate=RATE, timeout=1e-9).text == ""


def test_a_busy_runner_loses_no_audio(runners: dict[str, SpeechRunner]) -> None:
    name = "rnnt_caches"
    with runners[name].live(sampling_rate=RATE) as live:
        with closing(runners[name].stream_transcribe(clip(name, 1), sampling_rate=RATE)) as stream:
            next(stream)
            with pytest.raises(BusyError):
                live.feed(clip(name, 3))
        assert symbols(live.flush()) == [pytest.approx(symbol) for symbol in expected(name, 3)]


def test_where_steps_come_too_late_no_more_is_taken(runners: dict[str, SpeechRunner]) -> None:
    name = "rnnt_caches"
    with runners[name].live(sampling_rate=RATE, max_seconds_behind=0.5) as live:
        for start in range(0, 8000, 2000):
            live.push(clip(name, 3)[start : start + 2000])
        with pytest.raises(QueueFullError, match="does not keep up"):
            live.push(clip(name, 3)[8000:])
        events = live.step()  # all of it at once
        assert live.seconds_behind == 0
        live.push(clip(name, 3)[8000:])
        events += live.flush()
    assert symbols(events) == [pytest.approx(symbol) for symbol in expected(name, 3)]


def test_a_task_hears_chunks_too(runners: dict[str, SpeechRunner]) -> None:
    name = "tdt_buffers"

    async def chunks() -> AsyncIterator[npt.NDArray[np.float32]]:
        for start in range(0, len(clip(name, 1)), 3000):
            yield clip(name, 1)[start : start + 3000]

    async def hear() -> list[Any]:
        with runners[name].live(sampling_rate=RATE) as live:
            return [event async for event in live.astream(chunks())]

    assert symbols(asyncio.run(hear())) == [pytest.approx(symbol) for symbol in expected(name, 1)]


def test_features_are_heard_in_chunks_too(runners: dict[str, SpeechRunner]) -> None:
    name = "tdt_buffers"
    core = runners[name]._requests.session
    core.begin_request()
    columns = core.features(clip(name, 3))
    made = runners[name].transcribe(columns)
    assert [token for token, *_ in symbols(made.segments)] == [token for token, *_ in expected(name, 3)]
    with pytest.raises(InputError, match=r"expected features \(1, 12, columns\), got \(1, 11, 61\)"):
        runners[name].transcribe(columns[:, 1:])


def test_progress_goes_from_chunk_to_chunk(runners: dict[str, SpeechRunner]) -> None:
    seconds: list[tuple[float, float]] = []
    runners["rnnt_caches"].transcribe(
        clip("rnnt_caches", 1), sampling_rate=RATE, progress=lambda *both: seconds.append(both)
    )
    duration = len(clip("rnnt_caches", 1)) / RATE
    assert seconds[0] == (0.0, duration)
    assert seconds[-1] == (duration, duration)
    assert seconds == sorted(seconds)
    assert len(seconds) == 2 + math.ceil(duration / 0.16)


def test_a_voice_detector_works_on_clips_and_is_refused_live(runners: dict[str, SpeechRunner]) -> None:
    name = "rnnt_caches"

    def detect(_audio: object) -> list[tuple[float, float]]:
        return [(0.0, 0.3), (0.5, 1.0)]

    made = runners[name].transcribe(clip(name, 0), sampling_rate=RATE, vad_filter=detect)
    assert isinstance(made, transcription.Transcription)
    assert made.duration_after_vad == pytest.approx(0.8)
    with pytest.raises(InputError, match="vad_filter: an encoder of chunks"):
        runners[name].live(sampling_rate=RATE, vad_filter=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pause_seconds": 0.0}, "pause_seconds: expected 0.1 to 10 seconds"),
        ({"step_seconds": 0.0}, "step_seconds: expected 0.1"),
        ({"max_seconds_behind": 0}, "max_seconds_behind: expected"),
        ({"language": "en"}, "language: a transducer"),
        ({"prompt": "x"}, "prompt: a transducer"),
    ],
)
def test_wrong_options_are_named(
    runners: dict[str, SpeechRunner], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        runners["rnnt_caches"].live(sampling_rate=RATE, **options)


def test_a_closed_runner_hears_nothing_more() -> None:
    runner = cases.runner("rnnt_caches")
    live = runner.live(sampling_rate=RATE)
    live.feed(clip("rnnt_caches", 3))
    runner.close()
    with pytest.raises(ExecutorchMMError, match="closed"):
        live.flush()


def test_a_stream_of_another_model_is_refused(runners: dict[str, SpeechRunner]) -> None:
    one, other = (runners[name]._requests.session for name in NAMES)
    with pytest.raises(InputError, match="stream: expected one of this model"):
        one.resume(other.new_stream())
    made = runners[NAMES[0]].transcribe(clip(NAMES[0], 3), sampling_rate=RATE)
    assert symbols(made.segments) == [pytest.approx(symbol) for symbol in expected(NAMES[0], 3)]


def hear_for(live: LiveTranscription, seconds: int) -> int:
    """Endless audio; returns the symbols that came."""
    second = clip("rnnt_caches", 0)[:RATE]
    return sum(len(symbols(live.feed(second))) for _ in range(seconds))


def test_audio_without_an_end_takes_no_more_memory(runners: dict[str, SpeechRunner]) -> None:
    with runners["rnnt_caches"].live(sampling_rate=RATE) as live:
        assert hear_for(live, 35)  # as long as a segment gets
        tracemalloc.start()
        hear_for(live, 2)
        before = tracemalloc.get_traced_memory()[0]
        hear_for(live, 30)
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
    assert after - before < 64 * 1024  # 30 s of samples are 1.9 MB


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_an_hour_takes_no_more_memory() -> None:
    with cases.runner("rnnt_caches") as runner, runner.live(sampling_rate=RATE) as live:
        hear_for(live, 120)
        resident = [resident_bytes()]
        for _ in range(2):
            hear_for(live, 1800)
            resident.append(resident_bytes())
        # A heap that other tests left in pieces grows once; what is kept of the audio would do so each time.
        assert min(after - before for before, after in pairwise(resident)) < 2 << 20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()
