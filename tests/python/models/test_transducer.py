"""Transducers on tiny random models; an eager search that keeps no state says what is right."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    BusyError,
    ContractError,
    ExecutorchMMError,
    InputError,
    ModelLoadError,
    MultimodalRunner,
    Partial,
    Segment,
    SpeechConfig,
    SpeechRunner,
    inspect_model,
)

FOLDER = Path(__file__).resolve().parents[2] / "models" / "transducer"
ENTRIES = {entry["name"]: entry for entry in json.loads((FOLDER / "manifest.json").read_text())["models"]}
EXPECTED: dict[str, dict[str, Any]] = {name: entry["expected"] for name, entry in ENTRIES.items()}
CLIPS = [(name, index) for name, expected in EXPECTED.items() for index in range(len(expected["clips"]))]
RATE, BINS = 16_000, 12


def load(name: str) -> Any:
    """The core of a runner, which has the frames and durations themselves and not only the times."""
    return SpeechRunner(FOLDER / f"{name}.pte", num_threads=1)._requests.session


def clip(name: str, index: int) -> np.ndarray:
    """Samples or features."""
    seed, size = EXPECTED[name]["clips"][index][:2]
    random = np.random.default_rng(seed)
    if EXPECTED[name]["has_preprocessor"]:
        return random.normal(0, 0.1, size).astype(np.float32)
    return random.normal(0, 1, (1, BINS, size)).astype(np.float32)


def begin(core: Any, name: str, index: int) -> None:
    core.begin_request()
    if EXPECTED[name]["has_preprocessor"]:
        core.begin_samples(clip(name, index))
    else:
        core.begin_features(clip(name, index), EXPECTED[name]["clips"][index][2])


def rest(core: Any) -> list[list[int]]:
    symbols = []
    while (symbol := core.next()) is not None:
        symbols.append([symbol.token, symbol.frame, symbol.duration])
    return symbols


@pytest.fixture(scope="module")
def cores() -> dict[str, Any]:
    return {name: load(name) for name in EXPECTED}


@pytest.fixture(scope="module")
def runners() -> Iterator[dict[str, SpeechRunner]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(SpeechRunner(FOLDER / f"{name}.pte")) for name in EXPECTED}


@pytest.fixture
def runner(runners: dict[str, SpeechRunner]) -> SpeechRunner:
    return runners["tdt"]


def test_every_model_was_exported() -> None:
    assert {entry["status"] for entry in ENTRIES.values()} == {"works"}


@pytest.mark.parametrize(("name", "index"), CLIPS)
def test_tokens_frames_and_durations_are_the_eager_models(
    cores: dict[str, Any], name: str, index: int
) -> None:
    begin(cores[name], name, index)
    assert rest(cores[name]) == EXPECTED[name]["symbols"][index]


@pytest.mark.parametrize(
    ("name", "index"), [(name, index) for name, index in CLIPS if len(EXPECTED[name]["clips"][index]) == 2]
)
def test_the_runner_writes_the_text_with_the_time_of_each_token(
    runners: dict[str, SpeechRunner], name: str, index: int
) -> None:
    samples, expected = clip(name, index), EXPECTED[name]
    made = runners[name].transcribe(samples, sampling_rate=RATE)
    assert made.text == expected["texts"][index]
    assert made.duration == len(samples) / RATE
    symbols, frame = expected["symbols"][index], expected["frame_seconds"]
    assert [token for segment in made.segments for token in segment.tokens] == [s[0] for s in symbols]
    times = [seconds for segment in made.segments for time in segment.token_times for seconds in time]
    wanted = [seconds for _, at, long in symbols for seconds in (at * frame, (at + max(1, long)) * frame)]
    # The last frame of an encoder reaches beyond the end of an audio clip that is no multiple of it.
    assert times == pytest.approx([min(seconds, made.duration) for seconds in wanted])
    for segment in made.segments:
        assert segment.start == segment.token_times[0][0]
        assert segment.end == max(end for _, end in segment.token_times)
    assert made.stats.num_generated_tokens == len(symbols) == len(made.stats.token_times_ns)
    assert made.stats.finish_reason == "stop"


def test_features_are_taken_where_there_is_no_preprocessor(runners: dict[str, SpeechRunner]) -> None:
    for name in ("rnnt_features", "tdt_features"):
        made = runners[name].transcribe(clip(name, 0))  # no column of the first clip is padding
        assert made.text == EXPECTED[name]["texts"][0]
        assert made.duration == pytest.approx(EXPECTED[name]["clips"][0][1] * 0.01)


def test_the_contract_says_what_the_file_says(cores: dict[str, Any]) -> None:
    assert cores["rnnt"].contract.durations == []
    assert cores["tdt"].contract.durations == [0, 1, 2, 3, 4]
    assert cores["tdt_features"].contract.durations == [0, 1, 2, 4, 8]
    assert cores["tdt_features"].contract.max_symbols_per_step == 2
    assert cores["rnnt"].contract.max_symbols_per_step == 10
    # Where no metadata tells, the shapes do.
    assert {core.contract.frame_seconds for core in cores.values()} == {0.04}


def test_sentences_become_segments(runner: SpeechRunner) -> None:
    samples = clip("tdt", 2)
    events = list(runner.stream_transcribe(samples, sampling_rate=RATE))
    segments = [event for event in events if isinstance(event, Segment)]
    assert tuple(segments) == runner.transcribe(samples, sampling_rate=RATE).segments
    for before, after in pairwise(segments):
        assert before.text[-1] in ".?!"
        assert after.text.startswith(" ")
        assert before.start <= after.start
    # What is said so far grows into the segment that replaces it.
    so_far = ""
    for event in events:
        if isinstance(event, Partial):
            assert event.text.startswith(so_far)
            so_far = event.text
        else:
            assert event.text.startswith(so_far)
            so_far = ""


@pytest.mark.parametrize("name", ["rnnt", "tdt", "tdt_bfloat16"])
def test_stopped_midway_the_rest_is_missing_and_the_next_request_is_whole(
    runners: dict[str, SpeechRunner], name: str
) -> None:
    runner, whole = runners[name], EXPECTED[name]["symbols"][0]
    heard = []
    for event in runner.stream_transcribe(clip(name, 0), sampling_rate=RATE):
        heard.append(event)
        if len(heard) == 2:
            runner.stop()
    assert runner.stats.finish_reason == "cancelled"
    assert runner.stats.num_generated_tokens < len(whole)
    assert runner.transcribe(clip(name, 0), sampling_rate=RATE).text == EXPECTED[name]["texts"][0]


def test_a_stream_left_early_frees_the_runner(runner: SpeechRunner) -> None:
    with contextlib.closing(runner.stream_transcribe(clip("tdt", 0), sampling_rate=RATE)) as events:
        next(events)
        with pytest.raises(BusyError):
            runner.transcribe(clip("tdt", 0), sampling_rate=RATE)
    assert runner.transcribe(clip("tdt", 0), sampling_rate=RATE).text == EXPECTED["tdt"]["texts"][0]


def test_a_timeout_keeps_what_there_is(runner: SpeechRunner) -> None:
    made = runner.transcribe(clip("tdt", 0), sampling_rate=RATE, timeout=1e-9)
    assert (made.stats.finish_reason, made.text) == ("timeout", "")
    begun = time.monotonic()
    stream = runner.stream_transcribe(clip("tdt", 0), sampling_rate=RATE, timeout=0.3)
    next(stream, None)  # nothing where the machine is too busy
    while time.monotonic() < begun + 0.4:
        pass
    for _ in stream:
        pass
    assert stream.result is not None
    assert stream.result.stats.finish_reason == "timeout"
    assert EXPECTED["tdt"]["texts"][0].startswith(stream.result.text)


def test_tasks_wait_their_turn(runner: SpeechRunner) -> None:
    async def both() -> list[str]:
        clips = [runner.atranscribe(clip("tdt", index), sampling_rate=RATE) for index in (0, 2)]
        return [made.text for made in await asyncio.gather(*clips)]

    assert asyncio.run(both()) == [EXPECTED["tdt"]["texts"][index] for index in (0, 2)]


def test_a_clip_beyond_the_models_bound_is_refused_with_the_seconds_allowed(
    runners: dict[str, SpeechRunner],
) -> None:
    with pytest.raises(InputError, match=r"at most 24000 samples \(1\.50 s\), got 32000 samples \(2\.00 s\)"):
        runners["rnnt"].transcribe(np.zeros(32_000, np.float32), sampling_rate=RATE)
    with pytest.raises(InputError, match=r"at most 151 columns of features \(1\.51 s\), got 152"):
        runners["tdt_features"].transcribe(np.zeros((1, BINS, 152), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "en"}, "language: a transducer cannot be told one, got 'en'"),
        ({"task": "translate"}, "task: a transducer only transcribes, got 'translate'"),
        ({"prompt": "names"}, "prompt: a transducer takes none"),
        ({"temperature": 0.5}, "temperature: a transducer takes the likeliest symbol, got 0.5"),
        ({"max_new_tokens": 3}, "max_new_tokens: a transducer has no limit, got 3"),
    ],
)
def test_options_of_other_models_are_refused(
    runner: SpeechRunner, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        runner.transcribe(clip("tdt", 0), SpeechConfig(**options), sampling_rate=RATE)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "audio", "message"),
    [
        ("tdt", np.zeros(0, np.float32), "with samples"),
        ("tdt", np.full(800, np.nan, np.float32), "finite"),
        ("tdt", np.zeros((1, BINS + 1, 20), np.float32), r"encoder expects float32 \(1, 12, 151\)"),
        ("tdt", np.zeros((2, BINS, 20), np.float32), r"encoder expects float32 \(1, 12, 151\)"),
        ("tdt", np.zeros((1, BINS, 0), np.float32), r"encoder expects float32 \(1, 12, 151\)"),
        ("tdt", np.zeros((1, BINS, 20), np.int64), "expected float32, got int64"),
        ("tdt_features", np.zeros(800, np.float32), r"no method preprocessor.*\(1, 12, columns\)"),
        ("tdt_features", np.full((1, BINS, 20), np.inf, np.float32), "finite"),
    ],
)
def test_what_the_model_does_not_take_is_refused_and_the_next_request_is_whole(
    runners: dict[str, SpeechRunner], name: str, audio: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        runners[name].transcribe(audio, sampling_rate=RATE)
    right = clip(name, 0)
    assert runners[name].transcribe(right, sampling_rate=RATE).text == EXPECTED[name]["texts"][0]


def test_a_length_beyond_the_features_is_refused(cores: dict[str, Any]) -> None:
    core = cores["rnnt_features"]
    for length in (-1, 21):
        core.begin_request()
        with pytest.raises(InputError, match=rf"expected a length of 0 to 20 columns, got {length}"):
            core.begin_features(np.zeros((1, BINS, 20), np.float32), length)
        assert core.next() is None


def test_float64_samples_are_converted_and_counted(cores: dict[str, Any]) -> None:
    core = cores["rnnt"]
    core.begin_request()
    core.begin_samples(clip("rnnt", 0).astype(np.float64))
    assert rest(core) == EXPECTED["rnnt"]["symbols"][0]
    assert core.timings.copied_input_bytes >= 8 * EXPECTED["rnnt"]["clips"][0][1]
    begin(core, "rnnt", 0)
    assert core.timings.copied_input_bytes == 0  # used in place


def test_two_threads_never_share_a_model(cores: dict[str, Any]) -> None:
    results: list[object] = []

    def hear() -> None:
        core = load("tdt")
        begin(core, "tdt", 2)
        results.append(rest(core))

    threads = [threading.Thread(target=hear) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [EXPECTED["tdt"]["symbols"][2]] * 3


@pytest.mark.parametrize("name", EXPECTED)
def test_inspection_finds_no_fault(name: str) -> None:
    assert inspect_model(FOLDER / f"{name}.pte").problems == ()


def test_other_runners_refuse_a_transducer_and_a_closed_runner_says_so(tmp_path: Path) -> None:
    with pytest.raises(ContractError):
        MultimodalRunner(FOLDER / "tdt.pte")
    with pytest.raises(ModelLoadError, match="no such file"):
        SpeechRunner(tmp_path / "missing.pte", FOLDER)
    runner = SpeechRunner(FOLDER / "tdt.pte")
    assert runner.languages == ()
    assert runner.sampling_rate == RATE
    runner.close()
    with pytest.raises(ExecutorchMMError, match="closed"):
        runner.transcribe(clip("tdt", 0), sampling_rate=RATE)
