"""Beam search: the texts of transformers' `generate`, with Whisper's rules for tokens."""

from __future__ import annotations

import functools
import json
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from executorch_mm import InputError, Partial, Segment, SpeechConfig, SpeechModel, SpeechRunner
from executorch_mm.speech._transcriber import Hearing
from executorch_mm.speech._whisper import WhisperModel
from executorch_mm.speech._whisper_window import Attempt, Window, WindowDecoder
from executorch_mm.speech._windows import Windows
from speech_cases import FOLDER, RATE, clip

WORDS = FOLDER.parent / "speech_words"
DATA = FOLDER.parents[1] / "data" / "speech" / "beams.json"
REQUESTS: list[dict[str, Any]] = json.loads(DATA.read_text())["requests"]
WINDOWS = [request for request in REQUESTS if "tokens" in request]
WHOLE = [request for request in REQUESTS if "segments" in request]
PLAIN = SpeechConfig(
    temperature=0.0, compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None,
    max_new_tokens=20, language="en", condition_on_previous_text=False, beam_size=4,
)  # fmt: skip
SEARCH = ("beam_size", "patience", "length_penalty")


@pytest.fixture(scope="module")
def runner() -> Iterator[SpeechRunner]:
    with SpeechRunner(WORDS / "words.pte", num_threads=1) as runner:
        yield runner


def config_of(request: dict[str, Any]) -> SpeechConfig:
    return PLAIN.replace(**{name: request[name] for name in SEARCH if name in request})


@functools.cache
def features(model: WhisperModel, name: str, seconds: float) -> npt.NDArray[np.float32]:
    samples = model.prepare(clip(name)[: int(seconds * RATE)], RATE)
    return Windows(samples, model._processor).features(0)


def attempt_at(runner: SpeechRunner, request: dict[str, Any], config: SpeechConfig) -> Attempt:
    requests = runner._requests
    model = requests.model
    assert isinstance(model, WhisperModel)
    session = requests.session
    session.begin_request()
    first_time = model._tokens.first_time if request["timestamps"] else None
    decoder = WindowDecoder(
        session, model._tokenizer, model._tokens, model._num_positions, config, Hearing(language="en")
    )
    made = features(model, request["clip"], request["seconds"])
    return returned(decoder.decode(Window(0.0, made, [], first_time, made)))


def returned(pieces: Generator[Partial, None, Attempt]) -> Attempt:
    def follow() -> Generator[Partial, None, None]:
        found.append((yield from pieces))

    found: list[Attempt] = []
    for _ in follow():
        pass
    return found[0]


def name_of(request: dict[str, Any]) -> str:
    options = [f"{name}={request[name]}" for name in SEARCH if name in request]
    return "-".join([request["clip"], *options, *(["times"] if request.get("timestamps") else [])])


@pytest.mark.parametrize("request_", WINDOWS, ids=name_of)
def test_a_window_is_heard_as_transformers_hears_it(request_: dict[str, Any], runner: SpeechRunner) -> None:
    attempt = attempt_at(runner, request_, config_of(request_))
    assert list(attempt.tokens) == request_["tokens"]
    assert len(attempt.probabilities) == len(attempt.tokens)


@pytest.mark.parametrize("request_", WHOLE, ids=name_of)
def test_a_long_clip_is_heard_as_transformers_hears_it(
    request_: dict[str, Any], runner: SpeechRunner
) -> None:
    samples = clip(request_["clip"])[: int(request_["seconds"] * RATE)]
    result = runner.transcribe(samples, config_of(request_), sampling_rate=RATE)
    times = [[round(segment.start, 2), round(segment.end, 2)] for segment in result.segments]
    assert times == [[start, end] for start, end, _ in request_["segments"]]
    for segment, (_, _, tokens) in zip(result.segments, request_["segments"], strict=True):
        # transformers keeps both of two times between texts.
        assert list(segment.tokens) == tokens[: len(segment.tokens)]
        assert all(token >= 268 for token in tokens[len(segment.tokens) :])


def test_higher_temperatures_sample_one_text_as_before(runner: SpeechRunner) -> None:
    sampled = PLAIN.replace(temperature=0.8, seed=3)
    with_beams, alone = (
        runner.transcribe(clip("other"), sampled, sampling_rate=RATE, beam_size=size) for size in (5, 1)
    )
    assert with_beams.segments == alone.segments
    assert with_beams.stats.num_decode_steps == alone.stats.num_decode_steps
    again = runner.transcribe(
        clip("other"), PLAIN, sampling_rate=RATE, temperature=(0.0, 0.8), seed=3, logprob_threshold=10.0
    )
    assert {segment.temperature for segment in again.segments} == {0.8}
    assert again.segments == alone.segments


def test_words_of_the_best_text_have_their_times(runner: SpeechRunner) -> None:
    plain = runner.transcribe(clip("other"), PLAIN, sampling_rate=RATE, timestamps=True)
    words = runner.transcribe(clip("other"), PLAIN, sampling_rate=RATE, word_timestamps=True)
    assert words.text == plain.text
    assert words.words
    starts = [start for segment in words.segments for start, _ in segment.token_times]
    assert starts == sorted(starts)
    assert len(set(starts)) > 2
    # Where the beams take what the greedy search takes, its times too.
    same = next(request for request in WINDOWS if request["is_greedy"])
    asked = config_of(same).replace(word_timestamps=True)
    beams, greedy = (attempt_at(runner, same, each) for each in (asked, asked.replace(beam_size=1)))
    assert beams.tokens == greedy.tokens
    for one, other in zip(beams.alignment, greedy.alignment, strict=False):
        assert np.array_equal(one, other)


def test_stats_count_the_answer_once_and_every_call(runner: SpeechRunner) -> None:
    one, four = (
        runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE, beam_size=size) for size in (1, 4)
    )
    assert four.stats.num_generated_tokens == len(four.segments[0].tokens) + (
        four.stats.num_generated_tokens < 20
    )
    assert four.stats.num_forced_tokens == 0
    assert len(four.stats.token_times_ns) == four.stats.num_generated_tokens
    assert four.stats.num_decode_steps > 2 * one.stats.num_decode_steps
    assert four.stats.num_decode_steps <= 4 * 20
    assert 0 < four.stats.decode_ns < four.stats.total_ns


def test_what_leads_is_said_meanwhile_and_can_be_stopped(runner: SpeechRunner) -> None:
    stream = runner.stream_transcribe(clip("other"), PLAIN, sampling_rate=RATE)
    events = []
    for event in stream:
        events.append(event)
        if len(events) == 3:
            runner.stop()
    assert all(isinstance(event, Partial) for event in events[:3])
    assert stream.result is not None
    assert stream.result.stats.finish_reason == "cancelled"
    assert len(stream.result.text) <= 20
    whole = runner.transcribe(clip("other"), PLAIN, sampling_rate=RATE)
    assert whole.stats.finish_reason == "stop"
    assert isinstance(events[-1], (Partial, Segment))
    late = runner.transcribe(clip("other"), PLAIN, sampling_rate=RATE, timeout=1e-6)
    assert late.stats.finish_reason == "timeout"
    assert runner.transcribe(clip("other"), PLAIN, sampling_rate=RATE).segments == whole.segments


def test_sessions_search_at_the_same_time_as_alone(runner: SpeechRunner) -> None:
    alone = [runner.transcribe(clip(name), PLAIN, sampling_rate=RATE).text for name in ("short", "other")]
    with SpeechModel(WORDS / "words.pte", num_threads=1) as model:
        streams = [
            model.session().stream_transcribe(clip(name), PLAIN, sampling_rate=RATE)
            for name in ("short", "other")
        ]
        while [stream for stream in streams if next(stream, None) is not None]:
            pass
        assert [stream.result.text for stream in streams if stream.result is not None] == alone


def test_a_model_in_a_process_of_its_own_searches_too(runner: SpeechRunner) -> None:
    whole = runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE)
    with SpeechRunner(WORDS / "words.pte", num_threads=1, isolate=True) as isolated:
        assert isolated.transcribe(clip("short"), PLAIN, sampling_rate=RATE).segments == whole.segments


def test_a_transducer_refuses() -> None:
    with (
        SpeechRunner(FOLDER.parent / "transducer" / "tdt.pte", num_threads=1) as transducer,
        pytest.raises(InputError, match="beam_size: a transducer follows one text, got 4"),
    ):
        transducer.transcribe(np.zeros(24_000, np.float32), sampling_rate=RATE, beam_size=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, "beam_size: expected an int of 1 to 32, got 0"),
        ({"beam_size": True}, "beam_size: expected an int of 1 to 32, got True"),
        ({"beam_size": 2.0}, "beam_size: expected an int of 1 to 32, got 2.0"),
        ({"patience": 0}, "patience: expected a number above 0 or None, got 0"),
        ({"patience": float("nan")}, "patience: expected a number above 0 or None, got nan"),
        ({"length_penalty": 11}, "length_penalty: expected a number of -10 to 10, got 11"),
        ({"length_penalty": "1"}, "length_penalty: expected a number of -10 to 10, got '1'"),
        ({"num_beams": 5}, "did you mean beam_size"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        SpeechConfig(**options)
    assert message in str(caught.value)
