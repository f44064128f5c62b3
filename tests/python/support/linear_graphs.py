"""Linear layers alone, as tools/fixtures/linear makes them."""

from __future__ import annotations

from pathlib import Path

from model_set import MODELS

FOLDER = MODELS / "linear"
INPUTS = {
    "int4_groups_of_32": 160,
    "int4_groups_of_64": 192,
    "int4_groups_of_128": 256,
    "int8": 100,
    "float32": 67,
    "float32_relu": 67,
}


def damaged(offset: int, folder: Path) -> Path:
    """A copy in which one byte is another: where it lies follows from `offset`, of 0 to 1,407."""
    data = bytearray((FOLDER / "int4_groups_of_32.pte").read_bytes())
    at = len(data) - 1408 + offset if offset % 2 else 1408 + 3 * offset % (len(data) - 1408)
    data[at] ^= 0xFF
    path = folder / "damaged.pte"
    path.write_bytes(data)
    return path
