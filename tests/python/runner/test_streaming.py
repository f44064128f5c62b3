"""Asynchronous streams: they hold nobody up, wait their turn and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading

import pytest

from executorch_mm import BusyError, ExecutorchMMError, GenerationConfig, InputError, MultimodalRunner
from executorch_mm.demo import make_scene, render

PROMPT = ["<|user|>", render(make_scene(seed=7)), "Describe this picture.<|end|><|assistant|>"]
ENDLESS = GenerationConfig(ignore_eos=True)


def question(number: int) -> str:
    return f"<|user|>{number} circles<|end|><|assistant|>"


def worker_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("executorch_mm")]


def test_asynchronous_forms_give_the_same_answer(runner: MultimodalRunner) -> None:
    expected = runner.generate_result(PROMPT)

    async def run() -> tuple[str, str, tuple[int, ...]]:
        runner.reset()
        streamed = "".join([piece async for piece in runner.astream(PROMPT)])
        runner.reset()
        text = await runner.agenerate_text(PROMPT)
        runner.reset()
        return streamed, text, (await runner.agenerate_result(PROMPT)).token_ids

    assert asyncio.run(run()) == (expected.text, expected.text, expected.token_ids)
    assert worker_threads() == []


def test_the_event_loop_runs_on_while_the_model_does(runner: MultimodalRunner) -> None:
    """Another task runs between any two pieces, and during the call of the model that precedes each."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def run() -> list[int]:
        ticker = asyncio.create_task(tick())
        seen = [ticks async for _ in runner.astream(PROMPT, ENDLESS)]
        ticker.cancel()
        return seen

    seen = asyncio.run(run())
    assert all(later > earlier for earlier, later in itertools.pairwise(seen))


def test_eight_tasks_are_served_in_the_order_they_came(runner: MultimodalRunner) -> None:
    options = GenerationConfig(max_new_tokens=5, ignore_eos=True)
    expected = [runner.generate_result(question(i), options).token_ids for i in range(8)]
    served: list[int] = []

    async def ask(number: int) -> tuple[int, ...]:
        result = await runner.agenerate_result(question(number), options)
        served.append(number)
        return result.token_ids

    async def run() -> list[tuple[int, ...]]:
        return await asyncio.gather(*map(ask, range(8)))

    runner.reset()
    assert asyncio.run(run()) == expected
    assert served == list(range(8))
    assert worker_threads() == []


def test_a_task_that_is_cancelled_while_it_waits_leaves_the_line(runner: MultimodalRunner) -> None:
    async def run() -> None:
        async with contextlib.aclosing(runner.astream(PROMPT, ENDLESS)) as first:
            await anext(first)
            waiting = [
                asyncio.create_task(runner.agenerate_text(question(i), max_new_tokens=2)) for i in range(3)
            ]
            await asyncio.sleep(0)
            waiting[1].cancel()
            with pytest.raises(BusyError):
                runner.reset()
        await asyncio.wait(waiting)
        assert [task.cancelled() for task in waiting] == [False, True, False]

    asyncio.run(run())
    runner.reset()


def test_a_task_waits_for_a_stream_that_a_thread_has_open(runner: MultimodalRunner) -> None:
    stream = runner.stream(PROMPT, ENDLESS)
    next(stream)

    async def run() -> None:
        task = asyncio.create_task(runner.agenerate_text("red", max_new_tokens=2))
        await asyncio.sleep(0)
        assert not task.done()
        stream.close()
        await task

    asyncio.run(run())


def test_tasks_of_several_event_loops_wait_for_each_other(runner: MultimodalRunner) -> None:
    finished: list[str | None] = []

    async def ask() -> None:
        for _ in range(3):
            result = await runner.agenerate_result("red", max_new_tokens=3, ignore_eos=True)
            finished.append(result.finish_reason)

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert finished == ["length"] * 12


def test_errors_come_out_of_asynchronous_forms_and_free_the_runner(runner: MultimodalRunner) -> None:
    with pytest.raises(InputError, match="suppress_tokens"):
        asyncio.run(runner.agenerate_text("red", suppress_tokens=[10**6]))
    runner.reset()
    with MultimodalRunner.demo() as closed:
        pass
    with pytest.raises(ExecutorchMMError, match="closed"):
        asyncio.run(closed.agenerate_text("red"))


def test_progress_names_the_encoder_and_goes_up_to_the_whole_prompt(runner: MultimodalRunner) -> None:
    seen: list[tuple[int, int, str]] = []
    total = runner.prefill(PROMPT, progress=lambda *call: seen.append(call))
    assert seen == [
        (0, total, "prefill"),
        (1, total, "encode_image"),
        (1, total, "prefill"),
        (17, total, "prefill"),
        (total, total, "prefill"),
    ]
