"""The runner on the shipped model: a conversation, each way to ask for an answer, each way out of one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from executorch_mm import (
    BusyError,
    CapacityError,
    ExecutorchMMError,
    GenerationConfig,
    InputError,
    MultimodalRunner,
    Stats,
)
from executorch_mm.demo import make_scene, render
from executorch_mm.inputs import Prompt
from executorch_mm.utils import make_image_input, make_text_input, make_token_input

IMAGE = render(make_scene(seed=950_000_007))
ENDLESS = GenerationConfig(ignore_eos=True)  # until the context is full


def ask(question: str, *images: Image.Image) -> list[str | Image.Image]:
    return ["<|user|>", *images, f"{question}<|end|><|assistant|>"]


def test_the_usage_example_of_the_mission_runs(runner: MultimodalRunner) -> None:
    inputs = [make_text_input("Describe this image:"), make_image_input(np.asarray(IMAGE))]
    config = GenerationConfig(max_new_tokens=100, temperature=0.7, top_p=0.9, seed=1)
    pieces: list[str] = []
    stats: list[Stats] = []
    runner.generate(inputs, config, token_callback=pieces.append, stats_callback=stats.append)
    assert "".join(pieces).strip()
    assert stats[0].tokens_per_second > 0
    runner.reset()
    assert runner.generate_text(inputs, config) == "".join(pieces)


def test_all_forms_give_the_same_answer(runner: MultimodalRunner) -> None:
    prompt = ask("Describe this picture.", IMAGE)
    text = runner.generate_text(prompt)
    assert text
    assert "<|" not in text
    runner.reset()
    assert list(runner.stream(prompt)) != []
    runner.reset()
    pieces: list[str] = []
    runner.generate(prompt, None, pieces.append)
    assert "".join(pieces) == text
    runner.reset()
    runner.prefill(prompt)
    assert runner.generate_text([]) == text


def test_pil_numpy_and_other_layouts_are_one_image(runner: MultimodalRunner) -> None:
    answers = set()
    hwc = np.asarray(IMAGE)
    alpha = np.dstack([hwc, np.full(hwc.shape[:2], 255, np.uint8)])
    for image in (IMAGE, hwc, hwc.transpose(2, 0, 1), np.asfortranarray(hwc), hwc[np.newaxis], alpha):
        runner.reset()
        part = make_image_input(image)
        answers.add(runner.generate_text(["<|user|>", part, "Describe this picture.<|end|><|assistant|>"]))
    assert len(answers) == 1


def test_a_conversation_goes_on_until_reset(runner: MultimodalRunner) -> None:
    first = runner.generate_text(ask("How many shapes are there?", IMAGE))
    position = runner.position
    runner.generate_text(ask("Describe this picture."))
    assert runner.position > position
    assert runner.history.count(-1) == 16
    runner.reset()
    assert runner.position == 0
    assert runner.generate_text(ask("How many shapes are there?", IMAGE)) == first


def test_stats_add_up(runner: MultimodalRunner) -> None:
    runner.generate(ask("Describe this picture.", IMAGE), GenerationConfig(max_new_tokens=8, ignore_eos=True))
    stats = runner.stats
    assert stats.num_prompt_tokens == 1 + 16 + len(
        runner.tokenizer.encode("Describe this picture.<|end|><|assistant|>")
    )
    assert stats.num_generated_tokens == 8
    assert stats.num_decode_steps == 7
    assert runner.position == stats.num_prompt_tokens + 7
    assert stats.finish_reason == "length"
    assert stats.tokens_per_second == pytest.approx(7 / (stats.decode_seconds + stats.sample_seconds))
    assert 0 < stats.encode_seconds + stats.prefill_seconds <= stats.time_to_first_token
    assert stats.load_seconds > 0
    assert stats.to_dict()["tokens_per_second"] == stats.tokens_per_second


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (GenerationConfig(max_new_tokens=40), "stop"),
        (GenerationConfig(max_new_tokens=2), "length"),
        (GenerationConfig(max_new_tokens=0), "length"),
        (GenerationConfig(max_new_tokens=40, stop=("a",)), "stop"),
        (GenerationConfig(ignore_eos=True), "capacity"),
        (GenerationConfig(seq_len=30, ignore_eos=True), "length"),
    ],
)
def test_each_reason_to_finish_is_reported(
    runner: MultimodalRunner, config: GenerationConfig, reason: str
) -> None:
    runner.generate(ask("Describe this picture.", IMAGE), config)
    assert runner.stats.finish_reason == reason
    assert runner.position <= runner.capacity


def test_the_same_seed_gives_the_same_answer(runner: MultimodalRunner) -> None:
    def sample(seed: int | None) -> str:
        runner.reset()
        config = GenerationConfig(max_new_tokens=30, temperature=3.0, seed=seed, ignore_eos=True)
        return runner.generate_text(ask("Describe this picture.", IMAGE), config)

    assert sample(5) == sample(5)
    assert sample(5) != sample(6)
    assert sample(None) != sample(None)


def test_a_stop_string_is_not_shown(runner: MultimodalRunner) -> None:
    text = runner.generate_text(ask("Describe this picture.", IMAGE))
    word = text.split()[-1]
    runner.reset()
    config = GenerationConfig(stop=[word])
    assert runner.generate_text(ask("Describe this picture.", IMAGE), config) == text[: text.index(word)]


def test_echo_gives_the_prompt_first(runner: MultimodalRunner) -> None:
    prompt = ask("How many shapes are there?", IMAGE)
    answer = runner.generate_text(prompt)
    runner.reset()
    echoed = runner.generate_text(prompt, GenerationConfig(echo=True))
    assert echoed == "<|user|>How many shapes are there?<|end|><|assistant|>" + answer


def test_nothing_is_printed(runner: MultimodalRunner, capfd: pytest.CaptureFixture[str]) -> None:
    runner.generate(ask("Describe this picture.", IMAGE))
    assert capfd.readouterr() == ("", "")


def test_progress_reaches_the_length_of_the_prompt(runner: MultimodalRunner) -> None:
    seen: list[tuple[int, int]] = []
    runner.prefill(
        ask("Describe this picture.", IMAGE), progress=lambda done, total, phase: seen.append((done, total))
    )
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (runner.position, runner.position)


def test_an_exception_in_a_callback_comes_out_and_the_conversation_goes_on(runner: MultimodalRunner) -> None:
    def fail(piece: str) -> None:
        raise KeyError(piece)

    with pytest.raises(KeyError):
        runner.generate(ask("Describe this picture.", IMAGE), None, fail)
    interrupted = runner.save()
    rest = runner.generate_text(ask("How many shapes are there?"))

    runner.restore(interrupted)
    assert runner.generate_text(ask("How many shapes are there?")) == rest
    assert runner.stats.finish_reason == "stop"


def test_ctrl_c_stops_between_two_tokens_and_the_conversation_goes_on(runner: MultimodalRunner) -> None:
    pieces: list[str] = []
    # A test run in the background of a shell inherits an ignored SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 2:
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            runner.generate(ask("Describe this picture.", IMAGE), ENDLESS, interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(pieces) == 2
    assert len(runner.history) == runner.position
    assert runner.generate_text(ask("How many shapes are there?"))


def test_leaving_a_stream_early_frees_the_runner(runner: MultimodalRunner) -> None:
    for _ in runner.stream(ask("Describe this picture.", IMAGE)):
        break
    assert runner.stats.finish_reason == "cancelled"
    history = runner.history
    assert len(history) == runner.position
    assert runner.generate_text(ask("How many shapes are there?"))


def test_an_interrupted_answer_goes_on_as_a_fresh_runner_would(runner: MultimodalRunner) -> None:
    for count, _ in enumerate(runner.stream(ask("Describe this picture.", IMAGE)), start=1):
        if count == 3:
            break
    tokens = [token for token in runner.history if token >= 0]
    pending = runner._session.pending_tokens
    assert pending
    rest = runner.generate_text(ask("How many shapes are there?"))

    question = runner.tokenizer.encode("<|user|>How many shapes are there?<|end|><|assistant|>")
    runner.reset()
    replay = ["<|user|>", IMAGE, make_token_input([*tokens[1:], *pending, *question])]
    assert runner.generate_text(replay) == rest


def test_stop_from_another_thread_ends_an_answer(runner: MultimodalRunner) -> None:
    def stop_at_third(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            thread = threading.Thread(target=runner.stop)
            thread.start()
            thread.join()

    pieces: list[str] = []
    runner.generate(ask("Describe this picture.", IMAGE), ENDLESS, stop_at_third)
    assert runner.stats.finish_reason == "cancelled"
    assert len(pieces) == 3
    assert runner.generate_text(ask("How many shapes are there?"))


def test_stop_while_the_prompt_is_read_takes_it_back(runner: MultimodalRunner) -> None:
    runner.prefill("<|user|>")
    position = runner.position
    pieces: list[str] = []
    runner.generate(
        [make_image_input(IMAGE), "Describe this picture.<|end|><|assistant|>"],
        None,
        pieces.append,
        progress=lambda done, total, phase: runner.stop(),
    )
    assert pieces == []
    assert runner.stats.finish_reason == "cancelled"
    assert runner.position == position
    assert runner.generate_text([make_image_input(IMAGE), "Describe this picture.<|end|><|assistant|>"])


def test_a_second_thread_is_told_that_the_runner_is_busy(runner: MultimodalRunner) -> None:
    errors: list[Exception] = []

    def intrude(call: Callable[[], object]) -> None:
        try:
            call()
        except BusyError as error:
            errors.append(error)

    calls: list[Callable[[], object]] = [
        lambda: runner.generate_text("x"),
        lambda: list(runner.stream("x")),
        lambda: runner.prefill("x"),
        runner.reset,
        runner.save,
        runner.close,
        lambda: runner.rewind(0),
    ]
    stream = runner.stream(ask("Describe this picture.", IMAGE))
    text = next(stream)
    for call in calls:
        thread = threading.Thread(target=intrude, args=(call,))
        thread.start()
        thread.join()
    assert len(errors) == len(calls)
    text += "".join(stream)
    runner.reset()
    assert runner.generate_text(ask("Describe this picture.", IMAGE)) == text


def test_many_threads_on_one_runner_never_crash_it(runner: MultimodalRunner) -> None:
    outcomes: list[str] = []

    def work() -> None:
        for _ in range(10):
            try:
                runner.prefill("red circle")
                outcomes.append("ran")
            except (BusyError, CapacityError):
                outcomes.append("refused")
            runner.stop()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 80
    assert "ran" in outcomes
    assert len(runner.history) == runner.position


def test_other_threads_run_while_the_model_does(runner: MultimodalRunner) -> None:
    ticks = 0
    done = threading.Event()

    def count() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    thread.start()
    runner.generate(ask("Describe this picture.", IMAGE), ENDLESS)
    done.set()
    thread.join()
    assert ticks > runner.stats.num_decode_steps / 4


@pytest.mark.parametrize(
    "inputs",
    ["how many", ["<|user|>", IMAGE, "how many<|end|>"], [make_token_input([4, 5]), IMAGE, IMAGE]],
)
def test_positions_are_counted_before_anything_runs(runner: MultimodalRunner, inputs: Prompt) -> None:
    for _ in range(2):  # the second prompt begins with the last token of an answer
        before = runner.position
        expected = runner.count_positions(inputs)
        assert runner.position == before
        assert runner.prefill(inputs) - before == expected
        runner.generate_text([], max_new_tokens=2, ignore_eos=True)
    assert runner.count_positions("red", num_bos=3) == runner.count_positions("red")
    runner.reset()
    assert runner.count_positions("red", num_bos=3) == runner.count_positions("red", num_bos=1) + 2


def test_positions_of_prompts_that_cannot_be_read_are_counted_or_refused(runner: MultimodalRunner) -> None:
    assert runner.count_positions(make_token_input([4] * 300)) == 300 > runner.contract.capacity
    with pytest.raises(InputError, match="at least one token"):
        runner.count_positions("")
    with pytest.raises(InputError, match="expected"):
        runner.count_positions([5])  # type: ignore[list-item]
    assert runner.generate_text("how many", max_new_tokens=1)


def test_a_prompt_beyond_the_context_changes_nothing(runner: MultimodalRunner) -> None:
    runner.prefill(ask("Describe this picture.", IMAGE))
    position = runner.position
    with pytest.raises(CapacityError, match=r"needs 300 positions, \d+ of 256 are free") as caught:
        runner.prefill(make_token_input([7] * 300))
    assert caught.value.needed == 300
    assert caught.value.available == runner.capacity - position
    assert runner.position == position
    assert runner.generate_text([])


def test_rewind_and_restore_bring_back_earlier_points(runner: MultimodalRunner) -> None:
    runner.prefill(["<|user|>", make_image_input(IMAGE)])
    after_image = runner.position
    saved = runner.save()
    first = runner.generate_text("How many shapes are there?<|end|><|assistant|>")
    runner.rewind(after_image)
    assert runner.generate_text("How many shapes are there?<|end|><|assistant|>") == first
    runner.reset()
    runner.restore(saved)
    assert saved.position == after_image
    assert runner.generate_text("How many shapes are there?<|end|><|assistant|>") == first
    with pytest.raises(InputError, match="rewind"):
        runner.rewind(10_000)
    with MultimodalRunner.demo() as other, pytest.raises(InputError, match="another runner"):
        other.restore(saved)


def test_a_closed_runner_says_so_and_closing_twice_is_fine() -> None:
    with MultimodalRunner.demo() as runner:
        assert runner.capacity == 256
    runner.close()
    for call in (lambda: runner.generate_text("x"), runner.reset, lambda: list(runner.stream("x"))):
        with pytest.raises(ExecutorchMMError, match="closed"):
            call()
    runner.stop()
    for attribute in ("position", "capacity", "history", "contract"):
        with pytest.raises(ExecutorchMMError, match="closed"):
            getattr(runner, attribute)


def test_bos_comes_before_a_leading_image_and_only_at_the_start(runner: MultimodalRunner) -> None:
    bos = runner.tokenizer.bos_id
    config = GenerationConfig(num_bos=1)
    runner.prefill([make_image_input(IMAGE)], config)
    assert runner.history[0] == bos
    runner.prefill("red", config)
    assert runner.history.count(bos) == 1
