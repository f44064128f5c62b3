"""Delegates: the ones that are here run, the others are named when a model is loaded."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from executorch_mm import ModelLoadError, MultimodalRunner, build_info

FOLDER = Path(__file__).resolve().parents[2] / "models" / "openvino"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the SDK has OpenVINO's delegate on Linux only")
with_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra executorch_mm[openvino] is not installed"
)

ANSWER = """
import json, os, sys
from executorch_mm import *
def load():
    return MultimodalRunner(sys.argv[1], sys.argv[2])
def answer(prompt, count):
    with load() as runner:
        runner.prefill(make_token_input(prompt))
        runner.generate_text([], GenerationConfig(max_new_tokens=count + 1, ignore_eos=True))
        return runner.history[len(prompt):]
prompt = json.loads(sys.argv[3])
"""


def run(program: str, demo_folder: Path, **environment: str) -> str:
    """Stdout of a program in a process of its own: OpenVINO's runtime is opened once in a process."""
    command = [sys.executable, "-c", ANSWER + program, str(FOLDER / "model.pte"), str(demo_folder)]
    command.append(json.dumps(EXPECTED["prompt"]))
    env = {name: value for name, value in os.environ.items() if name != "OPENVINO_LIB_PATH"} | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_platforms_delegates_are_linked() -> None:
    expected = {"linux": {"OpenvinoBackend"}, "darwin": {"CoreMLBackend", "MLXBackend"}}[sys.platform]
    assert set(build_info().backends) == {"XnnpackBackend"} | expected


@on_linux
@with_openvino
def test_an_openvino_program_gives_the_eager_models_tokens(demo_folder: Path) -> None:
    answer = EXPECTED["answer"]
    program = f"print(answer(prompt, {len(answer)}), answer(prompt, {len(answer)}))"
    assert run(program, demo_folder) == f"{answer} {answer}\n"


@on_linux
@with_openvino
def test_a_failed_search_for_the_runtime_can_be_repeated_and_leaves_the_environment_alone(
    demo_folder: Path,
) -> None:
    program = """
import ctypes
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
os.environ["OPENVINO_LIB_PATH"] = "/nowhere/libopenvino_c.so"
try: load()
except ModelLoadError as error: print("/nowhere" in str(error))
del os.environ["OPENVINO_LIB_PATH"]
print(answer(prompt, 2), getenv(b"OPENVINO_LIB_PATH"))
"""
    assert run(program, demo_folder) == f"True\n{EXPECTED['answer'][:2]} None\n"


@on_linux
def test_without_its_runtime_an_openvino_program_names_the_extra(demo_folder: Path) -> None:
    program = "try: load()\nexcept ModelLoadError as error: print(error)"
    message = run(program, demo_folder, OPENVINO_LIB_PATH="/nowhere/libopenvino_c.so")
    assert "forward: exported for OpenvinoBackend" in message
    assert "/nowhere/libopenvino_c.so" in message
    assert "pip install 'executorch_mm[openvino]'" in message


@pytest.mark.parametrize(
    ("backend", "provider"),
    [
        ("QnnBackend", "Qualcomm's QNN SDK"),
        ("VulkanBackend", "Vulkan"),
        ("CudaBackend", "CUDA"),
        ("EthosUBackend", "Ethos-U"),
        ("MPSBackend", "MPS"),
        pytest.param("MLXBackend", "Apple Silicon", marks=on_linux),
        ("VgfBackend", "Vulkan"),
        pytest.param("CoreMLBackend", "macOS", marks=on_linux),
        ("SomeOtherName", "which this build does not have"),
    ],
)
def test_a_delegate_that_is_not_here_is_named_with_what_provides_it(
    demo_folder: Path, backend: str, provider: str
) -> None:
    # A shorter string in the same place: its length stands in the four bytes before it.
    ours = b"\x0e\0\0\0XnnpackBackend\0"
    name = backend.encode()
    theirs = (len(name).to_bytes(4, "little") + name).ljust(len(ours), b"\0")
    content = (demo_folder / "model.pte").read_bytes()
    assert ours in content
    with pytest.raises(ModelLoadError, match=f"text_decoder: exported for {backend}") as caught:
        MultimodalRunner(content.replace(ours, theirs), demo_folder)
    assert provider in str(caught.value)
    assert "export it again for XNNPACK" in str(caught.value)
