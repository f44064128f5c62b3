"""Streams as objects: generators in all they can do, which know the result at the end."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    AsyncStream,
    BusyError,
    GenerationConfig,
    GenerationResult,
    InputError,
    MultimodalRunner,
    SpeechRunner,
    Stream,
)

PROMPT = "red"  # whose answer has a piece for each token
MESSAGES = [{"role": "user", "content": "describe this picture"}]
OPTIONS = GenerationConfig(max_new_tokens=6, ignore_eos=True, logprobs=1)
SPEECH = Path(__file__).parents[2] / "models" / "speech"


def told(result: GenerationResult | None) -> tuple[Any, ...]:
    """Of a result what does not depend on the clock."""
    assert result is not None
    return (result.text, result.token_ids, result.logprobs, result.finish_reason, result.stopped_by)


def open_stream(runner: MultimodalRunner, form: str, **options: Any) -> Stream[str, GenerationResult]:
    runner.reset()
    if form == "chat":
        return runner.stream_chat(MESSAGES, OPTIONS, **options)
    return runner.stream(PROMPT, OPTIONS, **options)


def open_async_stream(
    runner: MultimodalRunner, form: str, **options: Any
) -> AsyncStream[str, GenerationResult]:
    runner.reset()
    if form == "chat":
        return runner.astream_chat(MESSAGES, OPTIONS, **options)
    return runner.astream(PROMPT, OPTIONS, **options)


def whole(runner: MultimodalRunner, form: str, **options: Any) -> GenerationResult:
    runner.reset()
    if form == "chat":
        return runner.chat(MESSAGES, OPTIONS, **options)
    return runner.generate_result(PROMPT, OPTIONS, **options)


@pytest.mark.parametrize("form", ["stream", "chat"])
@pytest.mark.parametrize("options", [{}, {"max_new_tokens": 0}, {"stop": "e"}, {"ignore_eos": False}])
def test_an_exhausted_stream_has_the_result_of_the_whole_answer(
    runner: MultimodalRunner, form: str, options: dict[str, Any]
) -> None:
    stream = open_stream(runner, form, **options)
    assert stream.result is None
    pieces = []
    for piece in stream:
        assert stream.result is None
        pieces.append(piece)
    assert told(stream.result) == told(whole(runner, form, **options))
    assert stream.result is not None
    assert stream.result.text == "".join(pieces)
    assert stream.result.stats.finish_reason == stream.result.finish_reason


@pytest.mark.parametrize("form", ["stream", "chat"])
@pytest.mark.parametrize("options", [{}, {"max_new_tokens": 0}, {"stop": "e"}, {"ignore_eos": False}])
def test_so_has_an_asynchronous_one(runner: MultimodalRunner, form: str, options: dict[str, Any]) -> None:
    async def run() -> AsyncStream[str, GenerationResult]:
        stream = open_async_stream(runner, form, **options)
        assert stream.result is None
        async for _ in stream:
            assert stream.result is None
        return stream

    assert told(asyncio.run(run()).result) == told(whole(runner, form, **options))


def test_a_stream_that_is_left_early_tells_what_there_is(runner: MultimodalRunner) -> None:
    stream = open_stream(runner, "stream")
    pieces = [next(stream), next(stream)]
    stream.close()
    assert stream.result is not None
    assert stream.result.finish_reason == "cancelled"
    assert stream.result.text == "".join(pieces)
    assert len(stream.result.token_ids) == len(pieces)
    assert list(stream) == []


def test_so_does_an_asynchronous_one(runner: MultimodalRunner) -> None:
    async def run() -> None:
        stream = open_async_stream(runner, "stream")
        async with contextlib.aclosing(stream):
            pieces = [await anext(stream), await anext(stream)]
            assert stream.result is None
        assert stream.result is not None
        assert (stream.result.finish_reason, stream.result.text) == ("cancelled", "".join(pieces))
        assert len(stream.result.token_ids) == len(pieces)  # nothing was made that was not read
        assert [piece async for piece in stream] == []

    asyncio.run(run())


def test_a_stream_that_never_began_or_failed_has_no_result(runner: MultimodalRunner) -> None:
    unread = runner.stream(PROMPT)
    unread.close()
    failing = runner.stream(PROMPT, suppress_tokens=[10**6])
    with pytest.raises(InputError):
        next(failing)
    assert (unread.result, failing.result) == (None, None)

    async def run() -> None:
        unread, failing = runner.astream(PROMPT), runner.astream(PROMPT, suppress_tokens=[10**6])
        await unread.aclose()
        with pytest.raises(InputError):
            await anext(failing)
        assert (unread.result, failing.result) == (None, None)

    asyncio.run(run())
    runner.reset()


def test_a_stream_is_a_generator(runner: MultimodalRunner) -> None:
    stream = open_stream(runner, "stream")
    assert isinstance(stream, Generator)
    assert isinstance(stream, Iterator)
    assert iter(stream) is stream
    first, second = stream.send(None), next(stream)
    with pytest.raises(BusyError):
        runner.reset()
    with pytest.raises(KeyError, match="thrown"):
        stream.throw(KeyError("thrown"))
    assert list(stream) == []
    assert whole(runner, "stream").text.startswith(first + second)


def test_an_asynchronous_stream_is_an_asynchronous_generator(runner: MultimodalRunner) -> None:
    async def run() -> None:
        stream = open_async_stream(runner, "stream")
        assert isinstance(stream, AsyncGenerator)
        assert isinstance(stream, AsyncIterator)
        assert aiter(stream) is stream
        first, second = await stream.asend(None), await anext(stream)
        with pytest.raises(KeyError, match="thrown"):
            await stream.athrow(KeyError("thrown"))
        assert [piece async for piece in stream] == []
        assert whole(runner, "stream").text.startswith(first + second)

    asyncio.run(run())


@pytest.mark.parametrize("leave", ["close", "closing", "break", "del", "exception"])
def test_every_way_to_leave_a_stream_frees_the_runner(runner: MultimodalRunner, leave: str) -> None:
    stream = open_stream(runner, "stream")
    next(stream)
    if leave == "close":
        stream.close()
    elif leave == "closing":
        with contextlib.closing(stream) as pieces:
            next(pieces)
    elif leave == "break":
        stream.close()
        for _ in runner.stream(PROMPT, OPTIONS):
            break
    elif leave == "del":
        del stream
    else:
        stream.close()
        with contextlib.suppress(ZeroDivisionError):
            for piece in runner.stream(PROMPT, OPTIONS):
                int(bool(piece)) // 0
    runner.reset()


@pytest.mark.parametrize("spoil", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_stream_is_not_copied(runner: MultimodalRunner, spoil: Callable[[object], object]) -> None:
    stream = open_stream(runner, "stream")
    next(stream)
    with pytest.raises(TypeError, match="a stream cannot be pickled or copied"):
        spoil(stream)
    stream.close()


def test_a_stream_that_nothing_refers_to_but_its_next_piece_gives_it(runner: MultimodalRunner) -> None:
    async def run() -> str:
        return await anext(open_async_stream(runner, "stream"))

    piece = asyncio.run(run())
    free_again(runner)
    assert whole(runner, "stream").text.startswith(piece)


def test_an_asynchronous_stream_that_is_dropped_frees_the_runner_at_once(runner: MultimodalRunner) -> None:
    async def run() -> None:
        stream = open_async_stream(runner, "stream")
        await anext(stream)
        del stream
        free_again(runner)  # the event loop does nothing meanwhile

    asyncio.run(run())


def free_again(runner: MultimodalRunner, seconds: float = 5) -> None:
    """Waits for it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(BusyError):
            return runner.reset()
        time.sleep(0.01)
    raise AssertionError("the runner is busy for ever")


def test_what_is_heard_has_a_result_too() -> None:
    audio = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    options: dict[str, Any] = {"sampling_rate": 16000, "language": "en", "max_new_tokens": 5}
    with SpeechRunner(SPEECH / "kv.pte") as runner:
        expected = runner.transcribe(audio, **options)
        stream = runner.stream_transcribe(audio, **options)
        assert stream.result is None
        assert len(list(stream)) > 0

        async def run() -> Any:
            stream = runner.astream_transcribe(audio, **options)
            assert [event async for event in stream]
            return stream.result

        for result in (stream.result, asyncio.run(run())):
            assert result is not None
            assert (result.text, result.segments) == (expected.text, expected.segments)
        left = runner.stream_transcribe(audio, **options)
        next(left)
        left.close()
        assert left.result is not None
        assert left.result.stats.finish_reason == "cancelled"


def test_streams_of_many_threads_have_a_result_each() -> None:
    expected: dict[int, tuple[Any, ...]] = {}
    got: dict[int, tuple[Any, ...]] = {}
    with MultimodalRunner.demo(num_threads=1) as runner:
        for number in range(4):
            runner.reset()
            expected[number] = told(runner.generate_result(f"{number} circles", OPTIONS))

    def work(number: int) -> None:
        with MultimodalRunner.demo(num_threads=1) as runner:
            stream = runner.stream(f"{number} circles", OPTIONS)
            list(stream)
            got[number] = told(stream.result)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected
