"""An answer ended at every step in every way: the next turn is a fresh runner's, given that history."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from cancelling import (
    WAYS,
    At,
    InterruptionError,
    by_cancelling_the_task,
    by_leaving,
    by_stop,
    cancel_from_the_model,
    ctrl_c_raises,
    interrupt,
)
from executorch_mm import GenerationConfig, MultimodalRunner, make_token_input
from executorch_mm.demo import make_scene, render
from executorch_mm.inputs import Prompt
from model_set import CACHE_KINDS, ModelSet

NUM_STEPS = 31
PROMPT, LONG, NEXT = [5, 9, 2, 33, 17], [(7 * i + 3) % 60 + 2 for i in range(36)], [8, 8, 40]
MODELS = ModelSet("export_llm")
ENDLESS = GenerationConfig(ignore_eos=True)
SHORT = GenerationConfig(ignore_eos=True, max_new_tokens=6, logprobs=0)
Answer: TypeAlias = "tuple[tuple[int, ...], tuple[float, ...] | None]"
Way: TypeAlias = Callable[[MultimodalRunner, Prompt, GenerationConfig, int], None]


class Twin:
    """A fresh runner of the same model, which reads a history and goes on."""

    def __init__(self, runner: MultimodalRunner, prompt: Prompt, following: Prompt) -> None:
        self.runner, self.prompt, self.following = runner, prompt, following
        self.known: dict[tuple[int, ...], Answer] = {}

    def says(self, generated: list[int]) -> Answer:
        """Its answer to the next turn after the prompt and these tokens, the last not read yet."""
        key = tuple(generated)
        if key not in self.known:
            self.runner.reset()
            self.runner.prefill(self.prompt)
            for token in generated[:-1]:
                self.runner.prefill(make_token_input([token]))
            following = [self.following] if isinstance(self.following, str) else list(self.following)
            self.known[key] = say(
                self.runner, [make_token_input(generated[-1:]), *following][not generated :]
            )
        return self.known[key]


def say(runner: MultimodalRunner, prompt: Prompt) -> Answer:
    result = runner.generate_result(prompt, SHORT)
    return result.token_ids, result.logprobs


def check(runner: MultimodalRunner, twin: Twin, way: Way, num_prompt: int, index: int) -> None:
    runner.reset()
    way(runner, twin.prompt, ENDLESS, index)
    history, pending = runner.history, runner._session.pending_tokens
    assert len(history) == runner.position
    generated = [*history[num_prompt:], *pending]
    assert say(runner, twin.following) == twin.says(generated), f"at step {index}"


@pytest.fixture(scope="module", params=CACHE_KINDS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[MultimodalRunner, Twin]]:
    with MODELS.load(request.param) as runner, MODELS.load(request.param) as other:
        yield runner, Twin(other, [make_token_input(PROMPT)], [make_token_input(NEXT)])


@pytest.fixture(scope="module")
def demo_pair(demo_runner: MultimodalRunner) -> Iterator[tuple[MultimodalRunner, Twin]]:
    prompt = ["<|user|>", render(make_scene(seed=7)), "Describe this picture.<|end|><|assistant|>"]
    with MultimodalRunner.demo() as other:
        yield demo_runner, Twin(other, prompt, "<|user|>How many shapes are there?<|end|><|assistant|>")


@pytest.mark.parametrize("way", WAYS)
def test_ended_at_every_step_it_goes_on_as_a_fresh_runner(
    pair: tuple[MultimodalRunner, Twin], way: Way
) -> None:
    for index in range(NUM_STEPS):
        check(*pair, way, len(PROMPT), index)


@pytest.mark.parametrize("way", WAYS)
def test_the_shipped_model_ended_at_every_step_goes_on_as_a_fresh_runner(
    demo_pair: tuple[MultimodalRunner, Twin], way: Way
) -> None:
    runner, twin = demo_pair
    runner.reset()
    num_prompt = runner.prefill(twin.prompt)
    for index in range(NUM_STEPS):
        check(runner, twin, way, num_prompt, index)


def prefill_and(runner: MultimodalRunner, prompt: Prompt, way: str, index: int) -> int:
    """Reads a prompt, with an end to it at one of the progress calls; returns how many came."""
    at = At(index, {"stop": runner.stop, "error": interrupt}.get(way, lambda: None))
    if way == "Ctrl-C":
        at.act = lambda: signal.raise_signal(signal.SIGINT)
    if way == "task":

        async def run() -> None:
            stream = runner.astream(prompt, ENDLESS, progress=at, max_new_tokens=0)
            task = asyncio.create_task(anext(stream, None))  # type: ignore[arg-type]
            cancel_from_the_model(runner, at, task)
            with contextlib.suppress(asyncio.CancelledError):
                await task

        asyncio.run(run())
        return at.num_calls
    with ctrl_c_raises(), contextlib.suppress(InterruptionError, KeyboardInterrupt):
        runner.prefill(prompt, progress=at)
    return at.num_calls


@pytest.mark.parametrize("way", ["stop", "error", "Ctrl-C", "task"])
@pytest.mark.parametrize("is_demo", [False, True], ids=["tiny", "shipped"])
def test_a_prompt_left_at_every_call_of_the_model_leaves_no_trace(
    request: pytest.FixtureRequest, way: str, is_demo: bool
) -> None:
    if is_demo:
        images = [render(make_scene(seed=7)), render(make_scene(seed=8))]
        runners = [request.getfixturevalue("runner"), MultimodalRunner.demo()]
        first, prompt = "red circle", ["<|user|>", *images, "How many?<|end|><|assistant|>"]
        following: Prompt = "<|user|>Describe this picture.<|end|><|assistant|>"
    else:
        runners = [MODELS.load("llama_short_chunks") for _ in range(2)]
        first, prompt = [make_token_input(PROMPT)], [make_token_input(LONG)]
        following = [make_token_input(NEXT)]
    runner, other = runners
    say(other, first)
    expected = say(other, following)
    other.reset()
    say(other, first)
    other.prefill(prompt)
    expected_after_prompt = say(other, following)
    index, is_read = 0, False
    while not is_read:
        runner.reset()
        say(runner, first)
        position = runner.position
        assert prefill_and(runner, prompt, way, index) == index + 1, "it went on after it was ended"
        assert len(runner.history) == runner.position
        is_read = runner.position > position
        assert say(runner, following) == (expected_after_prompt if is_read else expected), f"at call {index}"
        index += 1
    assert index >= (6 if is_demo else 4)
    other.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals on this system")
def test_ctrl_c_at_any_moment_leaves_the_runner_usable(demo_pair: tuple[MultimodalRunner, Twin]) -> None:
    runner, twin = demo_pair
    runner.reset()
    num_prompt = runner.prefill(twin.prompt)
    rng = random.Random(6)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    num_interrupted = 0
    try:
        for _ in range(60):
            runner.reset()
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.0001, 0.02))
                runner.generate_text(twin.prompt, ENDLESS)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                num_interrupted += 1
            history, pending = runner.history, runner._session.pending_tokens
            assert len(history) == runner.position
            if len(history) >= num_prompt and runner.capacity - runner.position > 30:
                generated = [*history[num_prompt:], *pending]
                assert say(runner, twin.following) == twin.says(generated)
            else:
                assert not history or len(history) >= num_prompt
    finally:
        signal.signal(signal.SIGALRM, before)
    assert num_interrupted > 0


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.parametrize("way", [by_stop, by_leaving, by_cancelling_the_task])
def test_smollm2_ended_at_every_step_goes_on_as_a_fresh_runner(real_models: Path, way: Way) -> None:
    folder = real_models / "smollm2-135m-instruct-8da4w"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    prompt = "<|im_start|>user\nName all planets.<|im_end|>\n<|im_start|>assistant\n"
    following = "<|im_end|>\n<|im_start|>user\nAnd the largest?<|im_end|>\n<|im_start|>assistant\n"
    with (
        MultimodalRunner(folder / "model.pte", folder, num_threads=1) as runner,
        MultimodalRunner(folder / "model.pte", folder, num_threads=1) as other,
    ):
        twin = Twin(other, prompt, following)
        num_prompt = runner.prefill(prompt)
        for index in range(NUM_STEPS):
            check(runner, twin, way, num_prompt, index)
