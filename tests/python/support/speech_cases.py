"""The tiny speech models and their clips, for the tests of speech."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).resolve().parents[2] / "models" / "speech"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
RATE = 16000
KINDS = [model["name"] for model in MANIFEST["models"]]
EXPECTED = {model["name"]: model["expected"] for model in MANIFEST["models"]}


@functools.cache
def clip(name: str) -> npt.NDArray[np.float32]:
    """The samples of one of the manifest's clips."""
    made = EXPECTED[KINDS[0]]["clips"][name]
    t = np.arange(int(made["seconds"] * RATE)) / RATE
    parts = [0.3 * np.sin(2 * np.pi * hertz * t) * ((t >= a) & (t < b)) for hertz, a, b in made["tones"]]
    return np.sum(parts, axis=0).astype(np.float32)
