"""`isolate=True`: the model runs in a process of its own, answers the same, and a crash there is an error."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    ExecutionError,
    GenerationConfig,
    InputError,
    IsolatedProcessError,
    ModelLoadError,
    MultimodalModel,
    MultimodalRunner,
    SpeechRunner,
    make_token_input,
)
from executorch_mm.demo import make_scene, render

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create"), reason="isolated models need memory that this system does not have"
)
MODELS = Path(__file__).resolve().parents[2] / "models"
SCENE = render(make_scene(seed=950_000_001))
PROMPT = ["<|user|>", SCENE, "how many shapes are there?<|end|><|assistant|>"]
SAMPLED = GenerationConfig(max_new_tokens=12, temperature=1.0, seed=3, logprobs=2, ignore_eos=True)


def children() -> set[int]:
    """Of this process, whichever thread has started them."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(number) for task in tasks for number in task.read_text().split()}


def num_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def isolated(demo_folder: Path) -> Iterator[tuple[MultimodalRunner, int]]:
    """A runner and its process."""
    before = children()
    with MultimodalRunner(demo_folder / "model.pte", isolate=True, num_threads=1) as runner:
        (process,) = children() - before
        yield runner, process


def test_answers_are_those_of_a_model_in_this_process(
    isolated: tuple[MultimodalRunner, int], runner: MultimodalRunner
) -> None:
    apart, _ = isolated
    for one in (apart, runner):
        one.reset()
    first, second = (one.generate_result(PROMPT, SAMPLED) for one in (apart, runner))
    assert first.token_ids == second.token_ids
    assert first.logprobs == second.logprobs
    assert apart.history == runner.history
    assert first.stats.copied_input_bytes == second.stats.copied_input_bytes
    assert apart.contract.metadata == runner.contract.metadata


def test_processors_streams_and_stop_texts_stay_here(
    isolated: tuple[MultimodalRunner, int], runner: MultimodalRunner
) -> None:
    apart, _ = isolated
    seen: list[list[int]] = []

    def forbid(history: list[int], logits: np.ndarray) -> None:
        seen.append(history)
        logits[5:] -= 1.0

    for one in (apart, runner):
        one.reset()
    options = {"max_new_tokens": 6, "ignore_eos": True, "logits_processors": [forbid]}
    pieces = [list(one.stream("how many", **options)) for one in (apart, runner)]  # type: ignore[arg-type]
    assert pieces[0] == pieces[1]
    assert seen[: len(seen) // 2] == seen[len(seen) // 2 :]


def test_a_conversation_is_saved_restored_and_taken_back(
    isolated: tuple[MultimodalRunner, int], runner: MultimodalRunner, tmp_path: Path
) -> None:
    apart, _ = isolated
    apart.prefill(PROMPT)
    saved = apart.save(tmp_path / "chat.emm")
    first = apart.generate_text([], max_new_tokens=8)
    apart.restore(saved)
    assert apart.generate_text([], max_new_tokens=8) == first
    apart.rewind(3)
    assert apart.position == 3
    runner.restore(tmp_path / "chat.emm")  # whose file says nothing of processes
    assert runner.generate_text([], max_new_tokens=8) == first


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_process_that_ends_is_an_error_that_says_how(demo_folder: Path, number: signal.Signals) -> None:
    before = children()
    runner = MultimodalRunner(demo_folder / "model.pte", isolate=True, num_threads=1)
    (process,) = children() - before
    os.kill(process, number)
    for _ in range(2):
        with pytest.raises(IsolatedProcessError, match=rf"was ended by signal {int(number)} "):
            runner.generate_text("how many", max_new_tokens=2)
    with pytest.raises(IsolatedProcessError):
        runner.reset()
    runner.close()
    assert process not in children()


def test_a_process_that_ends_in_the_midst_of_an_answer_ends_the_answer(
    isolated: tuple[MultimodalRunner, int],
) -> None:
    runner, process = isolated
    stream = runner.stream("how many", max_new_tokens=200, ignore_eos=True)
    next(stream)
    os.kill(process, signal.SIGSEGV)
    with pytest.raises(IsolatedProcessError, match="signal 11"):
        list(stream)


def test_a_process_that_cannot_load_the_package_is_an_error(
    demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    before = children()
    with pytest.raises(IsolatedProcessError, match="ended with exit code 1"):
        MultimodalRunner(demo_folder / "model.pte", isolate=True)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ExecutionError, match="no process can be started"):
        MultimodalRunner(demo_folder / "model.pte", isolate=True)
    assert children() <= before  # of earlier tests some may have ended by now


def test_errors_of_files_and_inputs_are_the_same(demo_folder: Path, tmp_path: Path) -> None:
    before, files = children(), num_files()
    with pytest.raises(ModelLoadError, match=r"[nN]o such file"):
        MultimodalRunner(tmp_path / "model.pte", demo_folder, isolate=True)
    (tmp_path / "model.pte").write_bytes((demo_folder / "model.pte").read_bytes()[:5000])
    with pytest.raises(ModelLoadError):
        MultimodalRunner(tmp_path / "model.pte", demo_folder, isolate=True)
    with pytest.raises(InputError, match="isolate: expected the path of a file"):
        MultimodalRunner((demo_folder / "model.pte").read_bytes(), demo_folder, isolate=True)
    with pytest.raises(InputError, match="isolate: transducers"):
        SpeechRunner(MODELS / "transducer" / "tdt.pte", MODELS / "transducer", isolate=True)
    with pytest.raises(InputError, match="isolate: expected True or False"):
        MultimodalRunner(demo_folder / "model.pte", isolate="yes")  # type: ignore[arg-type]
    with MultimodalRunner(demo_folder / "model.pte", isolate=True, num_threads=1) as runner:
        with pytest.raises(InputError, match="expected token ids in"):
            runner.prefill(make_token_input([10**6]))
        assert runner.generate_text("how many", max_new_tokens=2)
    gc.collect()
    assert children() <= before  # of earlier tests some may have ended by now
    assert num_files() <= files  # of earlier tests some may be closed by now


def test_speech_is_written_down_as_in_this_process() -> None:
    audio = np.sin(np.arange(16_000) / 9).astype(np.float32)
    texts = []
    for isolate in (False, True):
        path = MODELS / "speech" / "kv.pte"
        with SpeechRunner(path, isolate=isolate, num_threads=1) as runner:
            heard = runner.transcribe(audio, sampling_rate=16_000, temperature=0.0, max_new_tokens=12)
            texts.append((heard.text, heard.language))
    assert texts[0] == texts[1]


def test_models_of_many_threads_run_side_by_side(demo_folder: Path) -> None:
    answers: list[str] = []

    def work() -> None:
        with MultimodalRunner(demo_folder / "model.pte", isolate=True, num_threads=1) as runner:
            answers.extend(runner.generate_text(PROMPT, max_new_tokens=8) for _ in range(2))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len(set(answers[::2])) == 1


def num_states(process: int) -> int:
    """Memories of conversations that a model's process has mapped."""
    return Path(f"/proc/{process}/maps").read_text().count("memfd:executorch_mm state")


@contextlib.contextmanager
def halted(process: int) -> Iterator[None]:
    """A call of the model that does not come back meanwhile."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


class TestSeveralConversations:
    @pytest.fixture
    def model(self, demo_folder: Path) -> Iterator[tuple[MultimodalModel, int]]:
        """A model and its process."""
        before = children()
        options: dict[str, Any] = {"isolate": True, "num_threads": 1, "prefix_cache_bytes": 0}
        with MultimodalModel(demo_folder / "model.pte", **options) as model:
            (process,) = children() - before
            yield model, process

    def test_each_answers_as_alone_and_forks_go_their_own_way(
        self, model: tuple[MultimodalModel, int], runner: MultimodalRunner
    ) -> None:
        prompts = [PROMPT, ["what"], ["how many"], PROMPT]
        runner.reset()
        expected, again = [], []
        for prompt in prompts:
            expected.append(runner.generate_result(prompt, SAMPLED).token_ids)
            again.append(runner.generate_result([], SAMPLED).token_ids)
            runner.reset()

        def ask(number: int) -> list[Any]:
            with model[0].session() as session:
                first = session.generate_result(prompts[number], SAMPLED).token_ids
                with session.fork() as fork:
                    return [first, *(each.generate_result([], SAMPLED).token_ids for each in (session, fork))]

        with ThreadPoolExecutor(4) as threads:
            for number, answers in enumerate(threads.map(ask, range(4))):
                assert answers == [expected[number], again[number], again[number]]

    def test_a_closed_one_gives_its_memory_back_in_the_process(
        self, model: tuple[MultimodalModel, int]
    ) -> None:
        with model[0].session() as session:
            session.prefill("how many")
            before = num_states(model[1])
            assert before > 0
            for _ in range(5):
                with session.fork() as fork, model[0].session() as other:
                    fork.prefill("what")
                    other.prefill("what")
                    assert num_states(model[1]) > before
            session.prefill("how many")  # so that the process has heard of it
            assert num_states(model[1]) <= before

    def test_who_waits_is_ended_by_a_timeout_and_a_stop_while_the_model_does_not_come_back(
        self, model: tuple[MultimodalModel, int]
    ) -> None:
        with model[0].session() as one, model[0].session() as other, ThreadPoolExecutor(1) as thread:
            expected = other.generate_text("how many", max_new_tokens=6, ignore_eos=True)
            other.reset()
            one.prefill("how many")
            with halted(model[1]):
                calling = thread.submit(one.generate_text, [], max_new_tokens=6, ignore_eos=True)
                time.sleep(0.1)
                begun = time.monotonic()
                result = other.generate_result("how many", timeout=0.05)
                assert result.finish_reason == "timeout"
                stopper = threading.Timer(0.05, other.stop)
                stopper.start()
                assert other.generate_result("how many").finish_reason == "cancelled"

                async def leave() -> None:
                    with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                        await asyncio.wait_for(other.agenerate_text("how many"), 0.05)

                asyncio.run(leave())
                assert time.monotonic() - begun < 10
                assert not calling.done()
            assert calling.result() == expected
            assert other.position == 0
            assert other.generate_text("how many", max_new_tokens=6, ignore_eos=True) == expected

    def test_the_end_of_the_process_ends_all_of_them(self, model: tuple[MultimodalModel, int]) -> None:
        with model[0].session() as one, model[0].session() as other, ThreadPoolExecutor(2) as threads:
            one.prefill("how many")
            with halted(model[1]):
                asked = [threads.submit(each.generate_text, "what") for each in (one, other)]
                time.sleep(0.1)
                os.kill(model[1], signal.SIGKILL)
                for each in asked:
                    with pytest.raises(IsolatedProcessError, match="signal 9"):
                        each.result()


def test_the_process_goes_when_its_caller_does(demo_folder: Path) -> None:
    """Even where the caller is killed and can say nothing."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom executorch_mm import MultimodalRunner\n"
        "runner = MultimodalRunner(sys.argv[1], isolate=True)\n"
        "tasks = Path('/proc/self/task').glob('*/children')\n"
        "print(*[n for task in tasks for n in task.read_text().split()], flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, demo_folder / "model.pte"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as caller:
        assert caller.stdout is not None
        process = int(caller.stdout.readline())
        assert Path(f"/proc/{process}").exists()
        caller.kill()
        caller.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{process}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            break  # it has ended; nobody has asked yet how
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{process}").exists()
