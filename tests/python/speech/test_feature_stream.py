"""Features of audio that comes bit by bit, and sentences of what is heard in it, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunk_cases import TOKENIZER
from executorch_mm import ContractError, Segment, SpeechConfig, load_tokenizer
from executorch_mm.speech._feature_stream import FeatureStream, find_delay
from executorch_mm.speech._sentences import Sentences

Floats = npt.NDArray[np.float32]
HOP = 10


def energies(window: int) -> Any:
    """Columns of `window` samples around each tenth sample, one of them more than there are steps."""

    def make(samples: Floats) -> Floats:
        padded = np.pad(samples, window // 2)
        columns = [
            np.square(padded[i * HOP : i * HOP + window]).sum() for i in range(len(samples) // HOP + 1)
        ]
        return np.array(columns, np.float32).reshape(1, 1, -1)

    return make


@pytest.mark.parametrize(("window", "delay"), [(10, 0), (20, 0), (22, 1), (40, 1), (42, 2), (100, 4)])
def test_the_delay_is_how_far_windows_reach(window: int, delay: int) -> None:
    assert find_delay(energies(window), HOP, 10_000, 20) == delay


def normalised(samples: Floats) -> Floats:
    columns = energies(20)(samples)
    made: Floats = (columns - columns.mean()) / columns.std()
    return made


@pytest.mark.parametrize(
    ("make", "hop"),
    [(normalised, HOP), (energies(20), HOP * 2), (energies(200), HOP), (lambda _: None, HOP)],
)
def test_features_that_change_with_the_clip_are_refused(make: Any, hop: int) -> None:
    with pytest.raises(ContractError, match=r"normalised over a clip \(normalize 'per_feature'\)"):
        find_delay(make, hop, 10_000, 20)


def test_a_preprocessor_of_few_samples_is_refused() -> None:
    with pytest.raises(ContractError, match=r"preprocessor: expected to take 600 samples, .* got 599"):
        find_delay(energies(20), HOP, 599, 20)


@given(sizes=st.lists(st.integers(1, 90), min_size=1, max_size=30), piece=st.integers(1, 30))
def test_columns_of_any_pieces_are_those_of_the_whole(sizes: list[int], piece: int) -> None:
    samples = np.random.default_rng(0).normal(0, 1, sum(sizes)).astype(np.float32)
    make, stream, made = energies(40), FeatureStream(HOP, 1), []
    start = 0
    for size in sizes:
        stream.push(samples[start : start + size])
        start += size
        while stream.num_ready >= piece:
            made.append(stream.take(make, piece))
    made.append(stream.take(make, None))
    whole = np.concatenate(made, axis=2)
    np.testing.assert_array_equal(whole, make(samples))


# Pieces by id, as make_models.py has them.
PIECES = ["<unk>", *(f" {letter}" for letter in "abcdefghijklmnopqrst"), *"abcdefghijklmnopqrst", ".", "?"]


class Heard:
    """Symbols on frames of 0.1 s."""

    def __init__(self, **options: Any) -> None:
        self.sentences = Sentences(load_tokenizer(TOKENIZER), SpeechConfig(**options), 0.1)

    def say(self, piece: str, frame: int, duration: int = 1) -> Segment | None:
        symbol: Any = SimpleNamespace(token=PIECES.index(piece), frame=frame, duration=duration)
        return self.sentences.push(symbol)


def test_a_pause_ends_a_segment_and_no_word() -> None:
    heard = Heard(word_timestamps=True)
    heard.say(" a", 0)
    heard.say("b", 3, 2)
    assert heard.sentences.pause(1.2, 0.8, 30) is None
    ended = heard.sentences.pause(1.3, 0.8, 30)
    assert ended is not None
    assert (ended.text, ended.start, ended.end) == ("ab", 0.0, 0.5)
    assert [(word.word, word.start, word.end) for word in ended.words] == [("ab", 0.0, 0.5)]
    assert heard.sentences.pause(9.0, 0.8, 30) is None
    assert heard.sentences.partial is None
    heard.say("c", 13)  # a word that goes on, in a segment of its own
    assert heard.sentences.partial is not None
    assert heard.sentences.partial.text == "c"


def test_a_segment_without_an_end_is_cut_before_its_last_word() -> None:
    heard = Heard()
    for frame in range(0, 60, 6):
        heard.say(" a", frame)
        heard.say("b", frame + 3)
    assert heard.sentences.pause(6.0, 0.8, 6.0) is None
    ended = heard.sentences.pause(6.1, 0.8, 6.0)
    assert ended is not None
    assert ended.text == "ab" + " ab" * 8
    assert heard.sentences.partial is not None
    assert heard.sentences.partial.text == " ab"
    assert heard.sentences.partial.start == pytest.approx(5.4)
    rest = heard.sentences.finish(5.6)
    assert rest is not None
    assert (rest.text, rest.end) == (" ab", 5.6)  # not behind the audio


def test_one_endless_word_is_cut_all_the_same() -> None:
    heard = Heard()
    for frame in range(100):
        heard.say("a", frame)
    ended = heard.sentences.pause(10.0, 0.8, 6.0)
    assert ended is not None
    assert len(ended.tokens) == 100
    assert heard.sentences.partial is None


def test_a_sentence_ends_at_the_next_word() -> None:
    heard = Heard()
    assert heard.say(" a", 0) is None
    assert heard.say(".", 1, 9) is None
    ended = heard.say(" b", 2)
    assert ended is not None
    assert (ended.text, ended.start) == ("a.", 0.0)
    assert ended.end == pytest.approx(0.2)  # where the next one begins
