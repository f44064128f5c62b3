"""TextStream against a reference that looks at the whole text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_mm._engine.text_stream import TextStream
from executorch_mm.errors import InputError


class Pieces:
    """A tokenizer whose token i is the i-th of a list of byte strings."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = list(pieces)
        self.vocab_size = len(self.pieces)
        self.bos_id = None
        self.eos_ids = frozenset[int]()

    def decoder(self, *, skip_special_tokens: bool = True, after: Sequence[int] = ()):
        from executorch_mm._tokenizers.utf8 import PieceDecoder

        return PieceDecoder(lambda i, _: (self.pieces[i], 0), lambda _: False, 0, mark_each_byte=False)


def stream_of(pieces: Sequence[str | bytes], stop: Sequence[str], include_stop: bool = False) -> TextStream:
    data = [piece if isinstance(piece, bytes) else piece.encode() for piece in pieces]
    return TextStream(Pieces(data), stop, include_stop)


def run(
    pieces: Sequence[str | bytes], stop: Sequence[str], include_stop: bool = False
) -> tuple[list[str], str | None]:
    stream = stream_of(pieces, stop, include_stop)
    shown = [stream.push(i) for i in range(len(pieces))]
    return [*shown, stream.finish()], stream.stopped


def reference(text: str, stop: Sequence[str], include_stop: bool) -> tuple[str, str | None]:
    """The first stop string to be complete, the longest of those, by trying every end."""
    for end in range(len(text) + 1):
        hits = [s for s in stop if text[:end].endswith(s)]
        if hits:
            hit = max(hits, key=len)
            return text[: end if include_stop else end - len(hit)], hit
    return text, None


texts = st.text(alphabet="ab\nué🙂", max_size=40)
stops = st.lists(st.text(alphabet="ab\né🙂", min_size=1, max_size=5), max_size=4)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), text=texts, stop=stops, include_stop=st.booleans())
def test_any_cutting_into_tokens_shows_what_the_whole_text_shows(
    data: st.DataObject, text: str, stop: list[str], include_stop: bool
) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    shown, stopped = run(pieces, stop, include_stop)
    assert ("".join(shown), stopped) == reference(text, stop, include_stop)


@settings(max_examples=200, deadline=None)
@given(text=texts, stop=stops)
def test_what_is_held_is_exactly_the_longest_end_that_begins_a_stop_string(
    text: str, stop: list[str]
) -> None:
    if reference(text, stop, False)[1] is not None:
        return
    shown = "".join(run(list(text), stop)[0][:-1])
    begins = [text[i:] for i in range(len(text)) if any(s.startswith(text[i:]) for s in stop)]
    assert shown + max(begins, key=len, default="") == text


@pytest.mark.parametrize(
    ("pieces", "stop", "expected", "stopped"),
    [
        (["a red", " circ", "le<", "/en", "d> more"], ["</end>"], "a red circle", "</end>"),
        (["x\n", "\ny"], ["\n\n"], "x", "\n\n"),
        (["aaab"], ["aab"], "a", "aab"),
        (["abc"], ["abcd", "bc"], "a", "bc"),
        (["abcd"], ["abcd", "d"], "", "abcd"),
        (["abab", "x"], ["ababy"], "ababx", None),
        (["stop"], ["stop"], "", "stop"),
        (["sto"], ["stop"], "sto", None),
    ],
)
def test_stop_strings_are_found_across_tokens_and_never_shown(
    pieces: list[str], stop: list[str], expected: str, stopped: str | None
) -> None:
    shown, hit = run(pieces, stop)
    assert ("".join(shown), hit) == (expected, stopped)


def test_text_that_cannot_begin_a_stop_string_is_shown_at_once() -> None:
    assert run(["hello <", "b>", " <|", "xy"], ["<|end|>"])[0] == ["hello ", "<b>", " ", "<|xy", ""]


def test_include_stop_shows_the_stop_string_and_nothing_after_it_without_holding_back() -> None:
    assert run(["a<", "|end|", ">b", "c"], ["<|end|>"], include_stop=True) == (
        ["a<", "|end|", ">", "", ""],
        "<|end|>",
    )


def test_a_character_split_over_tokens_comes_whole() -> None:
    smile = "🙂".encode()
    assert run([b"ok ", smile[:1], smile[1:3], smile[3:] + b"!"], [])[0] == ["ok ", "", "", "🙂!", ""]


def test_finish_gives_an_unfinished_character_as_one_replacement_character_once() -> None:
    stream = stream_of(["é".encode()[:1]], [])
    assert stream.push(0) == ""
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""
    assert stream.push(0) == ""


def test_nothing_is_shown_after_a_stop_string() -> None:
    stream = stream_of(["a.", "b"], ["."])
    assert [stream.push(0), stream.push(1), stream.finish()] == ["a", "", ""]
    assert stream.stopped == "."


def test_one_string_is_one_stop_string_not_its_characters() -> None:
    assert run(["a e", "nd"], "end")[0] == ["a ", "", ""]


@pytest.mark.parametrize("stop", [[""], ["a", ""], [3], [None]])
def test_an_empty_or_non_string_stop_is_an_input_error(stop: list[str]) -> None:
    with pytest.raises(InputError, match="stop: expected non-empty strings"):
        stream_of([], stop)


def test_cost_grows_linearly_with_the_text_even_for_stop_strings_that_keep_almost_matching() -> None:
    # Counted, not timed: every character moves the automaton forward once and back at most as often.
    steps = 0

    class Counting(dict[str, int]):
        def __contains__(self, key: object) -> bool:
            nonlocal steps
            steps += 1
            return super().__contains__(key)

    stream = stream_of(["a" * 63 + "c"], ["a" * 64 + "b", "a" * 32 + "b"])
    matcher = stream._matcher
    assert matcher is not None
    matcher._next = [Counting(edges) for edges in matcher._next]
    for _ in range(100):
        stream.push(0)
    assert steps <= 3 * 64 * 100
