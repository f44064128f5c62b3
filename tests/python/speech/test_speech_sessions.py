"""Several transcriptions over one load are each what a runner alone hears."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from executorch_mm import (
    BusyError,
    ExecutorchMMError,
    InputError,
    QueueFullError,
    Segment,
    SpeechConfig,
    SpeechModel,
    SpeechRunner,
    SpeechSession,
)
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
