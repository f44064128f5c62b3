"""Programs whose decoder takes tokens of several windows in one call: each is heard as it is alone."""

from __future__ import annotations

import itertools
import json
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from executorch_mm import (
    ExecutorchMMError,
    InputError,
    SpeechConfig,
    SpeechModel,
    SpeechRunner,
    Transcription,
)
from executorch_mm._engine.batch import Conversation, step_together
from executorch_mm.preprocess import Waveform
from speech_cases import FOLDER, RATE, clip

WORDS = FOLDER.parent / "speech_words"
# Of transformers, by tools/fixtures/speech/make_words.py.
EXPECTED: list[dict[str, Any]] = json.loads((WORDS / "expected.json").read_text())["requests"]
PLAIN = SpeechConfig(
    temperature=0.0, compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None,
    max_new_tokens=20, language="en", condition_on_previous_text=False, timestamps=True,
)  # fmt: skip


def samples_of(name: str, seconds: float) -> npt.NDArray[np.float32]:
    return clip(name)[: int(seconds * RATE)]


# Of one window and of two.
CLIPS: list[Any] = [
    samples_of(name, seconds)
    for name, seconds in [
        ("short", 4.0), ("other", 9.5), ("long", 36.0), ("long", 20.0), ("short", 2.0), ("other", 5.0),
    ]
]  # fmt: skip


def said(result: object) -> object:
    """All that the model had a part in."""
    assert isinstance(result, Transcription)
    return result.segments, result.language, result.stats.num_generated_tokens


@pytest.fixture(scope="module")
def model() -> Iterator[SpeechModel]:
    with SpeechModel(WORDS / "batched.pte", num_threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def alone() -> list[object]:
    with SpeechRunner(WORDS / "batched.pte", num_threads=1) as runner:
        return [said(runner.transcribe(each, PLAIN, sampling_rate=RATE)) for each in CLIPS]


@pytest.mark.parametrize("request_", EXPECTED, ids=lambda request: str(request["clip"]))
def test_a_clip_is_heard_as_by_transformers_with_the_same_times_of_tokens(
    request_: dict[str, Any], model: SpeechModel
) -> None:
    with SpeechRunner(WORDS / "words.pte", num_threads=1) as other, model.session() as session:
        samples = samples_of(request_["clip"], request_["seconds"])
        ours, theirs = (
            one.transcribe(samples, PLAIN, sampling_rate=RATE, word_timestamps=True)
            for one in (session, other)
        )
    tokens = [token for segment in request_["segments"] for token in segment["tokens"] if token < 256]
    heard = [token for segment in ours.segments for token in segment.tokens if token < 256]
    assert heard == tokens[: len(heard)]
    assert len(heard) > 2
    assert [each.tokens for each in ours.segments] == [each.tokens for each in theirs.segments]
    assert [each.token_times for each in ours.segments] == [each.token_times for each in theirs.segments]


def test_clips_of_any_length_are_heard_together_as_each_alone_to_the_bit(
    model: SpeechModel, alone: list[object]
) -> None:
    results = list(model.map(CLIPS * 4, PLAIN, sampling_rate=RATE))
    assert [said(each) for each in results] == alone * 4
    assert sum(each.stats.num_shared_steps for each in results) > 0


def test_programs_for_one_window_at_a_time_are_heard_by_one_session_unless_asked(
    alone: list[object],
) -> None:
    with SpeechModel(WORDS / "words.pte", num_threads=1) as model:
        results = list(model.map(CLIPS[:3], PLAIN, sampling_rate=RATE))
        assert sum(each.stats.num_shared_steps for each in results) == 0
    assert [each.text for each in results] == ["".join(part.text for part in one[0]) for one in alone[:3]]  # type: ignore[index]


def heard_by(conversation: Conversation, num_frames: int) -> None:
    """A window of noise, and a start."""
    features = np.random.default_rng(num_frames).standard_normal((80, num_frames)).astype(np.float32)
    conversation.hear(features, [260])


def test_windows_of_different_lengths_share_a_call() -> None:
    lengths = (3000, 1000, 2000)
    first = Conversation.load(WORDS / "batched.pte", num_threads=1)
    together = [first, first.another(), first.another()]
    alone = [first.another() for _ in lengths]
    for members in (together, alone):
        for conversation, length in zip(members, lengths, strict=True):
            heard_by(conversation, length)
    steps = [step_together(together) for _ in range(12)]
    single = [[step_together([each])[0] for _ in range(12)] for each in alone]
    assert [list(tokens) for tokens in zip(*steps, strict=True)] == single
    assert len({tuple(tokens) for tokens in single}) == len(lengths)


def test_times_of_words_and_beams_are_heard_beside_others(model: SpeechModel, alone: list[object]) -> None:
    others = [PLAIN.replace(word_timestamps=True), PLAIN.replace(beam_size=3)]
    with SpeechRunner(WORDS / "batched.pte", num_threads=1) as runner:
        expected = [said(runner.transcribe(CLIPS[0], config, sampling_rate=RATE)) for config in others]
    found: list[object] = [None, None]

    def hear(place: int) -> None:
        with model.session() as session:
            found[place] = said(session.transcribe(CLIPS[0], others[place], sampling_rate=RATE))

    threads = [threading.Thread(target=hear, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    results = list(model.map(CLIPS, PLAIN, sampling_rate=RATE, num_sessions=3))
    for thread in threads:
        thread.join()
    assert found == expected
    assert [said(each) for each in results] == alone


def test_a_clip_that_fails_is_an_error_of_its_own(
    model: SpeechModel, alone: list[object], tmp_path: Path
) -> None:
    clips = [Waveform(each, RATE) for each in CLIPS]
    mixed: list[Any] = [*clips[:2], tmp_path / "missing.wav", *clips[2:]]
    results = list(model.map(mixed, PLAIN, num_sessions=3, on_error="return"))
    assert isinstance(results.pop(2), ExecutorchMMError)
    assert [said(each) for each in results] == alone


def test_a_request_that_ends_early_leaves_the_others_alone(model: SpeechModel, alone: list[object]) -> None:
    late: list[Transcription] = []

    def give_up() -> None:
        with model.session() as session:
            late.extend(
                session.transcribe(CLIPS[2], PLAIN, sampling_rate=RATE, timeout=timeout)
                for timeout in (1e-6, 0.05, 0.2)
            )
            events = session.stream_transcribe(CLIPS[2], PLAIN, sampling_rate=RATE)
            next(events)
            session.stop()
            assert sum(1 for _ in events) < 20
            assert session.stats.finish_reason == "cancelled"
            late.append(session.transcribe(CLIPS[0], PLAIN, sampling_rate=RATE))

    thread = threading.Thread(target=give_up)
    thread.start()
    results = list(model.map(CLIPS, PLAIN, sampling_rate=RATE, num_sessions=3))
    thread.join()
    assert [said(each) for each in results] == alone
    assert late[0].stats.finish_reason == "timeout"
    assert said(late[-1]) == alone[0]


def test_closing_a_map_stops_what_is_under_way(model: SpeechModel, alone: list[object]) -> None:
    results = model.map(CLIPS * 5, PLAIN, sampling_rate=RATE, num_sessions=4)
    assert said(next(results)) == alone[0]
    results.close()
    assert model.num_requests == 0
    with model.session() as session:
        assert said(session.transcribe(CLIPS[0], PLAIN, sampling_rate=RATE)) == alone[0]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_the_number_of_clips(model: SpeechModel) -> None:
    resident = []
    for _ in range(4):
        for _ in model.map(CLIPS * 10, PLAIN, sampling_rate=RATE, num_sessions=4):
            pass
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    # What the encoder made of 70 windows takes 27 MB; the allocator may keep some of it once.
    assert min(after - before for before, after in itertools.pairwise(resident)) < 12 << 20


def test_a_conversation_without_a_clip_is_refused_in_a_batch_and_the_others_go_on() -> None:
    one = Conversation.load(WORDS / "batched.pte", num_threads=1)
    other = one.another()
    heard_by(one, 1000)
    with pytest.raises(InputError, match="prompt"):
        step_together([one, other])
    step_together([one])
