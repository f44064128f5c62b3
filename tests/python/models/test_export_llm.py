"""Models that upstream's export_llm wrote, family by family; the model before export says what is right."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from number_tokenizer import NumberTokenizer, answer

from executorch_mm import MultimodalRunner

FOLDER = Path(__file__).resolve().parents[2] / "models" / "export_llm"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
ENTRIES = {entry["name"]: entry for entry in MANIFEST["models"]}
NAMES = [name for name, entry in ENTRIES.items() if entry["status"] == "works"]


def load(name: str) -> MultimodalRunner:
    entry = ENTRIES[name]
    data = [FOLDER / file for file in entry["data_files"]]
    return MultimodalRunner(FOLDER / entry["file"], NumberTokenizer(), data_path=data)


@pytest.mark.parametrize("name", NAMES)
def test_every_family_gives_the_eager_models_tokens_over_two_turns_and_again_after_reset(name: str) -> None:
    with load(name) as runner:
        for _ in range(2):
            for prompt, expected in ENTRIES[name]["expected"]["turns"]:
                assert answer(runner, prompt, len(expected)) == expected
            runner.reset()


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_longer_than_one_call_gives_the_eager_models_tokens(name: str) -> None:
    prompt, expected = ENTRIES[name]["expected"]["long"]
    with load(name) as runner:
        assert len(prompt) > runner.contract.max_chunk or "one call takes" in ENTRIES[name]["notes"]
        assert answer(runner, prompt, len(expected)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_long_prompt_after_another_conversation_gives_the_same_tokens(name: str) -> None:
    turn, (prompt, expected) = ENTRIES[name]["expected"]["turns"][0][0], ENTRIES[name]["expected"]["long"]
    with load(name) as runner:
        answer(runner, turn, 3)
        runner.reset()
        assert answer(runner, prompt, len(expected)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_rings_and_recurrences_are_recognised(name: str) -> None:
    # The rings hold two windows, the attention sink's also 4 positions that stay.
    rings = {"llama_attention_sink": 20, "gemma3": 32, "gemma3_narrow": 16, "gemma3_sdpa": 16}
    with load(name) as runner:
        assert runner.contract.ring_rows == rings.get(name, 0)
        assert runner.contract.is_recurrent == (ENTRIES[name]["family"] in {"LFM2", "Qwen3.5"})


def test_the_manifest_describes_the_files_beside_it() -> None:
    described = {"manifest.json"}
    for entry in ENTRIES.values():
        if entry["status"] == "exporter_fails":
            assert not entry["file"]
            assert entry["error"]
            continue
        content = (FOLDER / entry["file"]).read_bytes()
        assert len(content) == entry["bytes"] <= 1_000_000
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        data = [(FOLDER / name).read_bytes() for name in entry["data_files"]]
        assert [hashlib.sha256(content).hexdigest() for content in data] == entry["data_sha256"]
        described |= {entry["file"], *entry["data_files"]}
    assert {path.name for path in FOLDER.iterdir()} == described


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "Phi", "Gemma3", "LFM2", "Qwen3.5"])
def test_every_family_is_there(family: str) -> None:
    assert any(ENTRIES[name]["family"] == family for name in NAMES)
