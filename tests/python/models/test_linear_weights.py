"""Linear layers of our own with a copy of their weights in large pages."""

from __future__ import annotations

import gc
import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import (
    ExecutorchMMError,
    InputError,
    MultimodalRunner,
    XnnpackOptions,
    build_info,
    make_token_input,
)
from executorch_mm._loading.methods import load_methods
from executorch_mm._loading.options import Linear, LinearWeights, LoadMode
from linear_graphs import FOLDER, INPUTS, damaged
from model_set import MODELS
from number_tokenizer import NumberTokenizer

DECODER = MODELS / "export_llm" / "llama_xnnpack_8da4w.pte"
VARIABLE = "EXECUTORCH_MM_LINEAR_WEIGHTS"
COPIED = XnnpackOptions(linear="own", linear_weights="copied")


def outputs(
    name: str, linear: Linear, linear_weights: LinearWeights, load_mode: LoadMode = "mmap", threads: int = 1
) -> list[bytes]:
    xnnpack = XnnpackOptions(linear=linear, linear_weights=linear_weights)
    methods, _ = load_methods(
        FOLDER / f"{name}.pte", load_mode=load_mode, num_threads=threads, xnnpack=xnnpack
    )
    rng = np.random.default_rng(3)
    rows = [rng.normal(size=(1, count, INPUTS[name])).astype(np.float32) for count in (1, 2, 3, 5, 17, 64)]
    return [np.asarray(methods.run("forward", [batch])).tobytes() for batch in rows]


def copied_bytes(caplog: pytest.LogCaptureFixture) -> list[int]:
    """What the process has copies of, at each load so far."""
    return [int(count) for count in re.findall(r"has copies of (\d+) bytes of weights", caplog.text)]


@pytest.mark.parametrize("linear", build_info().linear_kernels)
@pytest.mark.parametrize("name", INPUTS)
def test_a_copy_gives_the_bits_of_the_file(name: str, linear: Linear) -> None:
    assert outputs(name, linear, "copied") == outputs(name, linear, "in_place")


@pytest.mark.parametrize("load_mode", ["mmap", "mmap+mlock", "file"])
def test_every_load_mode_is_copied_from(load_mode: LoadMode) -> None:
    # The pool's size is asked for here: it is settled when the process loads its first program.
    for threads in (build_info().num_pool_threads, 1):
        found = outputs("int4_groups_of_32", "own", "copied", load_mode, threads)
        assert found == outputs("int4_groups_of_32", "own", "in_place")


@pytest.mark.parametrize("source", [DECODER, DECODER.read_bytes()])
def test_a_decoder_answers_with_a_copy_as_without(source: Path | bytes) -> None:
    answers: list[str] = []
    for weights in ("in_place", "copied"):
        xnnpack = XnnpackOptions(linear="own", linear_weights=weights)
        with MultimodalRunner(source, NumberTokenizer(), xnnpack=xnnpack) as runner:
            for tokens in ([3, 17, 40, 8, 25], [7, 9]):
                answer = runner.generate_text(make_token_input(tokens), max_new_tokens=8, ignore_eos=True)
                answers.append(answer)
    assert answers[:2] == answers[2:]
    assert answers[0]


def test_models_with_the_same_weights_share_a_copy_that_goes_with_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="executorch_mm")
    # tools/fixtures/linear: 37 outputs of 160 inputs, 4 bits each, a bfloat16 for each 32, a float of bias;
    # 33 of 100, 8 bits each, a float and one of bias.
    weights = 37 * (160 // 2 + 160 // 32 * 2 + 4)
    of_bytes = 33 * (100 + 4 + 4)

    def load(name: str) -> object:
        return load_methods(FOLDER / f"{name}.pte", xnnpack=COPIED)[0]

    models = [load("int4_groups_of_32"), load("int4_groups_of_32"), load("int8")]
    assert copied_bytes(caplog) == [weights, weights, weights + of_bytes]
    models.clear()
    gc.collect()
    caplog.clear()
    load("int8")
    assert copied_bytes(caplog) == [of_bytes]


def test_nothing_is_copied_unasked_or_for_the_delegate(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="executorch_mm")
    load_methods(FOLDER / "int8.pte", xnnpack=XnnpackOptions(linear="own"))
    load_methods(FOLDER / "int8.pte", xnnpack=XnnpackOptions(linear="xnnpack", linear_weights="copied"))
    assert copied_bytes(caplog) == []


@pytest.mark.parametrize(
    ("option", "variable", "is_copied"),
    [
        ("auto", "copied", True),
        ("auto", "in_place", False),
        ("auto", "auto", False),
        ("auto", "", False),
        ("in_place", "copied", False),
        ("copied", "in_place", True),
    ],
)
def test_the_environment_chooses_where_the_option_does_not(
    option: LinearWeights,
    variable: str,
    is_copied: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="executorch_mm")
    monkeypatch.setenv(VARIABLE, variable)
    load_methods(FOLDER / "int8.pte", xnnpack=XnnpackOptions(linear="own", linear_weights=option))
    assert len(copied_bytes(caplog)) == is_copied


def test_another_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"linear_weights: expected 'auto', 'in_place' or 'copied', got 'ram'"
    ):
        XnnpackOptions(linear_weights="ram")  # type: ignore[arg-type]
    monkeypatch.setenv(VARIABLE, "ram")
    with pytest.raises(InputError, match=f"{VARIABLE}: expected 'auto', 'in_place', 'copied', got 'ram'"):
        load_methods(FOLDER / "int8.pte")


@pytest.mark.parametrize("offset", range(0, 1408, 21))
def test_damage_is_refused_before_the_copy_as_without(offset: int, tmp_path: Path) -> None:
    path = damaged(offset, tmp_path)
    batch = np.ones((1, 3, 160), np.float32)

    def outcome(linear_weights: LinearWeights) -> object:
        xnnpack = XnnpackOptions(linear="own", linear_weights=linear_weights)
        try:
            methods, _ = load_methods(path, num_threads=1, xnnpack=xnnpack)
            return np.asarray(methods.run("forward", [batch])).tobytes()
        except ExecutorchMMError as error:
            return type(error), str(error)

    assert outcome("copied") == outcome("in_place")


NO_ROOM = """
import resource, sys
from executorch_mm import ModelLoadError, XnnpackOptions
from executorch_mm._loading.methods import load_methods
def load(weights):
    xnnpack = XnnpackOptions(linear="own", linear_weights=weights)
    return load_methods(sys.argv[1], num_threads=1, xnnpack=xnnpack)
load("in_place")
line, = (line for line in open("/proc/self/status") if line.startswith("VmSize:"))
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, ((int(line.split()[1]) << 10) + (16 << 20), before[1]))
load("in_place")
try:
    load("copied")
except ModelLoadError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, before)
load("copied")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_no_room_for_a_copy_is_a_load_error() -> None:
    command = [sys.executable, "-c", NO_ROOM, str(FOLDER / "int8.pte")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert re.search(r"linear_weights: no memory for a copy of \d+ bytes of weights", done.stdout)


MEMORY = """
import json, sys
from executorch_mm import XnnpackOptions
from executorch_mm._loading.methods import load_methods
def anonymous():  # kB that are this process's own
    line, = (line for line in open("/proc/self/smaps_rollup") if line.startswith("Anonymous:"))
    return int(line.split()[1])
used, models = [], []
for weights in ("in_place", "in_place", "copied", "copied"):
    xnnpack = XnnpackOptions(linear="own", linear_weights=weights)
    models.append(load_methods(sys.argv[1], num_threads=1, xnnpack=xnnpack))
    used.append(anonymous())
del models[2:]
print(json.dumps([*used, anonymous()]))
"""


@pytest.mark.real_model
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="reads /proc")
def test_a_copy_takes_the_memory_of_the_weights_once_and_gives_it_back(real_models: Path) -> None:
    folder = real_models / "smollm2-135m-instruct-8da4w"
    if not (folder / "model.pte").is_file():
        pytest.skip(f"{folder} does not exist; `python tools/smollm2/make.py 8da4w --out FOLDER` makes it")
    # 30 layers of 576 (keys and values 192, between them 1536), 49152 words; 4 bits and a sixteenth of them.
    layers = 2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536
    copy = (30 * layers + 49152 * 576) * 9 / 16 / 1024  # kB

    command = [sys.executable, "-c", MEMORY, str(folder / "model.pte")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    first, in_place, copied, shared, closed = json.loads(done.stdout)

    of_a_model = in_place - first
    assert copy <= copied - in_place < copy + of_a_model + 3 * 2048  # blocks end in large pages
    assert shared - copied < of_a_model + 1024
    assert shared - closed >= copy
