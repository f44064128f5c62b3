"""Decoders whose tokens mean nothing, with a state of each kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from executorch_mm import ExecutorchMMError, MultimodalRunner
from number_tokenizer import NumberTokenizer

MODELS = Path(__file__).resolve().parents[2] / "models"
KINDS = ("text", "export_llm", "optimum")
# Every decoder with a state of its own: caches of all kinds, rings, recurrences.
STATEFUL = [
    path
    for kind in KINDS
    for path in sorted((MODELS / kind).glob("*.pte"))
    if path.stem != "gemma3_window"  # ends after eight positions, before these conversations do
]


def load_stateful(path: Path) -> MultimodalRunner:
    """One of `STATEFUL`; skips the test where it is no model for the runner."""
    manifest = path.parent / "manifest.json"
    entries = json.loads(manifest.read_text())["models"] if manifest.exists() else []
    files = [name for entry in entries if entry.get("file") == path.name for name in entry["data_files"]]
    try:
        return MultimodalRunner(path, NumberTokenizer(), data_path=[path.parent / name for name in files])
    except ExecutorchMMError as error:
        pytest.skip(f"not a model for this runner: {error}")
