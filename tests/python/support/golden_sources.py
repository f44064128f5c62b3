"""The images and audio of the golden preprocessing tests and of the script that makes their fixtures."""

from __future__ import annotations

import numpy as np
from PIL import Image

RATE = 16000


def pixels(height: int, width: int, channels: int) -> np.ndarray:
    """Slopes with a fine pattern on top, so that every pixel differs from its neighbours."""
    y, x, c = np.ogrid[:height, :width, :channels]
    slope = (y * 255 // max(1, height - 1) + x * 255 // max(1, width - 1)) // 2
    pattern = (y * 7919 + x * 104729 + c * 1299709) * 2654435761 >> 7
    return ((slope * 3 + pattern % 256 + 40 * c) // 4 % 256).astype(np.uint8)


def golden_image(mode: str, height: int, width: int) -> Image.Image:
    """An image of one of Pillow's modes; "P+" is a palette with a transparent colour."""
    if mode == "I;16":
        deep = pixels(height, width, 2).astype(np.uint16)
        return Image.fromarray(deep[..., 0] * 256 + deep[..., 1])
    if mode == "L":
        return Image.fromarray(pixels(height, width, 1)[..., 0])
    if mode in ("P", "P+"):
        image = Image.frombytes("P", (width, height), pixels(height, width, 1).tobytes())
        image.putpalette(bytes(pixels(16, 16, 3)))
        if mode == "P+":
            image.info["transparency"] = 100
        return image
    bands = {"RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 4}[mode]
    return Image.frombytes(mode, (width, height), pixels(height, width, bands).tobytes())


def golden_audio(name: str) -> np.ndarray:
    """Mono float32 samples at 16 kHz."""
    kind, _, seconds = name.partition(" ")
    time = np.arange(round(float(seconds) * RATE)) / RATE
    if kind == "silence":
        return np.zeros(len(time), np.float32)
    if kind == "click":
        return (time == time[len(time) // 3]).astype(np.float32)
    if kind == "noise":
        bits = (np.arange(len(time), dtype=np.uint64) * 2654435761 + 12345) ** 2 >> 11 & 0xFFFF
        return (bits.astype(np.float32) / 32768 - 1) * np.float32(0.3)
    sweep = np.sin(2 * np.pi * (200 + 150 * time) * time) + 0.3 * np.sin(2 * np.pi * 3000 * time)
    return (0.4 * sweep * np.exp(-time / 20)).astype(np.float32)


def sampled_positions(size: int, count: int = 192) -> np.ndarray:
    """Flat positions all over an array: all of a small one."""
    return np.unique(np.arange(min(size, count), dtype=np.int64) * 2654435761 % size)
