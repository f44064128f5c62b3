"""Answers for asyncio: a stream, tasks that wait their turn, and an answer that is cancelled."""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from executorch_mm import GenerationConfig, MultimodalRunner


async def run(runner: MultimodalRunner, prompts: list[str]) -> None:
    config = GenerationConfig(max_new_tokens=24)
    print("streamed: ", end="")
    async with contextlib.aclosing(runner.astream(prompts[0], config)) as pieces:
        async for piece in pieces:
            print(piece, end="", flush=True)
    print()

    # One runner serves one request at a time: the tasks wait in line, the event loop does not.
    runner.reset()
    answers = await asyncio.gather(*(runner.agenerate_text(prompt, config) for prompt in prompts))
    for number, answer in enumerate(answers, start=1):
        print(f"task {number}: {answer}")

    # Cancelling a task ends its request before the model's next call; the runner is free at once.
    runner.reset()
    task = asyncio.create_task(runner.agenerate_text(prompts[0], config))
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    print(f"cancelled: {task.cancelled()}; positions in use: {runner.position}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a .pte file; its prompts are then plain questions")
    parser.add_argument("--tokenizer", help="its tokenizer file or folder")
    arguments = parser.parse_args()
    questions = [f"How many {colour} shapes are there?" for colour in ("red", "blue", "green")]
    if arguments.model:
        runner = MultimodalRunner(model_path=arguments.model, tokenizer_path=arguments.tokenizer)
    else:
        runner = MultimodalRunner.demo()
        questions = [f"<|user|>{question}<|end|><|assistant|>" for question in questions]
    with runner:
        asyncio.run(run(runner, questions))


if __name__ == "__main__":
    main()
