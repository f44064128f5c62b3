"""Tasks that wait for the runner: slow readers, order, time limits, event loops that are gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from PIL import Image

from executorch_mm import (
    BusyError,
    ExecutionError,
    ExecutorchMMError,
    GenerationConfig,
    InputError,
    MultimodalRunner,
)
from executorch_mm._engine import jobs
from executorch_mm._engine.requests import Request

PROMPT = "red"  # whose answer has a piece for each token
LONG = GenerationConfig(max_new_tokens=60, ignore_eos=True)
SOON = 20.0


def question(number: int) -> str:
    return f"<|user|>{number} circles<|end|><|assistant|>"


def chat(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """`asyncio.run` that does not wait for ever."""

    async def within_limits() -> Any:
        return await asyncio.wait_for(work, SOON)

    return asyncio.run(within_limits())


def free_again(runner: MultimodalRunner, seconds: float = SOON) -> float:
    """Waits until the runner can be used; how long it took."""
    begun = time.monotonic()
    while time.monotonic() < begun + seconds:
        with contextlib.suppress(BusyError):
            runner.reset()
            return time.monotonic() - begun
        time.sleep(0.01)
    raise AssertionError("the runner is busy for ever")


def answer(runner: MultimodalRunner, prompt: str, config: GenerationConfig) -> str:
    runner.reset()
    return runner.generate_text(prompt, config)


@pytest.mark.parametrize("form", ["astream", "astream_chat"])
def test_four_users_one_of_whom_sleeps(runner: MultimodalRunner, form: str) -> None:
    """The sleeper has read one piece. The others get their answers meanwhile, and it gets all of its own."""
    expected = runner.generate_text(PROMPT, LONG)
    others = [question(i) for i in range(3)]
    runner.reset()

    async def sleep(woken: asyncio.Event) -> str:
        stream = (
            runner.astream(PROMPT, LONG)
            if form == "astream"
            else runner.astream_chat(chat("describe this picture"), LONG)
        )
        pieces = [await anext(stream)]
        await woken.wait()
        pieces += [piece async for piece in stream]
        assert stream.result is not None
        assert stream.result.finish_reason == "length"
        assert stream.result.text == "".join(pieces)
        return "".join(pieces)

    async def users() -> tuple[str, list[str]]:
        woken = asyncio.Event()
        sleeper = asyncio.create_task(sleep(woken))
        await asyncio.sleep(0)
        texts = [await runner.agenerate_text(other, max_new_tokens=5, ignore_eos=True) for other in others]
        assert not sleeper.done()
        woken.set()
        return await sleeper, texts

    text, texts = run(users())
    if form == "astream":
        assert text == expected
    assert all(texts)
    assert free_again(runner) < 1


def test_a_reader_that_is_alone_gets_no_more_made_than_it_asks_for(runner: MultimodalRunner) -> None:
    async def read(num_pieces: int) -> int:
        runner.reset()
        async with contextlib.aclosing(runner.astream(PROMPT, LONG)) as stream:
            for _ in range(num_pieces):
                await anext(stream)
            await asyncio.sleep(0.1)
        return len(stream.result.token_ids) if stream.result is not None else -1

    assert [run(read(number)) for number in (1, 2, 5)] == [1, 2, 5]


def test_what_is_made_for_a_sleeper_is_bounded(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "AHEAD", 4)

    async def users() -> int:
        stream = runner.astream(PROMPT, LONG)
        await anext(stream)
        other = asyncio.create_task(runner.agenerate_text(question(1), max_new_tokens=2))
        await asyncio.sleep(0.3)
        assert not other.done()
        await stream.aclose()
        await other
        assert stream.result is not None
        return len(stream.result.token_ids)

    assert run(users()) == 1 + 4


def test_a_sleeper_that_wakes_lets_its_answer_go_on(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = answer(runner, PROMPT, LONG)
    runner.reset()
    monkeypatch.setattr(jobs, "AHEAD", 2)

    async def users() -> str:
        stream = runner.astream(PROMPT, LONG)
        pieces = [await anext(stream)]
        other = asyncio.create_task(runner.agenerate_text(question(1), max_new_tokens=2))
        await asyncio.sleep(0.1)
        pieces += [piece async for piece in stream]
        await other
        return "".join(pieces)

    assert run(users()) == expected


@pytest.mark.parametrize("others_wait", [False, True])
def test_time_runs_while_the_reader_sleeps(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch, *, others_wait: bool
) -> None:
    monkeypatch.setattr(jobs, "AHEAD", 2)

    async def users() -> None:
        stream = runner.astream(PROMPT, LONG, timeout=0.3)
        await anext(stream)
        begun = time.monotonic()
        if others_wait:
            await runner.agenerate_text(question(1), max_new_tokens=2)
        else:
            await asyncio.to_thread(free_again, runner)
        assert time.monotonic() - begun < 5
        rest = [piece async for piece in stream]
        assert len(rest) <= 3
        assert stream.result is not None
        assert stream.result.finish_reason == "timeout"

    run(users())


def test_time_that_is_over_before_the_first_piece_ends_the_answer(runner: MultimodalRunner) -> None:
    async def user() -> str | None:
        stream = runner.astream(PROMPT, LONG, timeout=1e-9)
        assert [piece async for piece in stream] == []
        return stream.result.finish_reason if stream.result is not None else None

    assert run(user()) == "timeout"


def test_chats_are_served_in_the_order_in_which_they_came(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that is quickly made ready does not overtake an image that is not."""
    served: list[str] = []
    make_ready = MultimodalRunner._chat_request

    def slowly(self: MultimodalRunner, messages: Any, *others: Any) -> Request:
        if not isinstance(messages[0]["content"], str):
            time.sleep(0.2)
        return make_ready(self, messages, *others)

    monkeypatch.setattr(MultimodalRunner, "_chat_request", slowly)
    image = chat([{"type": "image", "image": Image.new("RGB", (64, 64))}, {"type": "text", "text": "what?"}])

    async def ask(name: str, messages: list[dict[str, object]], *, streamed: bool) -> None:
        begun = LONG.replace(max_new_tokens=2, logits_processors=[lambda *_: served.append(name)])
        if streamed:
            async for _ in runner.astream_chat(messages, begun):
                pass
        else:
            await runner.achat(messages, begun)

    async def users() -> None:
        async with asyncio.TaskGroup() if hasattr(asyncio, "TaskGroup") else _Group() as group:
            for index, messages in enumerate([image, chat("red"), image, chat("blue"), chat("red")]):
                group.create_task(ask(str(index), messages, streamed=index % 2 == 0))

    run(users())
    assert served == ["0", "0", "1", "1", "2", "2", "3", "3", "4", "4"]


class _Group:
    """What of Python 3.11's TaskGroup is needed here."""

    async def __aenter__(self) -> _Group:
        self.tasks: list[asyncio.Task[None]] = []
        return self

    def create_task(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self.tasks)


def test_messages_are_made_ready_while_the_task_waits(runner: MultimodalRunner) -> None:
    """A wrong one is refused at once, and nobody's turn is lost."""

    async def users() -> None:
        stream = runner.astream(PROMPT, LONG)
        await anext(stream)
        with pytest.raises(InputError):
            await runner.achat([{"role": "user", "content": 5}])
        with pytest.raises(InputError):
            await anext(runner.astream_chat([{"role": "user", "content": 5}]))
        await stream.aclose()
        result = await runner.agenerate_result(PROMPT, max_new_tokens=2, ignore_eos=True)
        assert len(result.token_ids) == 2

    run(users())


def test_a_task_that_is_cancelled_while_its_messages_are_made_ready_leaves_the_line(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready = MultimodalRunner._chat_request

    def slowly(self: MultimodalRunner, *request: Any) -> Request:
        time.sleep(0.2)
        return make_ready(self, *request)

    monkeypatch.setattr(MultimodalRunner, "_chat_request", slowly)

    async def users() -> None:
        waiting = asyncio.create_task(runner.achat(chat("red")))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        runner.reset()

    run(users())


def test_a_closed_runner_tells_tasks_so() -> None:
    runner = MultimodalRunner.demo(num_threads=1)
    runner.close()

    async def users() -> None:
        for request in (
            runner.agenerate_text(PROMPT),
            anext(runner.astream(PROMPT)),
            runner.achat(chat("red")),
            anext(runner.astream_chat(chat("red"))),
        ):
            with pytest.raises(ExecutorchMMError, match="closed"):
                await request

    run(users())


def test_without_a_thread_to_be_had_the_request_fails_and_the_runner_is_free(
    runner: MultimodalRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def user() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ExecutionError, match="no thread can be started"):
                await runner.agenerate_text(PROMPT)
            with pytest.raises(ExecutionError, match="no thread can be started"):
                await anext(runner.astream(PROMPT))
        runner.reset()

    run(user())


class Loop:
    """An event loop that is closed with all that is in it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.tasks: list[Any] = []

    def until(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    async def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.tasks.append(task)
        await asyncio.sleep(0.05)

    def close(self, *, forgotten: bool) -> None:
        self.loop.close()
        if forgotten:
            self.tasks.clear()
            gc.collect()


@pytest.mark.parametrize("forgotten", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::RuntimeWarning")
class TestEventLoopsThatAreGone:
    """Whether somebody still holds their tasks or not, the runner is free again."""

    def test_one_that_waits(self, runner: MultimodalRunner, *, forgotten: bool) -> None:
        stream = runner.stream(PROMPT, LONG)
        next(stream)
        gone = Loop()
        gone.until(gone.begin(runner.agenerate_text(PROMPT)))
        gone.until(gone.begin(runner.achat(chat("red"))))
        gone.close(forgotten=forgotten)
        stream.close()
        runner.reset()

    def test_one_that_has_been_admitted_and_does_not_know(
        self, runner: MultimodalRunner, *, forgotten: bool
    ) -> None:
        stream = runner.stream(PROMPT, LONG)
        next(stream)
        gone = Loop()
        gone.until(gone.begin(runner.agenerate_text(PROMPT)))
        stream.close()  # admits it
        gone.close(forgotten=forgotten)
        assert free_again(runner) < 1

    def test_one_that_is_followed_by_others(self, runner: MultimodalRunner, *, forgotten: bool) -> None:
        stream = runner.stream(PROMPT, LONG)
        next(stream)
        gone = Loop()
        gone.until(gone.begin(runner.agenerate_text(PROMPT)))

        async def user() -> int:
            task = asyncio.create_task(runner.agenerate_result(PROMPT, max_new_tokens=2, ignore_eos=True))
            await asyncio.sleep(0.05)
            gone.close(forgotten=forgotten)
            stream.close()
            return len((await task).token_ids)

        assert run(user()) == 2

    def test_one_that_was_admitted_before_others(self, runner: MultimodalRunner, *, forgotten: bool) -> None:
        stream = runner.stream(PROMPT, LONG)
        next(stream)
        gone = Loop()
        gone.until(gone.begin(runner.agenerate_text(PROMPT)))

        async def user() -> int:
            task = asyncio.create_task(runner.agenerate_result(PROMPT, max_new_tokens=2, ignore_eos=True))
            await asyncio.sleep(0.05)
            stream.close()  # admits the other one
            gone.close(forgotten=forgotten)
            return len((await task).token_ids)

        assert run(user()) == 2

    def test_one_that_reads(self, runner: MultimodalRunner, *, forgotten: bool) -> None:
        gone = Loop()
        streams = [runner.astream(PROMPT, LONG)]
        gone.until(anext(streams[0]))  # type: ignore[arg-type]
        gone.close(forgotten=forgotten)
        if forgotten:
            streams.clear()
        assert free_again(runner) < 5

    def test_one_that_awaits_a_piece(self, runner: MultimodalRunner, *, forgotten: bool) -> None:
        gone = Loop()
        config = LONG.replace(logits_processors=[lambda *_: time.sleep(0.02)])

        async def read() -> None:
            async for _ in runner.astream(PROMPT, config):
                pass

        gone.until(gone.begin(read()))
        gone.close(forgotten=forgotten)
        assert free_again(runner) < 5

    def test_one_that_awaits_an_answer(self, runner: MultimodalRunner, *, forgotten: bool) -> None:
        gone = Loop()
        config = GenerationConfig(
            max_new_tokens=10, ignore_eos=True, logits_processors=[lambda *_: time.sleep(0.02)]
        )
        gone.until(gone.begin(runner.agenerate_text(PROMPT, config)))
        gone.close(forgotten=forgotten)
        assert free_again(runner) < 5


def test_many_tasks_and_threads_at_once_leave_the_runner_in_order(runner: MultimodalRunner) -> None:
    expected = answer(runner, PROMPT, LONG)

    async def user(number: int) -> None:
        stream = runner.astream_chat(chat(question(number)), max_new_tokens=5)
        if number % 4 == 0:
            await stream.aclose()
        elif number % 4 == 1:
            with contextlib.suppress(StopAsyncIteration):
                await anext(stream)
            await stream.aclose()
        elif number % 4 == 2:
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(runner.achat(chat(question(number)), max_new_tokens=5), 0.01)
        else:
            assert len([piece async for piece in stream]) >= 0

    async def users() -> None:
        await asyncio.gather(*(user(number) for number in range(24)))

    def hammer() -> None:
        for _ in range(100):
            with contextlib.suppress(BusyError):
                runner.chat(chat(question(1)), max_new_tokens=1)

    threads = [threading.Thread(target=lambda: asyncio.run(users())) for _ in range(2)]
    threads += [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert answer(runner, PROMPT, LONG) == expected
