"""SmolLM2-135M-Instruct in every variant that tools/smollm2 makes: its answers, and upstream's to compare."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from executorch_mm import MultimodalRunner

ROOT = Path(__file__).resolve().parents[3]
RECORDS = ROOT / "tests" / "models" / "smollm2"
VARIANTS = ("8da4w", "fp32", "kv8", "optimum", "plain")
QUESTION = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"

pytestmark = [pytest.mark.real_model, pytest.mark.parametrize("variant", VARIANTS)]


@pytest.fixture
def folder(real_models: Path, variant: str) -> Path:
    path = real_models / f"smollm2-135m-instruct-{variant}"
    if not (path / "model.pte").is_file():
        pytest.skip(f"{path} does not exist; `python tools/smollm2/make.py {variant} --out FOLDER` makes it")
    return path


def test_it_knows_the_capital_of_france_without_torch(folder: Path) -> None:
    program = (
        "import sys; from executorch_mm import *; folder, question = sys.argv[1:]\n"
        "with MultimodalRunner(folder + '/model.pte', folder) as runner:\n"
        "    print(runner.generate_text(question, GenerationConfig(max_new_tokens=32)))\n"
        "assert 'torch' not in sys.modules"
    )
    command = [sys.executable, "-c", program, str(folder), QUESTION]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "Paris" in done.stdout


@pytest.mark.slow
def test_every_choice_is_upstreams_or_a_tie(
    folder: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream's answers and ties are recorded; tools/smollm2/record.py says what counts as a tie."""
    monkeypatch.syspath_prepend(ROOT / "tools" / "smollm2")
    from replay import differences

    record = json.loads((RECORDS / f"{variant}.json").read_text(encoding="utf-8"))
    if hashlib.sha256((folder / "model.pte").read_bytes()).hexdigest() != record["model_sha256"]:
        pytest.skip(f"{folder} is not the file of the record; tools/smollm2/compare.py makes another one")
    with MultimodalRunner(folder / "model.pte", folder, num_threads=1) as runner:
        found = [differences(runner, answer) for answer in record["answers"]]
    assert [step for steps in found for step in steps if step["gap"] is None] == []
    # As often as upstream differs from itself when it adds in another order, within a factor of two.
    own_flips = sum(len(answer["own_flips"]) for answer in record["answers"])
    assert sum(map(len, found)) <= 2 * own_flips + 2
