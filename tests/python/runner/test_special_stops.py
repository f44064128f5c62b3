"""Stop texts in which control tokens take part: where an answer ends, and what of it is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import GenerationResult, MultimodalRunner
from executorch_mm._engine.text_stream import TextStream
from executorch_mm.tokenizer import Tokenizer, load_tokenizer

# transformers 5.24's StopStringCriteria, see tools/fixtures/text/make_stops.py.
RECORDED = json.loads(
    (Path(__file__).resolve().parents[2] / "data" / "text" / "stops.json").read_text(encoding="utf-8")
)
KINDS = list(RECORDED)


@pytest.fixture(scope="module")
def tokenizer_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    def load(kind: str) -> Tokenizer:
        file = tmp_path_factory.mktemp(kind) / "tokenizer.json"
        file.write_text(json.dumps(RECORDED[kind]["tokenizer"]), encoding="utf-8")
        return load_tokenizer(file)

    return load


def shown_by(stream: TextStream, ids: list[int]) -> tuple[str, int | None]:
    """The text, and the number of tokens until a stop string."""
    text = ""
    for count, token in enumerate(ids, start=1):
        text += stream.push(token)
        if stream.stopped is not None:
            return text, count
    return text + stream.finish(), None


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_ends_at_the_token_where_it_does_in_transformers(
    kind: str, tokenizer_of: Callable[[str], Tokenizer]
) -> None:
    tokenizer = tokenizer_of(kind)
    prompt = tokenizer.encode("abcdef")
    num_stopped = 0
    for case in RECORDED[kind]["cases"]:
        stream = TextStream(tokenizer, case["stop"], after=prompt)
        assert shown_by(stream, case["ids"])[1] == case["num_tokens"], case
        num_stopped += case["num_tokens"] is not None
    assert num_stopped > 80


@pytest.mark.parametrize("include_stop", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_before_the_stop_text_is_shown_without_its_control_tokens(
    kind: str, include_stop: bool, tokenizer_of: Callable[[str], Tokenizer]
) -> None:
    tokenizer = tokenizer_of(kind)
    prompt = tokenizer.encode("abcdef")
    num_compared = 0
    for case in RECORDED[kind]["cases"]:
        stream = TextStream(tokenizer, case["stop"], include_stop, after=prompt)
        shown, _ = shown_by(stream, case["ids"])
        texts = [bytes.fromhex(RECORDED[kind]["texts"][str(token)]) for token in case["ids"]]
        try:
            whole = [text.decode() for text in _joined_characters(texts)]
        except UnicodeDecodeError:
            continue  # broken characters are counted differently from kind to kind
        is_shown = [not tokenizer.is_special(token) for token in case["ids"]]
        assert shown == _expected(whole, is_shown, case["stop"], include_stop), case
        num_compared += 1
    assert num_compared > 60


def _joined_characters(texts: list[bytes]) -> list[bytes]:
    """The same with each character in the token that completes it."""
    moved, begun = [], b""
    for text in texts:
        begun += text
        end = len(begun.decode("utf-8", "ignore").encode())
        moved.append(begun[:end])
        begun = begun[end:]
    return [*moved[:-1], moved[-1] + begun]


def _expected(texts: list[str], is_shown: list[bool], stops: list[str], include_stop: bool) -> str:
    """By trying every end in the whole text."""
    whole = "".join(texts)
    flags = [shown for text, shown in zip(texts, is_shown, strict=True) for _ in text]
    for end in range(1, len(whole) + 1):
        hits = [stop for stop in stops if whole[:end].endswith(stop)]
        if hits:
            stop = max(hits, key=len)
            before = range(end - len(stop))
            return "".join(whole[i] for i in before if flags[i]) + (stop if include_stop else "")
    return "".join(char for char, shown in zip(whole, flags, strict=True) if shown)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("<|user|>h", ["h", "", "<|user|>h"]),
        ("r|>h", ["h", "", "r|>h"]),
        ("h<|user|>h", ["h", "", "<|user|>h"]),
        ("h<|user|>", ["h", "<|user|>"]),
        ("<|user|>.", ["h", "", "h", ""]),
    ],
)
def test_what_has_been_shown_of_a_stop_text_is_not_shown_again(
    stop: str, expected: list[str], tokenizer_of: Callable[[str], Tokenizer]
) -> None:
    tokenizer = tokenizer_of("byte_level")
    stream = TextStream(tokenizer, [stop], include_stop=True)
    pieces = [stream.push(token) for token in tokenizer.encode("h<|user|>h")]
    assert [*pieces, stream.finish()][: len(expected)] == expected
    assert stream.stopped == (None if "." in stop else stop)


def test_nothing_waits_for_a_stop_text_that_cannot_come_any_more(
    tokenizer_of: Callable[[str], Tokenizer],
) -> None:
    tokenizer = tokenizer_of("byte_level")
    mark = tokenizer.token_to_id("<|user|>")
    assert mark is not None
    how, dot = tokenizer.encode("h")[0], tokenizer.encode(".")[0]
    for include_stop in (False, True):
        stream = TextStream(tokenizer, ["h<|user|>h"], include_stop)
        early = "h" if include_stop else ""
        assert [stream.push(how), stream.push(mark), stream.push(dot)] == [early, "", "h."[len(early) :]]
        assert [stream.push(how), stream.finish()] == [early, "h"[len(early) :]]


# With a model: the script says what it answers.

MARK = "<|user|>"
STOPS = [MARK, MARK + "how", "how" + MARK, "ser|>how", "w" + MARK + "h", "<", "how" + MARK + "how"]


def scripted(runner: MultimodalRunner, words: list[str]) -> Callable[[list[int], np.ndarray], None]:
    """A processor that has the model answer these words, each a token."""
    ids = iter([runner.tokenizer.encode(word)[0] for word in words])

    def say(_: list[int], logits: np.ndarray) -> None:
        logits[:] = -np.inf
        logits[next(ids)] = 0

    return say


def answer(runner: MultimodalRunner, words: list[str], **options: object) -> GenerationResult:
    runner.reset()
    processors = [scripted(runner, words)]
    return runner.generate_result("many", logits_processors=processors, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("include_stop", [False, True])
@pytest.mark.parametrize("stop", STOPS)
def test_a_stop_text_with_a_control_token_is_found_in_every_form(
    runner: MultimodalRunner, stop: str, include_stop: bool
) -> None:
    words = ["how", MARK, "how", "how", "how"]
    whole = "".join(words)
    begin = whole.index(stop)
    expected = whole[:begin].replace(MARK, "").removesuffix("<|u").removesuffix("<|")
    if include_stop:
        expected += stop
    result = answer(runner, words, max_new_tokens=5, stop=[stop], include_stop=include_stop)
    assert (result.finish_reason, result.stopped_by) == ("stop", stop)
    assert result.text == expected

    def options() -> dict[str, object]:
        runner.reset()
        processors = [scripted(runner, words)]
        return {"stop": stop, "include_stop": include_stop, "logits_processors": processors}

    async def astream() -> str:
        return "".join([piece async for piece in runner.astream("many", **options())])  # type: ignore[arg-type]

    pieces: list[str] = []
    messages = [{"role": "user", "content": "many"}]
    calls: list[Callable[[], str]] = [
        lambda: runner.generate_text("many", **options()),  # type: ignore[arg-type]
        lambda: "".join(runner.stream("many", **options())),  # type: ignore[arg-type]
        lambda: runner.generate("many", None, pieces.append, **options()) or "".join(pieces),  # type: ignore[arg-type]
        lambda: asyncio.run(astream()),
        lambda: runner.chat(messages, **options()).text,  # type: ignore[arg-type]
        lambda: "".join(runner.stream_chat(messages, **options())),  # type: ignore[arg-type]
    ]
    for call in calls:
        assert call() == expected
        assert (runner.stats.finish_reason, runner.stats.stopped_by) == ("stop", stop)


@pytest.mark.parametrize("stop", ["howhow", "how how", "<|end|>how", MARK + MARK])
def test_a_control_token_keeps_apart_what_is_no_stop_text(runner: MultimodalRunner, stop: str) -> None:
    result = answer(runner, ["how", MARK, "how", MARK], max_new_tokens=4, stop=[stop])
    assert (result.finish_reason, result.stopped_by, result.text) == ("length", None, "howhow")


@pytest.mark.parametrize("include_stop", [False, True])
@pytest.mark.parametrize("stop", ["<|end|>", "how<|end|>", "end|>"])
def test_the_token_that_ends_an_answer_completes_a_stop_text(
    runner: MultimodalRunner, stop: str, include_stop: bool
) -> None:
    result = answer(runner, ["how", "how", "<|end|>"], stop=[stop], include_stop=include_stop)
    assert (result.finish_reason, result.stopped_by) == ("stop", stop)
    before = "how" if stop.startswith("how") else "howhow"
    assert result.text == before + (stop if include_stop else "")
    assert len(result.token_ids) == 3


def test_a_stop_token_is_looked_at_once(runner: MultimodalRunner) -> None:
    mark = runner.tokenizer.token_to_id(MARK)
    for include_stop in (False, True):
        result = answer(
            runner, ["how", MARK], stop=[MARK + MARK, "x"], stop_token_ids=[mark], include_stop=include_stop
        )
        assert (result.finish_reason, result.stopped_by, result.text) == ("stop", mark, "how")


def test_the_conversation_goes_on_behind_a_stop_text(runner: MultimodalRunner) -> None:
    stopped = answer(runner, ["how", MARK, "how"], stop=[MARK])
    position = runner.position
    following = runner.generate_result("red", max_new_tokens=5).token_ids
    cut = answer(runner, ["how", MARK], max_new_tokens=2)
    assert (cut.token_ids, runner.position) == (stopped.token_ids, position)
    assert runner.generate_result("red", max_new_tokens=5).token_ids == following
