"""Text models that optimum-executorch wrote; Hugging Face's model before export says what is right."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from number_tokenizer import NumberTokenizer, answer

from executorch_mm import CapacityError, MultimodalRunner, make_token_input

FOLDER = Path(__file__).resolve().parents[2] / "models" / "optimum"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
ENTRIES = {entry["name"]: entry for entry in MANIFEST["models"]}
NAMES = [name for name, entry in ENTRIES.items() if entry["status"] == "works"]
ENDING_EARLY = [name for name in NAMES if ENTRIES[name]["expected"]["positions"] < 48]


def load(name: str) -> MultimodalRunner:
    return MultimodalRunner(FOLDER / ENTRIES[name]["file"], NumberTokenizer())


def test_the_manifest_describes_the_files_that_are_there() -> None:
    files = {path.name: path.read_bytes() for path in FOLDER.glob("*.pte")}
    hashes = {entry["file"]: entry["sha256"] for entry in ENTRIES.values() if entry["file"]}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in files.items()} == hashes
    assert all(entry["error"] for entry in ENTRIES.values() if not entry["file"])


@pytest.mark.parametrize("name", NAMES)
def test_three_turns_give_the_eager_models_tokens_again_after_reset(name: str) -> None:
    with load(name) as runner:
        for _ in range(2):
            for prompt, expected in ENTRIES[name]["expected"]["turns"]:
                assert answer(runner, prompt, len(expected)) == expected
            runner.reset()


@pytest.mark.parametrize("name", NAMES)
def test_a_long_prompt_gives_the_eager_models_tokens(name: str) -> None:
    prompt, expected = ENTRIES[name]["expected"]["long"]
    positions = ENTRIES[name]["expected"]["positions"]
    with load(name) as runner:
        # Some exports take all but one position in one call: nothing that can be answered is longer.
        assert len(prompt) > runner.contract.max_chunk or runner.contract.max_chunk == positions - 1
        assert answer(runner, prompt, len(expected)) == expected


@pytest.mark.parametrize(
    ("name", "style", "max_chunk"),
    [
        ("llama", "range", 47),
        ("llama_custom", "range", 47),
        ("llama_custom_bfloat16", "range", 47),
        ("llama_static", "start", 1),
        ("gemma3_window", "start", 1),
        ("gemma3_window_custom", "range", 7),
    ],
)
def test_shapes_and_end_token_are_read_from_the_program(name: str, style: str, max_chunk: int) -> None:
    with load(name) as runner:
        contract = runner.contract
        assert (contract.position_style, contract.max_chunk) == (style, max_chunk)
        assert contract.vocab_size == 64
        assert contract.eos_ids == [1]


@pytest.mark.parametrize("name", ENDING_EARLY)
def test_a_window_without_a_ring_is_the_models_capacity(name: str) -> None:
    expected = ENTRIES[name]["expected"]
    (prompt, made), *_ = expected["turns"]
    with load(name) as runner:
        assert runner.capacity == expected["positions"]
        with pytest.raises(CapacityError):
            runner.prefill(make_token_input([3] * (expected["positions"] + 1)))
        assert answer(runner, prompt, len(made)) == made
