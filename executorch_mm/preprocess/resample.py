"""Resizing with Pillow's filters: its weights, summed by the core in less time.

The columns are resized first, as by Pillow up to 12; 13 takes the rows first where that is less work. The
order can make a difference of one step of 255.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from executorch_mm import _core
from executorch_mm.preprocess.image_size import check_edges
from executorch_mm.preprocess.limits import check_limit
from executorch_mm.preprocess.rgb_images import UInt8Array

Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]

NEAREST, LANCZOS, BILINEAR, BICUBIC, BOX, HAMMING = range(6)  # Pillow's numbers


def resize(
    pixels: UInt8Array, height: int, width: int, resample: int, crop: tuple[int, int] | None = None
) -> UInt8Array:
    """Resizes an image, or the middle of it as it would be after resizing.

    Args:
        pixels: (H, W, 3), C-contiguous.
        height: Rows of the whole result.
        width: Columns of the whole result.
        resample: Pillow's number of the filter.
        crop: (height, width) of the part to make; at most the whole. Only it costs time and memory.

    Returns:
        uint8 (height, width, 3), or of the crop's size.

    Raises:
        InputError: The image, or the result, is larger than `MediaLimits` allows.
    """
    rows, columns = crop or (height, width)
    check_edges("image", (pixels.shape[1], pixels.shape[0]))
    check_size(pixels, rows, columns)
    parts = (height - rows) // 2, rows, (width - columns) // 2, columns
    if resample == NEAREST:
        y = _nearest(pixels.shape[0], height)[parts[0] : parts[0] + rows]
        x = _nearest(pixels.shape[1], width)[parts[2] : parts[2] + columns]
        return np.ascontiguousarray(pixels[y][:, x])
    out = np.empty((rows, columns, 3), np.uint8)
    row_weights = _weights(pixels.shape[0], height, resample, *parts[:2])
    column_weights = _weights(pixels.shape[1], width, resample, *parts[2:])
    first_rows, taps = row_weights[0], row_weights[1].shape[1]
    check_size(pixels, int(np.max(first_rows) - np.min(first_rows)) + taps, columns)  # between the two passes
    _core.resample(pixels, *column_weights, *row_weights, out)
    return out


def check_size(pixels: UInt8Array, height: int, width: int) -> None:
    """Raises InputError if an image of this size, made of another, would be larger than allowed."""
    check_edges("image", (width, height), f", made of {pixels.shape[1]} x {pixels.shape[0]}")


def _nearest(old: int, new: int) -> npt.NDArray[np.intp]:
    # As in Pillow, what is summed up from the first pixel on.
    check_limit("image", "image_pixels", new, "pixels along an edge")
    steps = np.full(new, old / new)
    steps[0] /= 2
    return np.add.accumulate(steps).astype(np.intp)


@functools.lru_cache(maxsize=64)
def _weights(old: int, new: int, resample: int, start: int, size: int) -> tuple[Int32Array, Int32Array]:
    """What the elements of a resized axis are made of.

    Args:
        old: Length of the axis.
        new: Its length after resizing.
        resample: Pillow's number of the filter.
        start: The first element of the part that is made.
        size: Number of elements that are made.

    Returns:
        int32 (size,), the first neighbour of each; int32 (size, taps), fixed-point weights.
    """
    if old == new:
        first = np.arange(start, start + size, dtype=np.int32)
        return first, np.full((size, 1), 1 << _core.RESAMPLE_BITS, np.int32)
    support, curve = _FILTERS[resample]
    scale = old / new
    stretch = max(scale, 1.0)
    centres = (np.arange(start, start + size) + 0.5) * scale
    first = np.maximum(0, (centres - support * stretch + 0.5).astype(np.int64))[:, np.newaxis]
    end = np.minimum(old, (centres + support * stretch + 0.5).astype(np.int64))[:, np.newaxis]
    taps = int(np.max(end - first))
    # At the far edge the neighbours start earlier, with weights of 0, to stay inside.
    inside = np.minimum(first, old - taps)
    positions = inside + np.arange(taps)
    values = curve((positions - centres[:, np.newaxis] + 0.5) / stretch)
    values[(positions < first) | (positions >= end)] = 0
    values /= values.sum(axis=1, keepdims=True)
    fixed = np.trunc(values * (1 << _core.RESAMPLE_BITS) + np.copysign(0.5, values))
    return inside[:, 0].astype(np.int32), fixed.astype(np.int32)


def _box(x: Float64Array) -> Float64Array:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _triangle(x: Float64Array) -> Float64Array:
    return np.where(np.abs(x) < 1, 1 - np.abs(x), 0)


def _hamming(x: Float64Array) -> Float64Array:
    # Pillow's constants are single precision.
    window = float(np.float32(0.54)) + float(np.float32(0.46)) * np.cos(np.pi * x)
    return np.where(np.abs(x) < 1, np.sinc(x) * window, 0)


def _cubic(x: Float64Array) -> Float64Array:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((x - 5) * x + 8) * x - 4
    return np.where(x < 1, near, np.where(x < 2, -0.5 * far, 0))


def _lanczos(x: Float64Array) -> Float64Array:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


# How far each filter reaches, and its curve.
_FILTERS: dict[int, tuple[float, Callable[[Float64Array], Float64Array]]] = {
    LANCZOS: (3.0, _lanczos),
    BILINEAR: (1.0, _triangle),
    BICUBIC: (2.0, _cubic),
    BOX: (0.5, _box),
    HAMMING: (1.0, _hamming),
}
