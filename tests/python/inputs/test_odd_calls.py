"""Paths, callbacks and systems that are odd, but legal: they work, or end in an error of this package."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from executorch_mm import (
    ExecutionError,
    ExecutorchMMError,
    InputError,
    ModelLoadError,
    MultimodalRunner,
    Regex,
    TokenizerError,
    inspect_model,
    load_tokenizer,
)
from executorch_mm._tokenizers import hf
from executorch_mm._tokenizers.hf import load_hf
from executorch_mm._tokenizers.tiktoken_ranks import load_tiktoken

CHAT = [{"role": "user", "content": "hi"}]
SECONDS = 20  # more than any of these takes, less than for ever


@pytest.fixture
def odd_folder(tmp_path: Path, demo_folder: Path) -> str:
    """The shipped model in a folder whose name is no UTF-8."""
    folder = os.fsencode(tmp_path) + b"/\xff\xfe"
    try:
        shutil.copytree(os.fsencode(demo_folder), folder)
    except OSError:
        pytest.skip("this system has no such names of files")
    return os.fsdecode(folder)


def test_a_folder_whose_name_is_not_utf_8_holds_a_model(odd_folder: str) -> None:
    with MultimodalRunner(f"{odd_folder}/model.pte", num_threads=1) as runner:
        assert runner.generate_text("how many shapes are there?", max_new_tokens=4)
    assert inspect_model(f"{odd_folder}/model.pte").path == f"{odd_folder}/model.pte"
    with pytest.raises(ModelLoadError, match="no such file"):
        MultimodalRunner(f"{odd_folder}/other.pte", odd_folder)


def test_a_null_byte_ends_no_path(demo_folder: Path) -> None:
    """The system would open the file that is named before it."""
    path = f"{demo_folder / 'model.pte'}\0.other"
    for call in (
        lambda: MultimodalRunner(path, demo_folder),
        lambda: MultimodalRunner(demo_folder / "model.pte", path),
        lambda: MultimodalRunner(demo_folder / "model.pte", demo_folder, profile_path=path),
        lambda: inspect_model(path),
        lambda: load_tokenizer(path),
    ):
        with pytest.raises(InputError, match="null byte"):
            call()


def test_a_pipe_is_no_tokenizer_and_nobody_waits_for_it(tmp_path: Path, demo_folder: Path) -> None:
    pipe = tmp_path / "tokenizer.json"
    os.mkfifo(pipe)
    program = (
        "import sys\nfrom executorch_mm import MultimodalRunner, TokenizerError\n"
        "try:\n    MultimodalRunner(sys.argv[1], sys.argv[2])\n"
        "except TokenizerError as error:\n    print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, demo_folder / "model.pte", pipe],
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "regular file" in found.stdout


@pytest.mark.parametrize("timeout", [1e300, sys.float_info.max, 2**62])
def test_a_timeout_may_be_longer_than_any_clock_counts(runner: MultimodalRunner, timeout: float) -> None:
    text = runner.generate_text("how many shapes are there?", max_new_tokens=4)
    runner.reset()
    assert runner.generate_text("how many shapes are there?", max_new_tokens=4, timeout=timeout) == text


def _stop(*_: object) -> None:
    raise StopIteration("mine")


def _stop_async(*_: object) -> None:
    raise StopAsyncIteration("mine")


async def _read(stream: object) -> None:
    async for _ in stream:  # type: ignore[attr-defined]
        pass


@pytest.mark.parametrize("callback", [_stop, _stop_async])
@pytest.mark.parametrize(
    "call",
    [
        lambda runner, callback: runner.generate("hi", token_callback=callback, max_new_tokens=2),
        lambda runner, callback: runner.generate("hi", stats_callback=callback, max_new_tokens=2),
        lambda runner, callback: runner.generate("hi", progress=callback, max_new_tokens=2),
        lambda runner, callback: runner.prefill("hi", progress=callback),
        lambda runner, callback: runner.generate_text("hi", logits_processors=[callback], max_new_tokens=2),
        lambda runner, callback: list(runner.stream("hi", progress=callback, max_new_tokens=2)),
        lambda runner, callback: list(runner.stream("hi", logits_processors=[callback], max_new_tokens=2)),
        lambda runner, callback: asyncio.run(
            _read(runner.astream("hi", logits_processors=[callback], max_new_tokens=2))
        ),
    ],
    ids=["token", "stats", "progress", "prefill", "processor", "stream", "stream processor", "astream"],
)
def test_the_end_of_an_iterator_in_a_callback_is_an_error_with_its_name(
    runner: MultimodalRunner,
    call: Callable[[MultimodalRunner, Callable[..., None]], object],
    callback: Callable[..., None],
) -> None:
    with pytest.raises(InputError, match=r"Stop(Async)?Iteration") as caught:
        call(runner, callback)
    assert isinstance(caught.value.__cause__, (StopIteration, StopAsyncIteration))
    runner.reset()
    assert runner.generate_text("how many shapes are there?", max_new_tokens=4)


# What pyo3 raises when Rust panics is named so, and no Exception.
Panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})


def panics(*_: object, **__: object) -> NoReturn:
    raise Panic("index out of bounds")


@pytest.mark.parametrize(
    "call",
    [
        lambda tokenizer: tokenizer.encode("a"),
        lambda tokenizer: tokenizer.encode_parts(["a"], frozenset("b")),
        lambda tokenizer: tokenizer.text_tokens(),
    ],
    ids=["encode", "encode_parts", "text_tokens"],
)
def test_a_panic_of_the_tokenizer_s_library_is_a_tokenizer_error(
    demo_folder: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[[object], object]
) -> None:
    class Panics:
        def __getattr__(self, name: str) -> Callable[..., object]:
            return panics

    tokenizer = load_hf(demo_folder / "tokenizer.json")
    with monkeypatch.context() as patched:
        patched.setattr(tokenizer, "_tokenizer", Panics())
        with pytest.raises(TokenizerError, match="given up: index out of bounds"):
            call(tokenizer)
    assert tokenizer.encode("a")


def test_a_panic_while_a_tokenizer_is_loaded_is_a_tokenizer_error(
    demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hf, "compile_decoder", panics)
    with pytest.raises(TokenizerError, match="given up: index out of bounds"):
        load_hf(demo_folder / "tokenizer.json")


def test_a_panic_of_tiktoken_is_a_tokenizer_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    path = tmp_path / "ranks.tiktoken"
    path.write_bytes(b"".join(base64.b64encode(bytes([i])) + b" %d\n" % i for i in range(256)))
    tokenizer = load_tiktoken(path)
    expected = tokenizer.encode("ab")
    with monkeypatch.context() as patched:
        patched.setattr(tiktoken.Encoding, "encode_ordinary", panics)
        with pytest.raises(TokenizerError, match="given up: index out of bounds"):
            tokenizer.encode("ab")
    assert tokenizer.encode("ab") == expected
    monkeypatch.setattr(tiktoken, "Encoding", panics)
    with pytest.raises(TokenizerError, match="given up: index out of bounds"):
        load_tiktoken(path)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("grammar_from_regex", InputError),
        ("is_error", InputError),
        ("consume_token", ExecutionError),
        ("unsafe_compute_mask_ptr", ExecutionError),
        ("is_stopped", ExecutionError),
    ],
)
def test_a_panic_of_llguidance_is_a_typed_error_and_the_runner_answers(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch, method: str, kind: type[ExecutorchMMError]
) -> None:
    import llguidance

    wanted = Regex("(a|b|c){3}")
    runner.reset()
    expected = runner.generate_text("how many", max_new_tokens=6, response_format=wanted)

    class Matcher:
        """The library's, but for one method."""

        def __init__(self, *args: object, **kwargs: object) -> None:
            self._inner = matcher(*args, **kwargs)

        def __getattr__(self, name: str) -> object:
            return panics if name == method else getattr(self._inner, name)

    matcher = llguidance.LLMatcher
    for name in ("grammar_from_regex", "grammar_from_json_schema", "validate_grammar_with_warnings"):
        setattr(Matcher, name, panics if name == method else staticmethod(getattr(matcher, name)))
    with monkeypatch.context() as patched:
        patched.setattr(llguidance, "LLMatcher", Matcher)
        runner.reset()
        with pytest.raises(kind, match="response_format: the library has given up: index out of bounds"):
            runner.generate_text("how many", max_new_tokens=6, response_format=wanted)
    runner.reset()
    assert runner.generate_text("how many", max_new_tokens=6, response_format=wanted) == expected


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where the memory for another thread's stack is not to be had."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    yield
    monkeypatch.undo()


def test_without_memory_for_a_thread_a_task_gets_a_typed_error_and_the_runner_answers(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread, *__: object, **___: object) -> NoReturn:
        raise MemoryError

    async def main() -> str:
        for name in ("start", "__init__"):
            with monkeypatch.context() as patched:
                patched.setattr(threading.Thread, name, refuse)
                with pytest.raises(ExecutionError, match="no thread can be started"):
                    await runner.agenerate_text("hi", max_new_tokens=1)
                with pytest.raises(ExecutionError, match="no thread can be started"):
                    await anext(runner.astream("hi", max_new_tokens=1))
        return await runner.agenerate_text("hi", max_new_tokens=4)

    runner.reset()
    expected = runner.generate_text("hi", max_new_tokens=4)
    runner.reset()
    assert asyncio.run(main()) == expected


@pytest.mark.usefixtures("no_threads")
def test_where_no_thread_can_be_started_models_load_and_tasks_get_a_typed_error(demo_folder: Path) -> None:
    with MultimodalRunner(demo_folder / "model.pte", num_threads=1) as runner:
        assert runner.generate_text("how many shapes are there?", max_new_tokens=4)
        for call in (
            lambda: runner.agenerate_text("hi", max_new_tokens=1),
            lambda: runner.achat(CHAT, max_new_tokens=1),
        ):

            async def wait(call: Callable[[], object] = call) -> object:
                return await call()  # type: ignore[misc]

            loop = asyncio.new_event_loop()  # asyncio.run() starts a thread itself, when it ends
            with pytest.raises(ExecutionError, match="no thread can be started"):
                loop.run_until_complete(wait())
            loop.close()


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_the_demo_runs_with_closed_standard_streams(closed: tuple[int, ...]) -> None:
    command = f"exec {sys.executable} -m executorch_mm demo --seed 1 --no-color"
    for number in closed:
        command += f" {number}>&-" if number else " 0<&-"
    result = subprocess.run(["sh", "-c", command], timeout=60, capture_output=True, check=False)
    assert result.returncode == 0
    assert b"Traceback" not in result.stderr + result.stdout
