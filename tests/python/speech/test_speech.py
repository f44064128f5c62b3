"""SpeechRunner on tiny random Whisper models, as optimum exports them and by our recipe."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import pickle
import shutil
import wave
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
    MultimodalRunner,
    Partial,
    Segment,
    SpeechConfig,
    SpeechRunner,
    inspect_model,
)
from speech_cases import EXPECTED, FOLDER, KINDS, RATE, clip

REFUSED = FOLDER.parent / "speech_refused"
# One greedy attempt for each window, whatever it is worth.
PLAIN = SpeechConfig(
    temperature=0.0,
    compression_ratio_threshold=None,
    logprob_threshold=None,
    no_speech_threshold=None,
    max_new_tokens=20,
    language="en",
)
FIRST_TIME = 268


@pytest.fixture(scope="module")
def runners() -> Iterator[dict[str, SpeechRunner]]:
    with contextlib.ExitStack() as stack:
        yield {kind: stack.enter_context(SpeechRunner(FOLDER / f"{kind}.pte")) for kind in KINDS}


@pytest.fixture(scope="module")
def runner(runners: dict[str, SpeechRunner]) -> SpeechRunner:
    """The file that keeps cross-attention keys and values, which is the faster one."""
    return runners["kv"]


def requests(*, times: bool) -> list[Any]:
    return [
        pytest.param(kind, request, id=f"{kind}-{request['clip']}-{request['language']}-{request['task']}")
        for kind in KINDS
        for request in EXPECTED[kind]["requests"]
        if request["timestamps"] is times
    ]


def config_of(request: dict[str, Any]) -> SpeechConfig:
    return PLAIN.replace(
        language=request["language"],
        task=request["task"],
        timestamps=request["timestamps"],
        condition_on_previous_text=request.get("condition", True),
    )


@pytest.mark.parametrize(("kind", "request_"), requests(times=False))
def test_a_text_without_times_is_the_eager_models(
    kind: str, request_: dict[str, Any], runners: dict[str, SpeechRunner]
) -> None:
    result = runners[kind].transcribe(clip(request_["clip"]), config_of(request_), sampling_rate=RATE)
    [segment] = result.segments
    assert [*segment.tokens] == [token for token in request_["tokens"] if token != 256]
    assert (segment.start, segment.end) == (0.0, result.duration)
    assert result.text == segment.text


@pytest.mark.parametrize(("kind", "request_"), requests(times=True))
def test_segments_and_their_times_are_the_eager_models_over_windows_of_any_number(
    kind: str, request_: dict[str, Any], runners: dict[str, SpeechRunner]
) -> None:
    result = runners[kind].transcribe(clip(request_["clip"]), config_of(request_), sampling_rate=RATE)
    expected = request_["segments"]
    times = [(round(segment.start, 2), round(segment.end, 2)) for segment in result.segments]
    # transformers lets a text end behind the audio, where its last window is filled up.
    assert times == [(start, min(end, result.duration)) for start, end, _ in expected]
    for segment, (_, _, tokens) in zip(result.segments, expected, strict=True):
        # transformers leaves the time that begins the next text at the end of a window's last segment.
        if tokens[-1] >= FIRST_TIME and tokens[-2] >= FIRST_TIME:
            tokens = tokens[:-1]
        assert [*segment.tokens] == tokens


@pytest.mark.parametrize("kind", KINDS)
def test_the_language_is_the_likeliest_after_the_first_token(
    kind: str, runners: dict[str, SpeechRunner]
) -> None:
    for name, language in EXPECTED[kind]["languages"].items():
        result = runners[kind].transcribe(clip(name)[: 30 * RATE], PLAIN, sampling_rate=RATE, language=None)
        assert result.language == language
        again = runners[kind].transcribe(
            clip(name)[: 30 * RATE], PLAIN, sampling_rate=RATE, language=language
        )
        assert again.segments == result.segments


def test_both_kinds_of_file_read_a_prompt_alike_and_a_prompt_matters(
    runners: dict[str, SpeechRunner],
) -> None:
    texts = {
        (kind, prompt): runners[kind].transcribe(clip("short"), PLAIN, sampling_rate=RATE, prompt=prompt).text
        for kind in KINDS
        for prompt in (None, "Hello there", "x" * 1000)
    }
    for prompt in (None, "Hello there", "x" * 1000):
        assert len({texts[kind, prompt] for kind in KINDS}) == 1
    assert len(set(texts.values())) == 3


def test_a_prompt_does_not_change_the_language_that_is_found(runner: SpeechRunner) -> None:
    plain = runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE, language=None)
    prompted = runner.transcribe(
        clip("short"), PLAIN, sampling_rate=RATE, language=None, prompt="Hello there"
    )
    known = runner.transcribe(
        clip("short"), PLAIN, sampling_rate=RATE, language=plain.language, prompt="Hello there"
    )
    assert prompted.language == plain.language
    assert prompted.segments == known.segments


def test_the_encoders_outputs_go_to_the_decoder_by_pointer(runner: SpeechRunner) -> None:
    methods = {method.name: method for method in inspect_model(FOLDER / "kv.pte").methods}
    states = methods["text_decoder"].inputs[1:-1]
    assert len(states) == len(methods["encoder"].outputs) == 4
    assert not any(state.is_planned for state in states)
    runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE)
    assert runner.stats.copied_input_bytes == 0


def test_silence_costs_nothing_and_has_no_text(runner: SpeechRunner) -> None:
    result = runner.transcribe(np.zeros(70 * RATE, np.float32), sampling_rate=RATE)
    assert (result.text, result.segments, result.language, result.duration) == ("", (), None, 70.0)
    assert result.stats.finish_reason == "stop"
    assert result.stats.encode_audio_ns == result.stats.num_generated_tokens == 0


def test_silence_before_speech_moves_its_times_and_changes_nothing_else(runner: SpeechRunner) -> None:
    late = np.concatenate([np.zeros(60 * RATE, np.float32), clip("other")])
    result = runner.transcribe(late, PLAIN, sampling_rate=RATE, timestamps=True)
    assert result.segments
    assert all(60 <= segment.start < segment.end <= 90 for segment in result.segments)


def test_a_window_that_is_likely_silence_is_left_out_unless_its_text_is_likely(runner: SpeechRunner) -> None:
    sure = {"no_speech_threshold": -1.0, "logprob_threshold": 10.0}
    assert runner.transcribe(clip("short"), PLAIN.replace(**sure), sampling_rate=RATE).segments == ()
    unsure = {"no_speech_threshold": -1.0, "logprob_threshold": -100.0}
    assert runner.transcribe(clip("short"), PLAIN.replace(**unsure), sampling_rate=RATE).segments
    [segment] = runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE).segments
    assert 0 < segment.no_speech_prob < 1
    assert segment.avg_logprob < 0


def test_an_unlikely_text_is_tried_at_each_temperature_and_a_likely_one_is_not(runner: SpeechRunner) -> None:
    config = PLAIN.replace(temperature=(0.0, 0.5, 1.0), logprob_threshold=10.0, seed=4)
    partials = [
        event.temperature
        for event in runner.stream_transcribe(clip("short"), config, sampling_rate=RATE)
        if isinstance(event, Partial)
    ]
    assert sorted(set(partials)) == [0.0, 0.5, 1.0]
    assert partials == sorted(partials)
    sampled = runner.transcribe(clip("short"), config, sampling_rate=RATE)
    assert {segment.temperature for segment in sampled.segments} == {1.0}
    assert sampled.segments == runner.transcribe(clip("short"), config, sampling_rate=RATE).segments
    greedy = runner.transcribe(clip("short"), config.replace(logprob_threshold=-100.0), sampling_rate=RATE)
    assert greedy.segments == runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE).segments


def test_a_text_that_repeats_itself_is_tried_again(runner: SpeechRunner) -> None:
    config = PLAIN.replace(temperature=(0.0, 0.9), compression_ratio_threshold=0.0, seed=4)
    result = runner.transcribe(clip("short"), config, sampling_rate=RATE)
    assert {segment.temperature for segment in result.segments} == {0.9}


def test_a_stream_gives_the_windows_text_as_it_grows_and_then_its_segments(runner: SpeechRunner) -> None:
    config = PLAIN.replace(timestamps=True)
    whole = runner.transcribe(clip("long"), config, sampling_rate=RATE)
    events = list(runner.stream_transcribe(clip("long"), config, sampling_rate=RATE))
    assert [event for event in events if isinstance(event, Segment)] == [*whole.segments]
    assert isinstance(events[0], Partial)
    for before, after in pairwise(events):
        if isinstance(before, Partial) and isinstance(after, Partial) and before.start == after.start:
            assert after.text.startswith(before.text)
    last = [a for a, b in pairwise(events) if isinstance(a, Partial) and isinstance(b, Segment)]
    for partial in last:
        made = [segment.text for segment in whole.segments if segment.start >= partial.start]
        assert partial.text.startswith(made[0][:1])
    assert runner.stats.finish_reason == "stop"


def test_progress_tells_the_seconds_heard(runner: SpeechRunner) -> None:
    heard: list[tuple[float, float]] = []
    runner.transcribe(
        clip("long"),
        PLAIN.replace(timestamps=True),
        sampling_rate=RATE,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard[0] == (0.0, 70.0)
    assert heard[-1] == (70.0, 70.0)
    assert heard == sorted(heard)
    assert len(heard) > 3


def test_whatever_ends_a_request_the_next_one_is_as_after_loading(runner: SpeechRunner) -> None:
    config = PLAIN.replace(timestamps=True)
    fresh = runner.transcribe(clip("long"), config, sampling_rate=RATE)
    with contextlib.closing(runner.stream_transcribe(clip("other"), config, sampling_rate=RATE)) as events:
        next(events)
    assert runner.stats.finish_reason == "cancelled"
    assert runner.transcribe(clip("long"), config, sampling_rate=RATE).segments == fresh.segments

    stopped = []
    for event in runner.stream_transcribe(clip("long"), config, sampling_rate=RATE):
        stopped.append(event)
        runner.stop()
    assert runner.stats.finish_reason == "cancelled"
    assert len(stopped) < 5
    assert runner.transcribe(clip("long"), config, sampling_rate=RATE).segments == fresh.segments

    def fail(done: float, _total: float) -> None:
        if done > 0:
            raise KeyError("progress")

    with pytest.raises(KeyError):
        runner.transcribe(clip("long"), config, sampling_rate=RATE, progress=fail)
    assert runner.transcribe(clip("long"), config, sampling_rate=RATE).segments == fresh.segments


def test_a_stop_keeps_what_was_heard_until_then(runner: SpeechRunner) -> None:
    config = PLAIN.replace(timestamps=True)
    fresh = runner.transcribe(clip("long"), config, sampling_rate=RATE)

    def stop_late(done: float, _total: float) -> None:
        if done > 30:
            runner.stop()

    result = runner.transcribe(clip("long"), config, sampling_rate=RATE, progress=stop_late)
    assert result.stats.finish_reason == "cancelled"
    assert result.segments == fresh.segments[: len(result.segments)]
    assert 0 < len(result.segments) < len(fresh.segments)


def test_a_timeout_ends_the_transcription(runner: SpeechRunner) -> None:
    result = runner.transcribe(clip("long"), PLAIN, sampling_rate=RATE, timeout=1e-6)
    assert (result.text, result.stats.finish_reason) == ("", "timeout")


def test_a_second_request_is_refused_while_a_stream_is_open(runner: SpeechRunner) -> None:
    with contextlib.closing(runner.stream_transcribe(clip("short"), PLAIN, sampling_rate=RATE)) as events:
        next(events)
        with pytest.raises(BusyError):
            runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE)
    assert runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE).text


def test_tasks_wait_for_each_other_and_get_what_threads_get(runner: SpeechRunner) -> None:
    expected = [runner.transcribe(clip(name), PLAIN, sampling_rate=RATE) for name in ("short", "other")]

    async def both() -> list[Any]:
        return await asyncio.gather(
            *(runner.atranscribe(clip(name), PLAIN, sampling_rate=RATE) for name in ("short", "other"))
        )

    assert [result.segments for result in asyncio.run(both())] == [result.segments for result in expected]

    async def cancelled() -> None:
        async with contextlib.aclosing(
            runner.astream_transcribe(clip("long"), PLAIN, sampling_rate=RATE)
        ) as events:
            async for _ in events:
                break

    asyncio.run(cancelled())
    assert runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE).segments == expected[0].segments


def test_audio_clips_come_as_files_bytes_and_arrays_of_any_kind(runner: SpeechRunner, tmp_path: Path) -> None:
    integers = np.round(clip("short") * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(integers.tobytes())
    path = tmp_path / "clip.wav"
    path.write_bytes(file.getvalue())
    expected = runner.transcribe(integers.astype(np.int16), PLAIN, sampling_rate=RATE).segments
    for audio in (path, str(path), file.getvalue()):
        assert runner.transcribe(audio, PLAIN).segments == expected


def test_another_sampling_rate_is_resampled(runner: SpeechRunner) -> None:
    pytest.importorskip("soxr")
    t = np.arange(4 * 48000) / 48000
    result = runner.transcribe(0.3 * np.sin(2 * np.pi * 440 * t), PLAIN, sampling_rate=48000)
    assert result.duration == pytest.approx(4.0, abs=0.01)
    assert result.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "fr"}, r"language: .*de, en, es, zh.*'fr'"),
        ({"language": 3}, "language: expected a str"),
        ({"task": "sing"}, "task: expected 'transcribe' or 'translate'"),
        ({"temperature": ()}, "temperature: expected"),
        ({"temperature": (0.0, -1.0)}, "temperature: expected"),
        ({"logprob_threshold": float("nan")}, "logprob_threshold: expected"),
        ({"timestamps": 1}, "timestamps: expected True or False"),
        ({"timeout": 0.0}, "timeout: expected"),
        ({"max_new_tokens": -2}, "max_new_tokens: expected"),
    ],
)
def test_a_wrong_option_is_an_error_that_names_it(
    runner: SpeechRunner, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        runner.transcribe(clip("short"), sampling_rate=RATE, **options)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros(0, np.float32), "with samples"),
        (np.full(100, np.nan, np.float32), "finite"),
        (np.zeros((9, 9), np.float32), "at most 8 channels"),
        ("nowhere.wav", "nowhere.wav"),
        (b"no audio", "audio of 8 bytes"),
    ],
)
def test_an_audio_clip_that_is_none_is_an_error(runner: SpeechRunner, audio: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        runner.transcribe(audio, sampling_rate=RATE)
    assert runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE).text


def test_an_array_needs_its_rate(runner: SpeechRunner) -> None:
    with pytest.raises(InputError, match="sampling_rate"):
        runner.transcribe(clip("short"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other_states", r"text_decoder: input 1: expected output 0 of encoder.*\(1, 4, 3\).*\(1, 4, 4\)"),
        ("no_position", r"text_decoder: expected tokens, the outputs of encoder \(1\) and a position"),
        ("no_audio", "encoder: input 0: expected a tensor of rank 3"),
        ("other_features", r"encoder: expected features \(80, 3000\).*\(4, 6\)"),
    ],
)
def test_a_program_that_is_no_speech_model_is_refused(name: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        SpeechRunner(REFUSED / f"{name}.pte", FOLDER, processor_path=FOLDER)


def test_each_runner_refuses_the_others_models(demo_folder: Path) -> None:
    with pytest.raises(ContractError, match="SpeechRunner"):
        MultimodalRunner(FOLDER / "kv.pte")
    with pytest.raises(ContractError, match="MultimodalRunner"):
        SpeechRunner(demo_folder / "model.pte")


def test_a_model_without_files_about_it_is_played_by_its_vocabulary(tmp_path: Path) -> None:
    for name in ("kv.pte", "tokenizer.json"):
        shutil.copy(FOLDER / name, tmp_path / name)
    with SpeechRunner(tmp_path / "kv.pte") as bare:
        assert bare.languages == ()  # a vocabulary of this size is taken for an English model's
        assert bare.transcribe(clip("short"), PLAIN, sampling_rate=RATE, language=None).language is None
        with pytest.raises(InputError, match="task: the model does not translate"):
            bare.transcribe(clip("short"), sampling_rate=RATE, task="translate")


def test_a_folder_is_enough(tmp_path: Path) -> None:
    for path in FOLDER.iterdir():
        if path.name != "optimum.pte":
            shutil.copy(path, tmp_path / path.name)
    with SpeechRunner.from_pretrained(tmp_path) as found:
        assert found.languages == ("en", "zh", "de", "es")
        assert found.sampling_rate == RATE


def test_a_closed_runner_says_so_and_a_runner_is_not_copied() -> None:
    with SpeechRunner(FOLDER / "kv.pte") as runner, pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(runner)
    with pytest.raises(ExecutorchMMError, match="closed"):
        runner.transcribe(clip("short"), sampling_rate=RATE)
    runner.close()


def test_a_result_becomes_subtitles_and_json(runner: SpeechRunner) -> None:
    result = runner.transcribe(clip("long"), PLAIN, sampling_rate=RATE, timestamps=True)
    assert result.to_srt().startswith("1\n00:00:00,000 --> 00:00:08,960\n")
    assert result.to_vtt().startswith("WEBVTT\n\n00:00:00.000 --> 00:00:08.960\n")
    content = json.loads(result.to_json())
    assert content["text"] == result.text
    assert [segment["start"] for segment in content["segments"]] == [one.start for one in result.segments]
    assert content["stats"]["finish_reason"] == "stop"
