"""The steps that image processors are made of, as the Hugging Face ones do them, in Pillow and numpy."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from executorch_mm._files.config_reader import ConfigReader, Json, Triple
from executorch_mm.errors import InputError
from executorch_mm.preprocess.limits import check_limit
from executorch_mm.preprocess.resample import BICUBIC, check_size, resize
from executorch_mm.preprocess.rgb_images import UInt8Array

FloatArray = npt.NDArray[np.float32]

HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# What most classes mean by a missing key.
COMMON_DEFAULTS: Json = {
    "default_to_square": True,
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "resample": BICUBIC,
    "image_mean": CLIP_MEAN,
    "image_std": CLIP_STD,
}
COMMON_KEYS = frozenset(
    """do_resize size resample do_rescale rescale_factor do_normalize image_mean image_std
    default_to_square""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class PreparedImage:
    """An image as the image encoder takes it.

    Attributes:
        pixel_values: float32, C-contiguous: (3, height, width); (tiles, 3, height, width) from a processor
            that cuts images into tiles; (patches, values) from one that cuts them into patches.
        original_size: (height, width) before preparation, in pixels.
        grid: (rows, columns) of the tiles, without the small copy of the whole image; (0, 0) for an image
            that is not cut. (frames, rows, columns) of the patches. Empty from a processor that cuts nothing.
        positions: int64 (patches, 2), column and row of each patch, from a processor whose encoder is told
            them; else None.
    """

    pixel_values: FloatArray
    original_size: tuple[int, int]
    grid: tuple[int, ...] = ()
    positions: npt.NDArray[np.int64] | None = None


class ImageSteps(Protocol):
    """What a family of image processors does to one image."""

    def prepare(self, pixels: UInt8Array) -> PreparedImage:
        """Prepares an image, RGB (height, width, 3), C-contiguous."""
        ...


@dataclass(frozen=True)
class EdgeLimits:
    """Resizing that keeps the aspect ratio: the shorter edge to a length, or the longer one if too long."""

    shortest: int
    longest: int


@dataclass(frozen=True)
class Within:
    """Resizing that keeps the aspect ratio: as large as fits."""

    height: int
    width: int


# (height, width); the length of the shorter edge; or limits.
Resize: TypeAlias = "tuple[int, int] | int | EdgeLimits | Within"


def read_resize(reader: ConfigReader) -> Resize:
    """The "size" of a class without rules of its own.

    Raises:
        InputError: It has another set of keys.
    """
    lengths = reader.lengths("size") or {}
    names = set(lengths)
    if names == {"height", "width"}:
        return lengths["height"], lengths["width"]
    if names == {"shortest_edge"}:
        return lengths["shortest_edge"]
    if names == {"shortest_edge", "longest_edge"}:
        return EdgeLimits(lengths["shortest_edge"], lengths["longest_edge"])
    if names == {"max_height", "max_width"}:
        return Within(lengths["max_height"], lengths["max_width"])
    raise reader.wrong(
        "size", "{height, width}, {shortest_edge}, {shortest_edge, longest_edge} or {max_height, max_width}"
    )


def resized_size(size: tuple[int, int], target: Resize) -> tuple[int, int]:
    """Size after the resize step.

    Args:
        size: (height, width) now.
        target: What to resize to.

    Returns:
        (height, width).
    """
    height, width = size
    if isinstance(target, tuple):
        return target
    if isinstance(target, Within):
        scale = min(target.height / height, target.width / width)
        return max(1, int(height * scale)), max(1, int(width * scale))
    short, long = min(size), max(size)
    edge: float = target if isinstance(target, int) else target.shortest
    if isinstance(target, EdgeLimits) and float(long) / float(short) * edge > target.longest:
        edge = target.longest * float(short) / float(long)
    new_short, new_long = max(1, round(edge)), max(1, int(edge * long / short))
    return (new_long, new_short) if width <= height else (new_short, new_long)


def resize_and_crop(
    pixels: UInt8Array, height: int, width: int, resample: int, crop: tuple[int, int]
) -> UInt8Array:
    """Resizes and takes the middle; of an image whose edges are 1 and 4000 the whole would be huge.

    Returns:
        uint8 (crop height, crop width, 3), with black around an image that is smaller.
    """
    part = min(height, crop[0]), min(width, crop[1])
    return centre_crop(resize(pixels, height, width, resample, part), *crop)


def centre_crop(pixels: UInt8Array, height: int, width: int) -> UInt8Array:
    """The middle of an image, with black around it where the image is too small.

    Args:
        pixels: (H, W, C).
        height: Rows of the result.
        width: Columns of the result.

    Returns:
        (height, width, C). With an odd difference the extra row or column is lost at the bottom or right, and
        padding has one more at the top or left.
    """
    pad_y = max(0, height - pixels.shape[0])
    pad_x = max(0, width - pixels.shape[1])
    if pad_y or pad_x:
        before_y, before_x = (pad_y + 1) // 2, (pad_x + 1) // 2
        pixels = np.pad(pixels, ((before_y, pad_y - before_y), (before_x, pad_x - before_x), (0, 0)))
    top = (pixels.shape[0] - height) // 2
    left = (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def paste_centred(pixels: UInt8Array, height: int, width: int, colour: tuple[int, int, int]) -> UInt8Array:
    """A larger image of one colour with the image in its middle.

    Raises:
        InputError: The result would be larger than `MediaLimits` allows.
    """
    check_size(pixels, height, width)
    canvas = np.empty((height, width, 3), np.uint8)
    canvas[:] = colour
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def cut(pixels: UInt8Array, height: int, width: int) -> list[UInt8Array]:
    """Tiles of an image, row by row; those at the right and bottom may be smaller.

    Raises:
        InputError: They are more than `MediaLimits` allows.
    """
    count = math.ceil(pixels.shape[0] / height) * math.ceil(pixels.shape[1] / width)
    check_limit("image", "image_tiles", count, "tiles")
    return [
        pixels[top : top + height, left : left + width]
        for top in range(0, pixels.shape[0], height)
        for left in range(0, pixels.shape[1], width)
    ]


def stacked(values: Sequence[FloatArray]) -> FloatArray:
    """Tiles as one array.

    Raises:
        InputError: They differ in size, since the file neither resizes nor crops them to one.
    """
    shapes = {part.shape for part in values}
    if len(shapes) > 1:
        raise InputError(f"image: tiles neither resized nor cropped to one size: got {sorted(shapes)}")
    return np.stack(values)


@dataclass(frozen=True)
class Normalize:
    """What the last steps make of bytes: rescale, normalize, channels first.

    Attributes:
        rescale_factor: Multiplied with the bytes 0..255; None leaves the step out.
        mean_std: Mean and standard deviation of each of the three channels, after rescaling; None leaves the
            step out.
        is_bgr: Whether blue comes first.
    """

    rescale_factor: float | None = 1 / 255
    mean_std: tuple[Triple, Triple] | None = None
    is_bgr: bool = False

    @classmethod
    def read(cls, reader: ConfigReader) -> Normalize:
        """The steps of a file."""
        is_normalized = reader.flag("do_normalize")
        return cls(
            reader.number("rescale_factor") if reader.flag("do_rescale") else None,
            (reader.triple("image_mean"), reader.triple("image_std")) if is_normalized else None,
            reader.flag("do_flip_channel_order"),
        )

    @functools.cached_property
    def scale_and_offset(self) -> tuple[FloatArray, FloatArray]:
        """All steps in one: what a byte is multiplied with and what is added, float32 (3, 1, 1) each."""
        scale = np.full(3, 1.0 if self.rescale_factor is None else self.rescale_factor)
        offset = np.zeros(3)
        if self.mean_std is not None:
            mean, std = np.array(self.mean_std)
            scale, offset = scale / std, -mean / std
        return scale.astype(np.float32).reshape(3, 1, 1), offset.astype(np.float32).reshape(3, 1, 1)

    def __call__(self, *images: UInt8Array) -> FloatArray:
        """Normalizes images of one size.

        Args:
            images: Each uint8 (height, width, 3).

        Returns:
            float32 (images, 3, height, width), C-contiguous.
        """
        scale, offset = self.scale_and_offset
        values = np.empty((len(images), 3, *images[0].shape[:2]), np.float32)
        for pixels, planes in zip(images, values, strict=True):
            planes[:] = (pixels[:, :, ::-1] if self.is_bgr else pixels).transpose(2, 0, 1)
            planes *= scale
            planes += offset
        return values
