"""What is built when it is first asked for is built once, whatever threads ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from executorch_mm import ClipModel, MultimodalRunner, make_image_input, tokenizer
from executorch_mm._loading.background import Background
from executorch_mm._loading.lazy import BuiltOnce, once
from executorch_mm.chat import ChatTemplate, rendering, sandbox

MODELS = Path(__file__).parents[2] / "models"
T = TypeVar("T")


def at_once(*asks: Callable[[], T]) -> list[T]:
    """What several threads get that ask at the same time."""
    start = threading.Barrier(len(asks))
    got: list[T] = []

    def ask(what: Callable[[], T]) -> None:
        start.wait()
        got.append(what())

    threads = [threading.Thread(target=ask, args=[what]) for what in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(got) == len(asks)
    return got


class Slow:
    """Counts how often its parts are built, which takes a while."""

    def __init__(self) -> None:
        self.built: list[str] = []

    def build(self, name: str) -> object:
        self.built.append(name)
        time.sleep(0.02)
        return object()

    @BuiltOnce
    def first(self) -> object:
        """The first part."""
        return self.build("first")

    @BuiltOnce
    def second(self) -> object:
        return self.first, self.build("second")

    @BuiltOnce
    def third(self) -> object:
        if self.built.append("third") is None and len(self.built) < 3:
            raise ValueError("not yet")
        return "third"


def test_a_part_is_built_once() -> None:
    slow = Slow()
    assert len(set(map(id, at_once(*[lambda: slow.first] * 8)))) == 1
    assert slow.built == ["first"]


def test_parts_of_parts_are_built_once_too() -> None:
    slow = Slow()
    at_once(*[lambda: slow.second, lambda: slow.first] * 4)
    assert sorted(slow.built) == ["first", "second"]


def test_two_objects_have_a_part_each() -> None:
    one, other = Slow(), Slow()
    assert one.first is not other.first
    assert Slow.first.__doc__ == "The first part."


def test_a_part_that_fails_is_built_again() -> None:
    slow = Slow()
    for _ in range(2):
        with pytest.raises(ValueError, match="not yet"):
            _ = slow.third
    assert slow.third == slow.third == "third"
    assert len(slow.built) == 3


def test_a_function_builds_once_and_again_after_an_exception() -> None:
    calls: list[int] = []

    @once
    def build() -> object:
        calls.append(1)
        time.sleep(0.02)
        if len(calls) == 1:
            raise ValueError("not yet")
        return object()

    with pytest.raises(ValueError, match="not yet"):
        build()
    assert len(set(map(id, at_once(*[build] * 8)))) == 1
    assert len(calls) == 2


def test_the_first_templates_of_many_threads_share_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def slow_init(self: sandbox.Sandbox, original: Callable[..., None] = sandbox.Sandbox.__init__) -> None:
        made.append(self)
        time.sleep(0.05)
        original(self)

    @once
    def fresh() -> sandbox.Sandbox:
        return sandbox.Sandbox()

    monkeypatch.setattr(sandbox.Sandbox, "__init__", slow_init)
    monkeypatch.setattr(rendering, "_sandbox", fresh)
    at_once(*[lambda: ChatTemplate("{{ messages }}")] * 8)
    assert len(made) == 1


def test_a_template_counts_against_a_budget_of_its_own_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever sandbox is the current one: a budget that is not renewed ends every later chat."""
    monkeypatch.setattr(rendering, "_sandbox", sandbox.Sandbox)  # another one for each call
    loop = ChatTemplate("{% for i in range(1000) %}{{ i }}{% endfor %}")
    texts = {loop.render([]) for _ in range(600)}  # more steps together than one may take
    assert texts == {"".join(map(str, range(1000)))}


def test_the_chats_of_many_threads_share_what_belongs_to_the_runner(runner: MultimodalRunner) -> None:
    vars(runner).pop("_chat", None)
    assert len(set(map(id, at_once(*[lambda: runner._chat] * 8)))) == 1


def test_a_clip_models_tokenizer_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from executorch_mm import clip

    loaded: list[object] = []

    def load(path: Path) -> tokenizer.Tokenizer:
        loaded.append(path)
        time.sleep(0.05)
        return tokenizer.load_tokenizer(path)

    monkeypatch.setattr(clip, "load_tokenizer", load)
    with ClipModel(MODELS / "clip" / "clip.pte") as model:
        at_once(*[lambda: model.tokenizer] * 4)
    assert len(loaded) == 1


def test_a_models_image_processor_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from executorch_mm.preprocess import find

    loaded: list[object] = []

    def read(*found: object, original: Callable[..., object] = find.parse_image_config) -> object:
        loaded.append(found)
        time.sleep(0.05)
        return original(*found)

    with MultimodalRunner.demo(num_threads=1) as runner:
        monkeypatch.setattr(find, "parse_image_config", read)
        image = np.zeros((64, 64, 3), np.uint8)
        encoder = runner._requests.encoder
        at_once(*[lambda: encoder._processors.image] * 4)
        runner.prefill([make_image_input(image)])
    assert len(loaded) == 1


def test_work_in_the_background_gives_its_result_or_its_error() -> None:
    assert Background(lambda: 5).result() == 5
    failing = Background(lambda: int("x"))
    with pytest.raises(ValueError, match="invalid literal"):
        failing.result()


def test_without_a_thread_to_be_had_work_is_done_in_the_foreground(
    monkeypatch: pytest.MonkeyPatch, demo_folder: Path
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert Background(lambda: 5).result() == 5
    with MultimodalRunner(demo_folder / "model.pte", demo_folder) as runner:
        assert runner.generate_text("red", max_new_tokens=3, ignore_eos=True)
