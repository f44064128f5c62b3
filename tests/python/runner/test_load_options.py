"""Where a model comes from and with which options it is loaded; each option is seen to do something."""

from __future__ import annotations

import gc
import json
import mmap
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from executorch_mm import (
    ClipModel,
    ExecutorchMMError,
    GenerationConfig,
    InputError,
    ModelLoadError,
    MultimodalRunner,
    SpeechRunner,
    TokenizerError,
    UnknownOptionError,
    XnnpackOptions,
    inspect_model,
    make_token_input,
)
from executorch_mm._loading.options import LoadMode

MODELS = Path(__file__).resolve().parents[2] / "models"
EXPECTED = json.loads((MODELS / "text" / "expected.json").read_text())
QUESTION = "<|user|>hello<|end|><|assistant|>"


def continuation(runner: MultimodalRunner, prompt: list[int], count: int) -> list[int]:
    """The next `count` tokens; the last token of an answer is not in the history yet."""
    runner.prefill(make_token_input(prompt))
    runner.generate_text([], GenerationConfig(max_new_tokens=count + 1, ignore_eos=True))
    return runner.history[len(prompt) :]


@pytest.fixture(scope="module")
def content(demo_folder: Path) -> bytes:
    return (demo_folder / "model.pte").read_bytes()


@pytest.fixture(scope="module")
def reference(demo_runner: MultimodalRunner) -> str:
    demo_runner.reset()
    return demo_runner.generate_text(QUESTION, GenerationConfig(max_new_tokens=8))


def answer(runner: MultimodalRunner) -> str:
    return runner.generate_text(QUESTION, GenerationConfig(max_new_tokens=8))


@pytest.mark.parametrize("load_mode", ["mmap", "mmap+mlock", "file"])
def test_every_load_mode_gives_the_same_answer(
    demo_folder: Path, reference: str, load_mode: LoadMode
) -> None:
    with MultimodalRunner(demo_folder / "model.pte", load_mode=load_mode) as runner:
        assert answer(runner) == reference


@pytest.mark.parametrize("load_mode", ["mmap", "mmap+mlock", "file"])
def test_weights_in_several_data_files_give_the_eager_models_tokens(
    demo_folder: Path, load_mode: LoadMode
) -> None:
    folder = MODELS / "external_weights"
    data = [folder / "blocks.ptd", folder / "ends.ptd"]
    prompt, expected = EXPECTED["turns"][0]
    with MultimodalRunner(folder / "model.pte", demo_folder, data_path=data, load_mode=load_mode) as runner:
        assert continuation(runner, prompt, len(expected)) == expected


@pytest.mark.parametrize("data", [(), "ends.ptd", ["blocks.ptd"]])
def test_weights_without_their_data_file_are_reported(demo_folder: Path, data: str | list[str]) -> None:
    folder = MODELS / "external_weights"
    names = [data] if isinstance(data, str) else data
    with pytest.raises(ModelLoadError, match=r"forward: .*is a \.ptd file missing in data_path\?"):
        MultimodalRunner(folder / "model.pte", demo_folder, data_path=[folder / name for name in names])


def test_a_data_file_that_does_not_exist_is_named(demo_folder: Path) -> None:
    folder = MODELS / "external_weights"
    with pytest.raises(ModelLoadError, match=r"absent\.ptd: no such file"):
        MultimodalRunner(folder / "model.pte", demo_folder, data_path=folder / "absent.ptd")


def mapped(content: bytes) -> mmap.mmap:
    area = mmap.mmap(-1, len(content))
    area[:] = content
    return area


@pytest.mark.parametrize(
    "kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.uint8), mapped]
)
def test_a_model_in_memory_answers_as_the_file_does(
    demo_folder: Path, content: bytes, reference: str, kind: Callable[[bytes], bytes]
) -> None:
    with MultimodalRunner(kind(content), demo_folder) as runner:
        assert answer(runner) == reference


def test_a_model_in_memory_is_not_copied_and_stays_referenced_until_the_runner_is_gone(
    demo_folder: Path, content: bytes, reference: str
) -> None:
    class Memory(bytearray):
        """Can be referred to weakly."""

    memory = Memory(content)
    seen = weakref.ref(memory)
    runner = MultimodalRunner(memory, demo_folder)
    with pytest.raises(BufferError):  # in use: it cannot be resized
        memory.append(0)
    del memory
    gc.collect()
    assert answer(runner) == reference
    assert seen() is not None
    del runner
    gc.collect()
    assert seen() is None


def test_memory_at_an_odd_address_is_copied_and_let_go(
    demo_folder: Path, content: bytes, reference: str, tmp_path: Path
) -> None:
    memory = bytearray(b"?" + content)
    with MultimodalRunner(memoryview(memory)[1:], demo_folder) as runner:
        memory[:] = b"?"  # neither in use nor needed
        assert answer(runner) == reference
        position = runner.position
        runner.save(tmp_path / "chat.emm")
    with MultimodalRunner(demo_folder / "model.pte", demo_folder) as same_model:
        same_model.restore(tmp_path / "chat.emm")
        assert same_model.position == position


def test_a_model_in_memory_takes_one_data_file(demo_folder: Path) -> None:
    folder = MODELS / "external_weights"
    content = (folder / "model.pte").read_bytes()
    prompt, expected = EXPECTED["turns"][0]
    with MultimodalRunner(content, demo_folder, data_path=folder / "all.ptd") as runner:
        assert continuation(runner, prompt, len(expected)) == expected
    data = [folder / "blocks.ptd", folder / "ends.ptd"]
    with pytest.raises(
        InputError, match=r"at most one \.ptd file for a model in memory or in a bundle, got 2"
    ):
        MultimodalRunner(content, demo_folder, data_path=data)


def test_a_model_in_memory_needs_a_tokenizer(content: bytes) -> None:
    with pytest.raises(TokenizerError, match="nothing beside it"):
        MultimodalRunner(content)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (b"", InputError, "got 0 bytes"),
        (b"no program", ModelLoadError, r"model \(10 bytes in memory\): program"),
        (bytes(4096), ModelLoadError, r"model \(4096 bytes in memory\): program"),
        (np.zeros((64, 64), np.uint8)[:, ::2], InputError, "contiguous memory"),
        (12, InputError, "a path or an object with a buffer, got int"),
        (None, InputError, "a path or an object with a buffer, got NoneType"),
    ],
)
def test_memory_that_holds_no_model_is_refused(
    demo_folder: Path, model: bytes, error: type[ExecutorchMMError], message: str
) -> None:
    with pytest.raises(error, match=message):
        MultimodalRunner(model, demo_folder)


def test_a_truncated_model_in_memory_is_refused(demo_folder: Path, content: bytes) -> None:
    for size in (7, 32, 100, 4096, len(content) // 2):
        with pytest.raises(ExecutorchMMError):
            MultimodalRunner(content[:size], demo_folder)


MEMORY = """
import json, sys
from executorch_mm import *
def anonymous():  # kB that are this process's own
    line, = (line for line in open("/proc/self/smaps_rollup") if line.startswith("Anonymous:"))
    return int(line.split()[1])
runners, used = [], []
for _ in range(4):
    runners.append(MultimodalRunner(sys.argv[1], xnnpack=XnnpackOptions(**json.loads(sys.argv[2]))))
    text = runners[-1].generate_text(sys.argv[3], GenerationConfig(max_new_tokens=8))
    used.append(anonymous())
print(json.dumps({"text": text, "first": used[0], "growth": (used[-1] - used[0]) / 3}))
"""


def memory_of(model: Path, **options: object) -> dict[str, float]:
    """The answer, kB of a process with one model, and kB that another model of the same file adds."""
    command = [sys.executable, "-c", MEMORY, str(model), json.dumps(options), QUESTION]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc")
def test_xnnpack_options_change_what_a_model_takes_and_not_what_it_says(
    demo_folder: Path, reference: str
) -> None:
    model = demo_folder / "model.pte"
    shared = memory_of(model)
    per_model = memory_of(model, workspace_sharing="per_model")
    alone = memory_of(model, workspace_sharing="disabled")
    cached = memory_of(model, weight_cache=True)
    assert {run["text"] for run in (shared, per_model, alone, cached)} == {reference}
    # Measured on x86-64: 4350, 4870, 10810 and 1380 kB for each further model.
    assert shared["growth"] + 200 < per_model["growth"] < alone["growth"] - 2000
    assert cached["growth"] < 0.6 * shared["growth"]


def test_wrong_options_are_refused(demo_folder: Path) -> None:
    model = demo_folder / "model.pte"
    with pytest.raises(InputError, match=r"workspace_sharing: expected .*, got 'some'"):
        MultimodalRunner(model, xnnpack=XnnpackOptions(workspace_sharing="some"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"load_mode: expected .*, got 'paper'"):
        MultimodalRunner(model, load_mode="paper")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="packed_cache_path"):  # which there was
        XnnpackOptions(packed_cache_path="weights.bin")  # type: ignore[call-arg]


def test_the_number_of_threads_is_final_once_a_model_uses_the_pool(demo_folder: Path) -> None:
    program = (
        "import sys\nfrom executorch_mm import *\n"
        "first = MultimodalRunner(sys.argv[1], num_threads=2)\n"
        "MultimodalRunner(sys.argv[1], num_threads=1)\n"
        "try: MultimodalRunner(sys.argv[1], num_threads=3)\n"
        "except InputError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(demo_folder / "model.pte")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == (
        "num_threads: expected 2 (fixed when the first model of this process was loaded) or 1, got 3\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_thread": 2}, "num_thread: there is no such option: did you mean num_threads"),
        ({"loadmode": "mmap"}, "loadmode: .* did you mean load_mode"),
        ({"xnn_pack": None}, "xnn_pack: .* did you mean xnnpack"),
        ({"device": "cpu"}, "device: .* the options are load_mode, num_threads, xnnpack"),
        ({"load_mode": "mmap", "threads_": 1}, "threads_: there is no such option"),
    ],
)
def test_a_wrong_loading_option_is_named_by_every_class(
    demo_folder: Path, options: dict[str, Any], message: str
) -> None:
    model = demo_folder / "model.pte"
    for load in (
        MultimodalRunner,
        SpeechRunner,
        ClipModel,
        MultimodalRunner.from_pretrained,
        SpeechRunner.from_pretrained,
    ):
        path = demo_folder if "from_pretrained" in repr(load) else model
        with pytest.raises(UnknownOptionError, match=message) as caught:
            load(path, **options)
        assert isinstance(caught.value, TypeError)
    with pytest.raises(UnknownOptionError, match="profile_path"):
        ClipModel(model, profile_path="x")  # type: ignore[call-arg]


def test_an_object_that_lies_about_its_path_is_named() -> None:
    class Lies:
        def __fspath__(self) -> Lies:
            return self

    for load in (MultimodalRunner, SpeechRunner, ClipModel, inspect_model):
        with pytest.raises(InputError, match="path: expected a"):
            load(Lies())  # type: ignore[operator]


def test_from_pretrained_takes_what_the_constructor_takes(demo_folder: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile.etdp"
    with MultimodalRunner.from_pretrained(
        demo_folder, load_mode="file", num_threads=1, profile_path=profile
    ) as it:
        it.generate_text("red", max_new_tokens=1)
        assert it.stats.num_threads == 1
    assert profile.stat().st_size > 0
