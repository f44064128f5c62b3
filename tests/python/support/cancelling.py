"""Every way to end an answer early, at a chosen step of the model."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from executorch_mm import GenerationConfig, MultimodalRunner
from executorch_mm.inputs import Prompt

Logits = NDArray[np.float32]


class At:
    """Counts what it is called for, as a logits processor or for progress, and acts at one of the calls."""

    def __init__(self, index: int, act: Callable[[], object]) -> None:
        self.index, self.act, self.num_calls = index, act, 0

    def __call__(self, *_arguments: object) -> None:
        self.num_calls += 1
        if self.num_calls == self.index + 1:
            self.act()


class InterruptionError(Exception):
    """Raised by a callback."""


def interrupt() -> None:
    raise InterruptionError


@contextlib.contextmanager
def ctrl_c_raises() -> Iterator[None]:
    """A test run in the background of a shell inherits an ignored SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def by_stop(runner: MultimodalRunner, prompt: Prompt, config: GenerationConfig, index: int) -> None:
    at = At(index, runner.stop)
    result = runner.generate_result(prompt, config, logits_processors=[at])
    assert result.finish_reason == "cancelled"
    assert len(result.token_ids) == at.num_calls == index + 1


def by_timeout(runner: MultimodalRunner, prompt: Prompt, config: GenerationConfig, index: int) -> None:
    """Waits within the step until the time is over; on a slow machine it is over before."""
    for seconds in (0.02, 0.2, 2.0):  # a prompt that was not read in time is taken back
        runner.reset()
        at = At(index, functools.partial(be_busy, seconds))
        result = runner.generate_result(prompt, config, logits_processors=[at], timeout=seconds)
        assert result.finish_reason == "timeout"
        assert len(result.token_ids) == at.num_calls <= index + 1
        if at.num_calls:
            return
    raise AssertionError("two seconds were not enough to read a prompt")


def be_busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def by_ctrl_c(runner: MultimodalRunner, prompt: Prompt, config: GenerationConfig, index: int) -> None:
    at = At(index, lambda: signal.raise_signal(signal.SIGINT))
    with ctrl_c_raises(), contextlib.suppress(KeyboardInterrupt):
        runner.generate_text(prompt, config, logits_processors=[at])
    assert at.num_calls - 1 == runner.stats.num_generated_tokens == index  # that step is not taken


def by_error(runner: MultimodalRunner, prompt: Prompt, config: GenerationConfig, index: int) -> None:
    at = At(index, interrupt)
    with contextlib.suppress(InterruptionError):
        runner.generate_text(prompt, config, logits_processors=[at])
    assert at.num_calls - 1 == runner.stats.num_generated_tokens == index  # that step is not taken


def by_leaving(runner: MultimodalRunner, prompt: Prompt, config: GenerationConfig, index: int) -> None:
    """At the first piece that comes from this step or a later one."""
    at = At(-1, interrupt)
    for _ in runner.stream(prompt, config, logits_processors=[at]):
        if at.num_calls > index:
            break
    assert runner.stats.num_generated_tokens == at.num_calls


def by_close(runner: MultimodalRunner, prompt: Prompt, config: GenerationConfig, index: int) -> None:
    at = At(-1, interrupt)
    stream = runner.stream(prompt, config, logits_processors=[at])
    while at.num_calls <= index:
        next(stream)
    stream.close()
    assert runner.stats.num_generated_tokens == at.num_calls


def by_aclose(runner: MultimodalRunner, prompt: Prompt, config: GenerationConfig, index: int) -> None:
    at = At(-1, interrupt)

    async def run() -> None:
        stream = runner.astream(prompt, config, logits_processors=[at])
        while at.num_calls <= index:
            await anext(stream)
        await stream.aclose()
        runner.save()  # the runner is idle
        assert runner.stats.num_generated_tokens == at.num_calls

    asyncio.run(run())


def cancel_from_the_model(runner: MultimodalRunner, at: At, task: asyncio.Task[object]) -> None:
    """Makes `at` cancel the task from its thread, and hold the model up until the loop has seen to it."""
    loop = asyncio.get_running_loop()

    def cancel() -> None:
        loop.call_soon_threadsafe(task.cancel)
        while not runner._session.is_cancelled:
            time.sleep(0)

    at.act = cancel


def by_cancelling_the_task(
    runner: MultimodalRunner, prompt: Prompt, config: GenerationConfig, index: int
) -> None:
    at = At(index, interrupt)

    async def run() -> None:
        task = asyncio.create_task(runner.agenerate_result(prompt, config, logits_processors=[at]))
        cancel_from_the_model(runner, at, task)
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        runner.save()  # the runner is idle

    asyncio.run(run())
    assert at.num_calls <= index + 1


WAYS = [
    by_stop,
    by_timeout,
    by_ctrl_c,
    by_error,
    by_leaving,
    by_close,
    by_aclose,
    by_cancelling_the_task,
]
