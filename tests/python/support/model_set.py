"""A folder of exported models and what its manifest says of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from executorch_mm import MultimodalRunner
from number_tokenizer import NumberTokenizer

Answer = Callable[[MultimodalRunner, Any, int], list[int]]
MODELS = Path(__file__).resolve().parents[2] / "models"
# By name: flat caches (with short chunks, without any, quantised), rings, a sliding window, recurrences.
CACHE_KINDS = [
    "llama_short_chunks",
    "llama_no_kv_cache",
    "llama_quantized_kv_cache",
    "gemma3_narrow",
    "llama_attention_sink",
    "lfm2",
    "qwen3_5",
]


class ModelSet:
    """The models of one exporter.

    Attributes:
        entries: What the manifest says, by name.
        names: Of the models that work.
    """

    def __init__(self, folder: str) -> None:
        self._folder = MODELS / folder
        manifest = json.loads((self._folder / "manifest.json").read_text())
        self.entries: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in manifest["models"]}
        self.names = [name for name, entry in self.entries.items() if entry["status"] == "works"]

    def expected(self, name: str) -> dict[str, Any]:
        """Prompts and the eager model's answers."""
        expected: dict[str, Any] = self.entries[name]["expected"]
        return expected

    def load(self, name: str) -> MultimodalRunner:
        entry = self.entries[name]
        data = [self._folder / file for file in entry["data_files"]]
        return MultimodalRunner(self._folder / entry["file"], NumberTokenizer(), data_path=data)

    def expect_turns_twice(
        self, name: str, answer: Callable[[MultimodalRunner, Any, int], list[int]]
    ) -> None:
        """Every turn is answered as by the eager model, and again after a reset."""
        with self.load(name) as runner:
            for _ in range(2):
                for prompt, expected in self.expected(name)["turns"]:
                    assert answer(runner, prompt, len(expected)) == expected
                runner.reset()

    def expect_described(self) -> None:
        """The manifest describes the files that are there, and no others."""
        described = {"manifest.json": ""}
        for entry in self.entries.values():
            if entry["status"] == "exporter_fails":
                assert not entry["file"]
                assert entry["error"]
                continue
            described[entry["file"]] = entry["sha256"]
            described |= dict(zip(entry["data_files"], entry.get("data_sha256", ()), strict=True))
        files = {path.name: path.read_bytes() for path in self._folder.iterdir()}
        assert files.keys() == described.keys()
        assert max(map(len, files.values())) <= 1_000_000
        for name, digest in described.items():
            assert not digest or hashlib.sha256(files[name]).hexdigest() == digest
