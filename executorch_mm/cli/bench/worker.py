"""The process of a model that is measured."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from executorch_mm.stats import peak_memory_bytes

if TYPE_CHECKING:
    from executorch_mm import GenerationResult, MultimodalInput, MultimodalRunner, Session

_SOCKET = 3
_MIB = 1 << 20


def serve(asked: str) -> None:
    """Loads what it is asked for, and measures what it is told to until nobody asks any more."""
    from executorch_mm import ExecutorchMMError, InputError, MultimodalRunner

    with socket.socket(fileno=_SOCKET) as ours, ours.makefile("rw", encoding="utf-8") as file:

        def answer(content: object) -> None:
            file.write(json.dumps(content) + "\n")
            file.flush()

        model, tokenizer, data, threads = json.loads(asked)
        try:
            runner = MultimodalRunner(model, tokenizer, data_path=data, num_threads=threads or "auto")
            try:
                runner.fork().close()
                holds_several = True
            except InputError:
                holds_several = False
            stats = runner.generate_result(_prompt(runner, 2), max_new_tokens=2, ignore_eos=True).stats
            answer(
                {
                    "threads": stats.num_threads,
                    "capacity": runner.capacity,
                    "holds_several": holds_several,
                    "load_seconds": stats.load_seconds,
                }
            )
            for line in file:
                answer(measure(runner, *json.loads(line)))
        except ExecutorchMMError as error:
            answer({"error": str(error)})
        except MemoryError:
            answer({"error": "bench: not enough memory"})


def measure(
    runner: MultimodalRunner, prompt_tokens: int, new_tokens: int, conversations: int
) -> dict[str, float]:
    """One round.

    Args:
        runner: Of the model.
        prompt_tokens: Of each prompt.
        new_tokens: Of each answer.
        conversations: At the same time, in a second part of the round; 1 for none.

    Returns:
        Numbers by name.
    """
    runner.reset()
    stats = _answer(runner, _prompt(runner, prompt_tokens), new_tokens).stats
    measured = {
        "first_token_seconds": stats.time_to_first_token,
        "prefill_tokens_per_second": stats.prefill_tokens_per_second,
        "decode_tokens_per_second": stats.tokens_per_second,
    }
    if conversations > 1:
        runner.reset()
        sessions = [runner.fork() for _ in range(conversations)]
        try:
            start = time.perf_counter()
            prompt = _prompt(runner, prompt_tokens)
            _together([partial(_answer, session, prompt, new_tokens) for session in sessions])
            seconds = time.perf_counter() - start
        finally:
            for session in sessions:
                session.close()
        measured["concurrent_tokens_per_second"] = conversations * (prompt_tokens + new_tokens) / seconds
    measured["peak_memory_mib"] = peak_memory_bytes() / _MIB
    return measured


def _answer(
    conversation: MultimodalRunner | Session, prompt: MultimodalInput, new_tokens: int
) -> GenerationResult:
    return conversation.generate_result(prompt, max_new_tokens=new_tokens, ignore_eos=True)


def _prompt(runner: MultimodalRunner, count: int) -> MultimodalInput:
    """Tokens at random, the same in every process."""
    from executorch_mm import make_token_input

    rng = random.Random(19)  # noqa: S311
    return make_token_input([rng.randrange(min(runner.contract.vocab_size, 1000)) for _ in range(count)])


def _together(calls: list[Callable[[], object]]) -> None:
    """Each in a thread, from one moment on."""
    failures: list[Exception] = []
    begin = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        begin.wait()
        try:
            call()
        except Exception as error:  # noqa: BLE001 (raised in the thread that waits)
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
