"""Times of words: from what a Whisper's decoder looks at, and from a transducer's frames."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_mm import (
    InputError,
    SpeechConfig,
    SpeechModel,
    SpeechRunner,
    Transcription,
    Word,
    load_tokenizer,
)
from executorch_mm.speech._alignment import token_starts, warping_path
from executorch_mm.speech._words import pieces_of, split_words, words_of
from speech_cases import FOLDER, RATE, clip

WORDS = FOLDER.parent / "speech_words"
EXPECTED: list[dict[str, Any]] = json.loads((WORDS / "expected.json").read_text())["requests"]
PLAIN = SpeechConfig(
    temperature=0.0, compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None,
    max_new_tokens=20, language="en", condition_on_previous_text=False, word_timestamps=True,
)  # fmt: skip
FIRST_TIME = 268


@pytest.fixture(scope="module")
def runner() -> Iterator[SpeechRunner]:
    with SpeechRunner(WORDS / "words.pte", num_threads=1) as runner:
        yield runner


def samples_of(request: dict[str, Any]) -> npt.NDArray[np.float32]:
    return clip(request["clip"])[: int(request["seconds"] * RATE)]


@pytest.mark.parametrize("request_", EXPECTED, ids=lambda request: str(request["clip"]))
def test_times_of_tokens_are_those_of_transformers(request_: dict[str, Any], runner: SpeechRunner) -> None:
    result = runner.transcribe(samples_of(request_), PLAIN, sampling_rate=RATE)
    heard = [(token, start) for segment in result.segments for token, (start, _) in timed(segment)]
    expected = [
        (token, min(time, result.duration))
        for segment in request_["segments"]
        for token, time in zip(segment["tokens"], segment["times"], strict=True)
        if token < 256
    ]
    # transformers goes on behind the end of a clip that does not fill its window.
    assert len(expected) >= len(heard) > 2
    for (token, start), (wanted, time) in zip(heard, expected, strict=False):
        assert token == wanted
        assert start == pytest.approx(time, abs=1e-6)
    assert len({start for _, start in heard}) > 2


def timed(segment: Any) -> list[tuple[int, tuple[float, float]]]:
    pairs = zip(segment.tokens, segment.token_times, strict=True)
    return [(token, times) for token, times in pairs if token < 256]


@pytest.mark.parametrize("request_", EXPECTED, ids=lambda request: str(request["clip"]))
def test_words_are_the_text_in_order_within_the_audio(request_: dict[str, Any], runner: SpeechRunner) -> None:
    result = runner.transcribe(samples_of(request_), PLAIN, sampling_rate=RATE)
    assert result.words
    now = 0.0
    for segment in result.segments:
        assert "".join(word.word for word in segment.words).strip() == segment.text.strip()
        for word in segment.words:
            assert now <= word.start <= word.end <= result.duration
            assert word.probability is not None
            assert 0 < word.probability <= 1
            now = word.end
    assert all(not segment.words and not segment.token_times for segment in plain(runner, request_).segments)


def plain(runner: SpeechRunner, request_: dict[str, Any]) -> Transcription:
    return runner.transcribe(
        samples_of(request_), PLAIN, sampling_rate=RATE, word_timestamps=False, timestamps=True
    )


def test_asking_for_words_changes_no_text(runner: SpeechRunner) -> None:
    for request in EXPECTED:
        words = runner.transcribe(samples_of(request), PLAIN, sampling_rate=RATE)
        assert plain(runner, request).text == words.text


def test_sessions_over_one_load_find_the_same_words(runner: SpeechRunner) -> None:
    alone = [runner.transcribe(samples_of(request), PLAIN, sampling_rate=RATE) for request in EXPECTED[:2]]
    with SpeechModel(WORDS / "words.pte", num_threads=1) as model:
        streams = [
            model.session().stream_transcribe(samples_of(request), PLAIN, sampling_rate=RATE)
            for request in EXPECTED[:2]
        ]
        while [stream for stream in streams if next(stream, None) is not None]:
            pass
        for stream, expected in zip(streams, alone, strict=True):
            assert stream.result is not None
            assert stream.result.segments == expected.segments


def test_words_behind_a_pause_that_was_left_out_have_their_time(runner: SpeechRunner) -> None:
    alone = runner.transcribe(clip("other"), PLAIN, sampling_rate=RATE)
    late = np.concatenate([np.zeros(40 * RATE, np.float32), clip("other")])
    result = runner.transcribe(late, PLAIN, sampling_rate=RATE, vad_filter=lambda _: [(40.0, 49.5)])
    assert [word.word for word in result.words] == [word.word for word in alone.words]
    times, expected = ([(word.start, word.end) for word in each.words] for each in (result, alone))
    assert np.allclose(times, np.add(expected, 40))


def test_a_program_that_does_not_tell_says_so() -> None:
    with (
        SpeechRunner(FOLDER / "kv.pte", num_threads=1) as runner,
        pytest.raises(InputError, match="word_timestamps: the program does not tell what"),
    ):
        runner.transcribe(clip("short"), sampling_rate=RATE, word_timestamps=True)
    with (
        SpeechRunner(WORDS / "words.pte", num_threads=1, isolate=True) as runner,
        pytest.raises(InputError, match="alignment: the model does not tell what it looks at"),
    ):
        runner.transcribe(clip("short"), PLAIN, sampling_rate=RATE)


def test_words_of_a_transducer_are_on_the_frames_of_their_symbols() -> None:
    with SpeechRunner(FOLDER.parent / "transducer" / "tdt.pte", num_threads=1) as runner:
        samples = np.random.default_rng(5).normal(0, 0.1, 24_000).astype(np.float32)
        result = runner.transcribe(samples, word_timestamps=True, sampling_rate=RATE)
        assert result.words
        for segment in result.segments:
            assert "".join(word.word for word in segment.words).strip() == segment.text.strip()
            assert segment.words[0].start == segment.token_times[0][0]
            assert {word.start for word in segment.words} <= {start for start, _ in segment.token_times}
            assert {word.probability for word in segment.words} == {None}
        assert runner.transcribe(samples, sampling_rate=RATE).words == ()


def test_subtitles_and_json_of_words(runner: SpeechRunner) -> None:
    result = runner.transcribe(clip("other"), PLAIN, sampling_rate=RATE)
    assert result.to_srt(words=True).count(" --> ") == len(result.words) > len(result.segments)
    assert result.to_vtt(words=True).count(" --> ") == len(result.words)
    assert result.to_srt().count(" --> ") == len(result.segments)
    verbose = json.loads(result.to_verbose_json())
    assert [(word["word"], word["start"]) for word in verbose["words"]] == [
        (word.word.strip(), word.start) for word in result.words
    ]
    assert [segment["id"] for segment in verbose["segments"]] == [*range(len(result.segments))]
    assert "words" not in json.loads(plain(runner, EXPECTED[1]).to_verbose_json())
    assert json.loads(result.to_json())["segments"][0]["words"][0]["word"] == result.words[0].word


# Against a small implementation cell by cell.


def reference_costs(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The cost of the cheapest way to each cell."""
    total = np.full(np.add(costs.shape, 1), np.inf)
    total[0, 0] = 0
    for i in range(costs.shape[0]):
        for j in range(costs.shape[1]):
            total[i + 1, j + 1] = costs[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return total[1:, 1:]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 9), st.integers(1, 14), st.integers(0, 1000))
def test_the_way_through_the_costs_is_the_cheapest(num_tokens: int, num_frames: int, seed: int) -> None:
    costs = np.random.default_rng(seed).normal(size=(num_tokens, num_frames))
    path = warping_path(costs)
    assert (path[0], path[-1]) == ((0, 0), (costs.shape[0] - 1, costs.shape[1] - 1))
    assert {(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(path)} <= {
        (0, 1),
        (1, 0),
        (1, 1),
    }
    assert sum(costs[cell] for cell in path) == pytest.approx(reference_costs(costs)[-1, -1], abs=1e-5)


def test_tokens_begin_where_their_head_looks_whatever_another_head_does() -> None:
    places = [3, 3, 9, 20, 41]
    rows = []
    for place in places:
        row = np.full((2, 60), 1e-3, np.float32)
        row[0, place : place + 8] = 0.1
        row[1] = 1 / 60  # says nothing
        rows.append(row)
    starts = token_starts(rows, 50)
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert np.allclose(starts[2:], places[2:], atol=1)
    assert token_starts(rows[:1], 1) == [0]
    assert max(token_starts(rows, 30)) < 30


@pytest.mark.parametrize(
    ("pieces", "language", "expected"),
    [
        ([" And", " so", ",", " my", " fell", "ow"], "en", [" And", " so,", " my", " fellow"]),
        ([" he", " said", ",", ' "', "yes", '."'], "en", [" he", " said,", ' "yes."']),
        ([" (", "a", ")", " b", "-", "c"], "en", [" (a)", " b", "-c"]),
        (["\u4f60", "\u597d", "\u3002"], "zh", ["\u4f60", "\u597d\u3002"]),
        (["", "\u4f60", "\u597d"], "ja", ["\u4f60", "\u597d"]),
        ([" a", "", "", " b"], "en", [" a", " b"]),
        ([" a", ""], "en", [" a"]),
        ([], "en", []),
    ],
)
def test_words_are_parted_at_spaces_and_signs(pieces: list[str], language: str, expected: list[str]) -> None:
    found = split_words(pieces, language)
    assert [text for text, _, _ in found] == expected
    assert [place for _, first, end in found for place in range(first, end)] == [*range(len(pieces))]


def test_characters_of_several_tokens_are_one_piece() -> None:
    tokenizer = load_tokenizer(FOLDER / "tokenizer.json")
    tokens = tokenizer.encode(" \u00e9t\u00e9 \u4f60")
    assert len(tokens) == 10
    pieces = pieces_of(tokens, tokenizer)
    assert [piece for piece in pieces if piece] == [" ", "\u00e9", "t", "\u00e9", " ", "\u4f60"]
    assert "".join(pieces_of([*tokens, tokens[-3]], tokenizer)).endswith("\ufffd")


def test_words_do_not_run_backwards() -> None:
    times = [(1.0, 2.0), (1.5, 1.8), (1.8, 3.0), (3.0, 3.0), (2.0, 2.5)]
    assert words_of([" a", " b", "c", " ", " d"], times, [0.5, 0.2, 0.4, 1.0, 1.0], earliest=1.2) == (
        Word(" a", 1.2, 2.0, 0.5),
        Word(" bc", 2.0, 3.0, pytest.approx(0.3)),
        Word("  d", 3.0, 3.0, 1.0),
    )
