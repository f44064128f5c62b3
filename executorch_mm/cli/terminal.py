"""Images in a terminal: two pixels a character, 24-bit colour."""

from __future__ import annotations

import os
from itertools import zip_longest
from typing import TYPE_CHECKING, TextIO

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

UPPER_HALF = "\u2580"
_RESET = "\x1b[0m"
_MAX_COLUMNS = 48
_GAP = 2


def shows_colour(stream: TextIO, *, wanted: bool = True) -> bool:
    """Whether `stream` is a terminal that can be expected to show 24-bit colour and half blocks.

    Args:
        stream: Where the text goes.
        wanted: False for --no-color. The NO_COLOR environment variable has the same effect.
    """
    if not wanted or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("", "dumb"):
        return False
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
    return stream.isatty() and encoding == "utf8"


def half_blocks(image: Image.Image, columns: int) -> list[str]:
    """An image as lines of half blocks: foreground for the upper pixel, background for the lower one.

    Args:
        image: Any PIL image.
        columns: Width in characters; the height follows, two pixels a line, at most twice the width in
            pixels.

    Returns:
        Lines that take `columns` characters each on the terminal, colours reset at their ends.
    """
    from PIL import Image

    from executorch_mm.preprocess import image_to_hwc_uint8

    upright = Image.fromarray(image_to_hwc_uint8(image))
    rows = max(2, min(2 * columns, round(columns * upright.height / upright.width)))
    rows += rows % 2
    pixels = np.asarray(upright.resize((columns, rows)))
    lines = []
    for upper, lower in zip(pixels[0::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = [
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m{UPPER_HALF}"
            for a, b in zip(upper, lower, strict=True)
        ]
        lines.append("".join(cells) + _RESET)
    return lines


def side_by_side(images: list[Image.Image], terminal_columns: int) -> str:
    """Images next to each other, as large as fits and is sensible.

    Args:
        images: One or more PIL images.
        terminal_columns: Width of the terminal in characters.
    """
    room = (terminal_columns - _GAP * (len(images) - 1)) // len(images)
    columns = int(np.clip(room, 8, _MAX_COLUMNS))
    blocks = [half_blocks(image, columns) for image in images]
    rows = zip_longest(*blocks, fillvalue=" " * columns)
    return "\n".join((" " * _GAP).join(row) for row in rows)
