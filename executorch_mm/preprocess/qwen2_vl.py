"""Qwen2-VL and its successors: a size near the image's own, cut into patches; also frames of a video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from executorch_mm._files.config_reader import ConfigReader, Family, Json
from executorch_mm.errors import InputError
from executorch_mm.preprocess.image_size import check_prepared
from executorch_mm.preprocess.resample import resize
from executorch_mm.preprocess.rgb_images import UInt8Array
from executorch_mm.preprocess.steps import (
    COMMON_DEFAULTS,
    COMMON_KEYS,
    FloatArray,
    Normalize,
    PreparedImage,
)

KEYS = COMMON_KEYS | {"min_pixels", "max_pixels", "patch_size", "temporal_patch_size", "merge_size"}
# Choosing frames and reading their times is the caller's part; frames come as they are to be used.
VIDEO_KEYS = KEYS | {"fps", "num_frames", "min_frames", "max_frames", "max_video_tokens", "do_sample_frames"}

QWEN2_VL: Json = {
    **COMMON_DEFAULTS,
    "default_to_square": False,
    "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
}
QWEN2_VL_VIDEO: Json = {**QWEN2_VL, "size": {"shortest_edge": 128 * 28 * 28, "longest_edge": 28 * 28 * 768}}

_MAX_ASPECT_RATIO = 200


@dataclass(frozen=True)
class Patches:
    """Images or frames as rows of patches.

    Attributes:
        pixels: Fewest and most pixels of a resized image, or None to leave the size as it is.
        patch: Edge of a patch, in pixels.
        frames: Frames in a patch; an image is repeated.
        merge: Edge of the squares of patches that follow each other and become one token.
        resample: Pillow's number of the filter.
        normalize: Bytes to values.
    """

    pixels: tuple[int, int] | None
    patch: int
    frames: int
    merge: int
    resample: int
    normalize: Normalize

    @classmethod
    def read(cls, reader: ConfigReader) -> Patches:
        """The steps of a file; min_pixels and max_pixels are the old names of the size's entries."""
        lengths = reader.lengths("size") or {}
        names = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}
        if not set(lengths) <= {*names, *names.values()}:
            raise reader.wrong("size", "{shortest_edge, longest_edge}, numbers of pixels in an image")
        limits = []
        for new, old in names.items():
            if reader.get(old) is not None:
                limits.append(reader.length(old))
            elif new in lengths or old in lengths:
                limits.append(lengths.get(new, lengths.get(old, 0)))
            else:
                raise reader.wrong("size", f"{new} as well")
        return cls(
            (limits[0], limits[1]) if reader.flag("do_resize") else None,
            reader.length("patch_size"),
            reader.length("temporal_patch_size"),
            reader.length("merge_size"),
            reader.resample(),
            Normalize.read(reader),
        )

    def prepare(self, pixels: UInt8Array) -> PreparedImage:
        """Prepares an image; rows of patches in the order in which they are merged."""
        return self.prepare_frames([pixels])

    def prepare_frames(self, images: Sequence[UInt8Array]) -> PreparedImage:
        """Prepares the frames of a video, of one size; the last one fills the last patch up."""
        size = images[0].shape[:2]
        height, width = self._resized(*size)
        missing = -len(images) % self.frames
        check_prepared(1 + missing, height, width)
        values = self.normalize(*[resize(pixels, height, width, self.resample) for pixels in images])
        values = np.concatenate([values, np.repeat(values[-1:], missing, axis=0)]) if missing else values
        return self._cut(values, size)

    def _cut(self, values: FloatArray, size: tuple[int, int]) -> PreparedImage:
        frames, channels, height, width = values.shape
        grid = (frames // self.frames, height // self.patch, width // self.patch)
        rows, columns = grid[1] // self.merge, grid[2] // self.merge
        square = (self.merge, self.patch)
        parts = values.reshape(grid[0], self.frames, channels, rows, *square, columns, *square)
        # time, square's row and column, patch's row and column in it, channel, frame, pixel's row and column
        ordered = parts.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)
        return PreparedImage(ordered.reshape(math.prod(grid), -1), size, grid)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        step = self.patch * self.merge
        if self.pixels is not None:
            return smart_size(height, width, step, *self.pixels)
        if height % step or width % step:
            raise InputError(f"image: expected edges that {step} divides, got {width} x {height}")
        return height, width


def smart_size(height: int, width: int, step: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The size nearest to an image's own whose edges are multiples of a step, within limits.

    Returns:
        (height, width).

    Raises:
        InputError: One edge is more than 200 times the other.
    """
    if max(height, width) > _MAX_ASPECT_RATIO * min(height, width):
        raise InputError(
            f"image: expected edges of a ratio of at most {_MAX_ASPECT_RATIO}, got {width} x {height}"
        )
    rows, columns = round(height / step), round(width / step)
    if rows * columns * step * step > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(1, math.floor(height / shrink / step))
        columns = max(1, math.floor(width / shrink / step))
    elif rows * columns * step * step < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows, columns = math.ceil(height * grow / step), math.ceil(width * grow / step)
    return rows * step, columns * step


VIDEO_FAMILIES = {"Qwen2VLVideoProcessor": Family(Patches.read, QWEN2_VL_VIDEO, VIDEO_KEYS)}
