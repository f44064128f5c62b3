"""Shows that an installed wheel works where nothing but the wheel and what it requires is installed.

    python tools/wheel/smoke.py [--sdk FOLDER] [--questions N]

Run with the interpreter of a fresh environment; needs nothing beside the wheel itself.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

DEPENDENCIES = {"jinja2", "numpy", "pillow", "tokenizers"}
ABSENT = [
    "torch",
    "executorch",
    "transformers",
    "openvino",
    "sentencepiece",
    "tiktoken",
    "llguidance",
    "soxr",
    "starlette",
    "uvicorn",
]
EMULATOR = shlex.split(os.environ.get("EMM_EMULATOR", ""))  # of another machine's instructions
SHARE_RIGHT = 0.95  # of the questions, as in the tests of the model


def expect(condition: bool, otherwise: str) -> None:
    """Ends with the text unless the condition holds."""
    if not condition:
        raise SystemExit(f"smoke test FAILED: {otherwise}")


def check_environment() -> str:
    """The package comes from the environment, with its dependencies and none of the extras."""
    for name in ABSENT:
        expect(importlib.util.find_spec(name) is None, f"{name} is installed: not a bare environment")
    required = importlib.metadata.requires("executorch_mm") or []
    names = {line.split(">")[0].split(";")[0].strip() for line in required if "extra ==" not in line}
    expect(names == DEPENDENCIES, f"expected the requirements {DEPENDENCIES}, got {names}")
    import executorch_mm

    place = Path(str(executorch_mm.__file__))
    expect(not (place.parents[1] / "pyproject.toml").exists(), f"{place} is the source tree")
    return f"Python {sys.version.split()[0]}, {place.parent}"


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs this interpreter again, under the emulator where there is one."""
    command = [*EMULATOR, sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def check_versions() -> str:
    """The distribution, the package, the C++ side and the command line agree."""
    import executorch_mm

    info = executorch_mm.build_info()
    line = run_python("-m", "executorch_mm", "--version").stdout
    versions = {
        importlib.metadata.version("executorch_mm"),
        executorch_mm.__version__,
        info.version,
        line.split()[-1],
    }
    expect(len(versions) == 1, f"versions differ: {versions}")
    return (
        f"{versions.pop()} with ExecuTorch {info.executorch_version}, {info.compiler}, {info.instruction_set}"
    )


def check_operators(sdk: Path | None) -> str:
    """The copies in the wheel register as many operators as the SDK's libraries do by themselves."""
    import executorch_mm

    info = executorch_mm.build_info()
    expect("XnnpackBackend" in info.backends, f"XNNPACK is not among {info.backends}")
    count = info.num_sdk_operators
    told = f"{count} of ExecuTorch, {len(info.own_operators)} of our own, {', '.join(info.backends)}"
    if sdk is None:
        return told
    folder = Path(str(executorch_mm.__file__)).parent
    names = [path.name.replace("libemm_", "lib", 1) for path in folder.glob("libemm_*")]
    answer = run_python(str(Path(__file__).with_name("operators.py")), str(sdk), *names)
    expect(answer.returncode == 0, f"the SDK's libraries do not load: {answer.stderr}")
    expected = len(json.loads(answer.stdout))
    expect(count == expected, f"expected {expected} operators, got {count}")
    return f"{told}; as many as the SDK's libraries register"


def check_model(num_questions: int) -> str:
    """The model in the wheel sees: it answers questions about images that it has not been trained on."""
    from executorch_mm import GenerationConfig, MultimodalInput, MultimodalRunner
    from executorch_mm.demo import ask, make_scene, render
    from executorch_mm.utils import make_image_input

    rng = random.Random(8)
    num_right = 0
    config = GenerationConfig(max_new_tokens=40, temperature=0.0)
    with MultimodalRunner.demo() as runner:
        for seed in range(970_000_000, 970_000_000 + num_questions):
            scene = make_scene(seed)
            question = ask(scene, rng)
            runner.reset()
            image = make_image_input(render(scene))
            prompt: list[str | MultimodalInput] = [
                "<|user|>",
                image,
                f"{question.question}<|end|><|assistant|>",
            ]
            answer = "".join(runner.stream(prompt, config))
            num_right += answer.strip() == question.answer
        tokens = runner.stats.num_generated_tokens
    expect(num_right >= SHARE_RIGHT * num_questions, f"{num_right} of {num_questions} answers are right")
    return f"{num_right} of {num_questions} questions about images right, the last in {tokens} tokens"


def check_command_line() -> str:
    """The demonstration runs and ends well."""
    result = run_python("-W", "error", "-m", "executorch_mm", "demo")
    expect(
        result.returncode == 0 and not result.stderr, f"demo ended in {result.returncode}: {result.stderr}"
    )
    return f"demo printed {len(result.stdout.splitlines())} lines"


def main() -> None:
    """Runs all checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sdk", type=Path, help="compare the operators with this SDK's")
    parser.add_argument("--questions", type=int, default=20, help="how many the model is asked (20)")
    arguments = parser.parse_args()
    print("environment:", check_environment())
    print("versions:", check_versions())
    print("operators:", check_operators(arguments.sdk))
    print("model:", check_model(arguments.questions))
    print("command line:", check_command_line())
    expect("torch" not in sys.modules, "something imported torch")


if __name__ == "__main__":
    main()
