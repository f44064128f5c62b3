"""Several transcriptions over one load are each what a runner alone hears."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    BusyError,
    EnergyVad,
    ExecutorchMMError,
    InputError,
    QueueFullError,
    Segment,
    SpeechConfig,
    SpeechModel,
    SpeechRunner,
    SpeechSession,
)
from executorch_mm.preprocess import Waveform
from executorch_mm.speech._requests import SpeechRequest
from speech_cases import FOLDER, KINDS, RATE, clip

CONFIG = SpeechConfig(
    temperature=0.0, compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None,
    max_new_tokens=14, language="en",
)  # fmt: skip
CLIPS = ("short", "other", "long")


def heard(runner: Any, name: str) -> tuple[Segment, ...]:
    segments: tuple[Segment, ...] = runner.transcribe(clip(name), CONFIG, sampling_rate=RATE).segments
    return segments


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alone(kind: str) -> dict[str, tuple[Segment, ...]]:
    with SpeechRunner(FOLDER / f"{kind}.pte", num_threads=1) as runner:
        made = {name: heard(runner, name) for name in CLIPS}
    assert len({segments[0].tokens for segments in made.values()}) == 3
    return made


@pytest.fixture
def model(kind: str) -> Iterator[SpeechModel]:
    with SpeechModel(FOLDER / f"{kind}.pte", num_threads=1) as model:
        yield model


def test_sessions_of_a_model_in_a_process_of_its_own_hear_what_each_hears_alone(
    kind: str, alone: dict[str, tuple[Segment, ...]]
) -> None:
    with (
        SpeechModel(FOLDER / f"{kind}.pte", num_threads=1, isolate=True) as model,
        model.session() as first,
        model.session() as second,
    ):
        for name in CLIPS:
            assert heard(first, name) == heard(second, name) == alone[name]


def test_streams_read_in_turns_hear_what_each_hears_alone(
    model: SpeechModel, alone: dict[str, tuple[Segment, ...]]
) -> None:
    with contextlib.ExitStack() as stack:
        streams = {}
        for name in CLIPS:
            session = stack.enter_context(model.session())
            streams[name] = session.stream_transcribe(clip(name), CONFIG, sampling_rate=RATE)
        waiting = dict(streams)
        while waiting:
            for name in list(waiting):
                if next(waiting[name], None) is None:
                    del waiting[name]
        for name, stream in streams.items():
            assert stream.result is not None
            assert stream.result.segments == alone[name]


def test_threads_and_tasks_hear_what_each_hears_alone(
    kind: str, alone: dict[str, tuple[Segment, ...]]
) -> None:
    with SpeechModel(FOLDER / f"{kind}.pte", num_threads=1) as model:
        found: dict[str, tuple[Segment, ...]] = {}

        def listen(name: str) -> None:
            with model.session() as session:
                found[name] = heard(session, name)

        threads = [threading.Thread(target=listen, args=[name]) for name in CLIPS]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == alone

        async def listen_too() -> list[Any]:
            sessions = [model.session(priority=number) for number in range(3)]
            return await asyncio.gather(
                *(
                    session.atranscribe(clip(name), CONFIG, sampling_rate=RATE)
                    for session, name in zip(sessions, CLIPS, strict=True)
                )
            )

        assert {
            name: result.segments for name, result in zip(CLIPS, asyncio.run(listen_too()), strict=True)
        } == alone


def test_a_session_that_ends_early_changes_nothing_for_another(
    model: SpeechModel, alone: dict[str, tuple[Segment, ...]]
) -> None:
    with model.session() as one, model.session() as other:
        stream = one.stream_transcribe(clip("long"), CONFIG, sampling_rate=RATE)
        left = other.stream_transcribe(clip("other"), CONFIG, sampling_rate=RATE)
        next(stream)
        next(left)
        left.close()
        assert other.stats.finish_reason == "cancelled"
        next(stream)
        other.close()
        list(stream)
        assert stream.result is not None
        assert stream.result.segments == alone["long"]
        assert heard(one, "short") == alone["short"]


def test_a_session_serves_one_request_and_a_model_as_many_as_it_may() -> None:
    with SpeechModel(FOLDER / "kv.pte", num_threads=1, max_requests=1) as model:
        one, other = model.session(), model.session()
        stream = one.stream_transcribe(clip("short"), CONFIG, sampling_rate=RATE)
        next(stream)
        assert model.num_requests == 1
        with pytest.raises(BusyError, match="session is in use"):
            heard(one, "short")
        with pytest.raises(QueueFullError, match="max_requests: 1"):
            heard(other, "short")
        assert "2 sessions" in repr(model)
        with pytest.raises(BusyError):
            model.close()
        stream.close()
        assert heard(one, "short")
        assert heard(model.session(), "short")
        assert one.languages == ("en", "zh", "de", "es")
        assert one.sampling_rate == RATE


def test_what_ends_with_the_model(kind: str, alone: dict[str, tuple[Segment, ...]]) -> None:
    model = SpeechModel.from_pretrained(FOLDER, model_file=f"{kind}.pte", num_threads=1)
    session = model.session()
    assert heard(session, "short") == alone["short"]
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(session)
    model.close()
    model.close()
    for call in (lambda: heard(session, "short"), model.session, lambda: model.tokenizer):
        with pytest.raises(ExecutorchMMError, match="closed"):
            call()
    with pytest.raises(InputError, match=r"model.session\(\)"):
        SpeechSession()


def test_what_is_no_priority_and_no_number_of_requests_is_refused() -> None:
    with SpeechModel(FOLDER / "kv.pte", num_threads=1) as model:
        for priority in (None, True, 2**40, "first"):
            with pytest.raises(InputError, match="priority: expected"):
                model.session(priority=priority)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="max_requests"):
        SpeechModel(FOLDER / "kv.pte", max_requests=0)


@pytest.mark.parametrize(("num_sessions", "prefetch"), [(1, 0), (2, 1)])
def test_many_clips_shared_by_sessions_are_heard_in_order_as_alone(
    model: SpeechModel, alone: dict[str, tuple[Segment, ...]], num_sessions: int, prefetch: int
) -> None:
    names = ["other", *CLIPS]
    asked = []

    def clips() -> Iterator[Any]:
        for name in names:
            asked.append(threading.current_thread())
            yield clip(name)

    made = model.map(clips(), CONFIG, sampling_rate=RATE, num_sessions=num_sessions, prefetch=prefetch)
    assert asked == []
    results = [next(made)]
    assert len(asked) == num_sessions + prefetch
    assert {*asked} == {threading.current_thread()}
    results += made

    assert [result.segments for result in results] == [alone[name] for name in names]
    assert all("closed" in repr(session) for session in model._sessions)


def silent_between(*names: str) -> Any:
    """Clips with four seconds of silence between them."""
    silence = np.zeros(4 * RATE, np.float32)
    return np.concatenate([part for name in names for part in (silence, clip(name))])


def test_windows_of_several_clips_are_in_flight_where_silence_is_passed_over() -> None:
    """Detectors of two clips wait for each other: that ends only where both are heard at the same time."""
    meeting = threading.Barrier(2)

    def detect(waveform: Waveform) -> list[tuple[float, float]]:
        meeting.wait(60)
        return EnergyVad()(waveform)

    clips = [
        silent_between(*names) for names in (("short", "other"), ("other",), ("short",), ("other", "short"))
    ]
    with SpeechModel(FOLDER / "kv.pte", num_threads=1) as model:
        with model.session() as session:
            alone = [session.transcribe(one, CONFIG, sampling_rate=RATE, vad_filter=True) for one in clips]
        results = [
            *model.map(clips, CONFIG, sampling_rate=RATE, num_sessions=2, prefetch=0, vad_filter=detect)
        ]

    assert [result.segments for result in results] == [result.segments for result in alone]
    assert all(result.segments for result in results)
    assert [result.duration_after_vad for result in results] == [one.duration_after_vad for one in alone]
    assert all(0 < (result.duration_after_vad or 0) < result.duration - 3 for result in results)


def test_errors_of_single_clips_are_values_where_asked_for() -> None:
    with SpeechModel(FOLDER / "kv.pte", num_threads=1) as model:
        clips: list[Any] = [clip("short"), "no.wav", clip("other")]
        options: dict[str, Any] = {"sampling_rate": RATE, "num_sessions": 2}
        first, none, last = model.map(clips, CONFIG, on_error="return", **options)
        assert isinstance(none, InputError)
        for result in (first, last):
            assert not isinstance(result, ExecutorchMMError)
            assert result.segments

        results = model.map(clips, CONFIG, **options)
        assert next(results).segments
        with pytest.raises(InputError, match=r"no\.wav"):
            next(results)
        assert next(results, None) is None
        assert all("closed" in repr(session) for session in model._sessions)


def test_leaving_early_stops_the_clips_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, stopped = threading.Event(), threading.Event()
    stop = SpeechSession.stop

    def stop_and_tell(session: SpeechSession) -> None:
        stop(session)
        stopped.set()

    def detect(waveform: Waveform) -> list[tuple[float, float]]:
        seconds = len(waveform.samples) / waveform.sampling_rate
        if seconds > 10:
            begun.set()
            assert stopped.wait(60)
        return [(0.0, seconds)]

    monkeypatch.setattr(SpeechSession, "stop", stop_and_tell)
    before = threading.active_count()
    with SpeechModel(FOLDER / "kv.pte", num_threads=1) as model:
        clips = [clip("short"), *[clip("long")] * 20]
        results = model.map(clips, CONFIG, sampling_rate=RATE, num_sessions=2, prefetch=0, vad_filter=detect)
        assert next(results).segments
        assert begun.wait(60)
        sessions = [*model._sessions]
        results.close()
        assert "cancelled" in {session.stats.finish_reason for session in sessions}
        assert all("closed" in repr(session) for session in sessions)
    assert threading.active_count() <= before


def test_a_clip_whose_turn_comes_after_a_stop_is_not_heard(
    model: SpeechModel, alone: dict[str, tuple[Segment, ...]]
) -> None:
    request = SpeechRequest(clip("short"), CONFIG, RATE, None)
    with model.session() as session:
        stopped = session._requests.whole(request, lambda: True)
        assert (stopped.segments, stopped.stats.finish_reason) == ((), "cancelled")
        assert session._requests.whole(request).segments == alone["short"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefetch": -1}, "prefetch: expected 0 to 1024, got -1"),
        ({"on_error": "ignore"}, "on_error: expected 'raise' or 'return', got 'ignore'"),
        ({"num_sessions": True}, "num_sessions: expected 1 to 256, got True"),
        ({"num_sessions": 257}, "num_sessions: expected 1 to 256, got 257"),
        ({"clips": "speech.wav"}, "clips: expected an iterable of clips, got 'speech.wav'"),
        ({"langage": "en"}, "did you mean language"),
    ],
)
def test_wrong_options_of_a_map_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with SpeechModel(FOLDER / "kv.pte", num_threads=1) as model, pytest.raises(InputError, match=message):
        model.map(**({"clips": [clip("short")]} | options))
