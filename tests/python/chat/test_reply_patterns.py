"""Delimiters of answers: what Python's re finds, in linear time, and known as soon as it is certain."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executorch_mm import InputError
from executorch_mm.chat.replies.patterns import Budget, Delimiter, Found, Literals, Pattern

PLACES = ["^", "$", r"\b"]
ATOMS = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", r"\w", r"\s", "(?:ab|a)", "(?P<g>a+)", "(b)", *PLACES]
)
REPEATS = st.sampled_from(["", "", "*", "+", "?", "*?", "+?", "{2}", "{1,2}"])
PIECES = st.tuples(ATOMS, REPEATS).map(lambda pair: pair[0] if pair[0] in PLACES else "".join(pair))
SOURCES = (
    st.lists(PIECES, min_size=1, max_size=5).map("".join).filter(lambda source: source.count("?P<g>") < 2)
)
TEXTS = st.text("ab \n", max_size=12)


@given(SOURCES, SOURCES, st.booleans(), TEXTS, st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_matches_are_those_of_re(source: str, other: str, has_other: bool, text: str, begin: int) -> None:
    if has_other:
        source = f"{source}|{other.replace('?P<g>', '?:')}"
    begin = min(begin, len(text))
    expected = re.compile(source, re.DOTALL).search(text, begin)
    found = Pattern(source).search(text, begin, Budget())
    if expected is None:
        assert found is None
    else:
        groups = {name: value for name, value in expected.groupdict().items() if value is not None}
        assert found == Found(*expected.span(), groups)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (r"<f=(?P<name>[^>]+)>", "x <f=abc> y"),
        (r"(?<=x)a(?=b)", "aab xab"),
        (r"a(?!b)", "abaa"),
        (r"(?<!x)a", "xaa"),
        (r"\Aab|b\Z", "cab ab b"),
        (r"\B.\D\S", "ab cd1 e"),
        (r"[a-c\d]+[^\W_]", "_1b2_"),
        (r"(a)|(?P<n>b)", "cb"),
        (r"(?:a?){3}a{3}", "aaa"),
    ],
)
def test_looks_anchors_and_classes_match_as_in_re(source: str, text: str) -> None:
    expected = [match.span() for match in re.compile(source, re.DOTALL).finditer(text)]
    assert [(found.start, found.end) for found in Pattern(source).all_in(text, Budget())] == expected
    assert expected


@pytest.mark.parametrize(
    "source", [r"(a+)+b", r"(a|a)*b", r"(a|aa)+$b", r"(.*)(.*)(.*)b", r"(?:a?){30}a{30}b"]
)
def test_no_pattern_takes_longer_than_the_text_is_long(source: str) -> None:
    times = []
    for length in (250, 1000):
        begin = time.process_time()
        assert Pattern(source).search("a" * length, 0, Budget(10**9)) is None
        times.append(time.process_time() - begin)
    assert times[1] < 12 * times[0] + 0.05
    with pytest.raises(InputError, match="response_template: its patterns take too many steps"):
        Pattern(source).search("a" * 1000, 0, Budget(1000))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (r"(a)\1", "expected nothing that takes unbounded time, got GROUPREF"),
        ("(?i)a", "expected a pattern without flags"),
        ("(?i:a)", "expected groups without flags"),
        ("(?<=a*)b", "expected a look-behind of one width"),
        ("(?<=a|bc)d", "expected a look-behind of one width"),
        ("(", "expected a regular expression"),
        ("a" * 1001, "expected a pattern of at most 1,000 characters"),
        ("a{3000}", "expected at most 2,000 steps"),
        ("(a{100}){100}", "expected at most 2,000 steps"),
        ("(" * 500 + ")" * 500, "expected"),
        (3, "expected a pattern"),
    ],
)
def test_patterns_that_cannot_be_bounded_are_refused(source: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Pattern(source)


def certain(delimiter: Delimiter, text: str) -> Found | None:
    """What is found once the text comes character by character, as soon as it is certain."""
    for end in range(len(text) + 1):
        found = delimiter.search(text[:end], 0, Budget(), is_end=False)
        if found is not None and not found.is_open:
            return found
    return delimiter.search(text, 0, Budget())


@given(SOURCES, TEXTS)
@settings(max_examples=100, deadline=None)
def test_a_match_that_is_certain_stays_what_it_is(source: str, text: str) -> None:
    pattern = Pattern(source)
    assert certain(pattern, text) == pattern.search(text, 0, Budget())


@given(st.lists(st.text("ab<", min_size=1, max_size=4), min_size=1, max_size=3), st.text("ab<", max_size=12))
@settings(max_examples=200, deadline=None)
def test_texts_are_found_as_patterns_of_them(texts: list[str], text: str) -> None:
    pattern = Pattern("|".join(re.escape(one) for one in sorted({*texts}, key=len, reverse=True)))
    assert Literals(texts).search(text, 0, Budget()) == pattern.search(text, 0, Budget())
    assert certain(Literals(texts), text) == pattern.search(text, 0, Budget())


def test_only_what_may_become_a_delimiter_is_held_back() -> None:
    assert Literals(["<tool_call>"]).search("a <b> <tool", 0, Budget(), is_end=False) == Found(6, 6, {}, True)
    assert Literals(["<tool_call>"]).search("a <b> tool", 0, Budget(), is_end=False) is None
    assert Pattern(r"<f=\w+>").search("a <f=b", 0, Budget(), is_end=False) == Found(2, 2, {}, True)
    assert Pattern(r"<f=\w+>").search("a <f= b", 0, Budget(), is_end=False) is None
    assert Literals(["a", "ab"]).search("xa", 0, Budget(), is_end=False) == Found(1, 1, {}, True)
    assert Literals(["a", "ab"]).search("xac", 0, Budget(), is_end=False) == Found(1, 2, {})
