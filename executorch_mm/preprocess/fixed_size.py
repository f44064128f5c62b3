"""Image processors whose result is one image of one size: CLIP, LLaVA, ViT, SigLIP, Gemma 3, MobileViT."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from executorch_mm._files.config_reader import ConfigReader, Json
from executorch_mm.preprocess.image_size import check_prepared
from executorch_mm.preprocess.resample import BICUBIC, BILINEAR, resize
from executorch_mm.preprocess.rgb_images import UInt8Array
from executorch_mm.preprocess.steps import (
    COMMON_DEFAULTS,
    COMMON_KEYS,
    HALF,
    FloatArray,
    Normalize,
    PreparedImage,
    Resize,
    cut,
    paste_centred,
    read_resize,
    resize_and_crop,
    resized_size,
    stacked,
)

KEYS = COMMON_KEYS | {"do_center_crop", "crop_size", "do_pad", "pad_size", "do_flip_channel_order"}
GEMMA3_KEYS = COMMON_KEYS | frozenset(
    """do_pan_and_scan pan_and_scan_min_crop_size pan_and_scan_max_num_crops
    pan_and_scan_min_ratio_to_activate""".split()  # noqa: SIM905
)

_CROPPED: Json = {**COMMON_DEFAULTS, "default_to_square": False, "size": 224, "do_center_crop": True}
CLIP: Json = {**_CROPPED, "crop_size": 224}
LLAVA: Json = {**CLIP, "pad_square": True}
VIT: Json = {
    **COMMON_DEFAULTS, "size": 224, "resample": BILINEAR, "image_mean": HALF, "image_std": HALF,
}  # fmt: skip
# Files say null; the numbers are the Gemma 3 processor's.
GEMMA3: Json = {
    **VIT,
    "pan_and_scan_min_crop_size": 256,
    "pan_and_scan_max_num_crops": 4,
    "pan_and_scan_min_ratio_to_activate": 1.2,
}
SIGLIP: Json = {**VIT, "resample": BICUBIC}
MOBILE_VIT: Json = {
    **_CROPPED, "crop_size": 256, "resample": BILINEAR, "do_normalize": False, "do_flip_channel_order": True,
}  # fmt: skip


@dataclass(frozen=True)
class ImageConfig:
    """The steps of a fixed-size image processor, in this order; None leaves a step out.

    Attributes:
        square_colour: Colour of the padding that makes an image square.
        resize: (height, width), the length of the shorter edge, or limits, in pixels.
        resample: Pillow's number of the filter for `resize` (0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic,
            ...).
        crop: (height, width) of the centre crop, in pixels.
        normalize: Bytes to values.
        pad: (height, width) that a smaller result is filled up to with zeros, at the bottom and right.
    """

    square_colour: tuple[int, int, int] | None = None
    resize: Resize | None = None
    resample: int = BICUBIC
    crop: tuple[int, int] | None = None
    normalize: Normalize = field(default_factory=Normalize)
    pad: tuple[int, int] | None = None

    @classmethod
    def read(cls, reader: ConfigReader) -> ImageConfig:
        """The steps of a file."""
        normalize = Normalize.read(reader)
        square, pad = None, None
        if reader.flag("do_pad"):
            if reader.flag("pad_square"):
                means = normalize.mean_std[0] if normalize.mean_std else (0.0, 0.0, 0.0)
                red, green, blue = (min(max(0, int(mean * 255)), 255) for mean in means)
                square = (red, green, blue)
            elif reader.get("pad_size") is not None:  # else up to the largest image of a batch
                pad = reader.height_width("pad_size")
        return cls(
            square,
            read_resize(reader) if reader.flag("do_resize") else None,
            reader.resample(),
            reader.height_width("crop_size") if reader.flag("do_center_crop") else None,
            normalize,
            pad,
        )

    def prepare(self, pixels: UInt8Array) -> PreparedImage:
        """Prepares an image; the result is one, (3, height, width)."""
        original_size = pixels.shape[:2]
        if self.square_colour is not None and original_size[0] != original_size[1]:
            edge = max(original_size)
            pixels = paste_centred(pixels, edge, edge, self.square_colour)
        height, width = resized_size(pixels.shape[:2], self.resize or pixels.shape[:2])
        result, least = self.crop or (height, width), self.pad or (0, 0)
        check_prepared(1, max(result[0], least[0]), max(result[1], least[1]))
        if self.crop is not None:
            pixels = resize_and_crop(pixels, height, width, self.resample, self.crop)
        elif self.resize is not None:
            pixels = resize(pixels, height, width, self.resample)
        values = self.normalize(pixels)[0]
        if self.pad is not None:
            missing = [max(0, wanted - now) for wanted, now in zip(self.pad, values.shape[1:], strict=True)]
            values = np.pad(values, ((0, 0), (0, missing[0]), (0, missing[1])))
        return PreparedImage(values, original_size)

    def prepare_tiles(self, tiles: list[UInt8Array]) -> FloatArray:
        """Prepares the parts of an image, (tiles, 3, height, width).

        Raises:
            InputError: They are prepared to different sizes, or together larger than `MediaLimits` allows.
        """
        first = self.prepare(np.ascontiguousarray(tiles[0])).pixel_values
        check_prepared(len(tiles), *first.shape[1:])
        rest = [self.prepare(np.ascontiguousarray(tile)).pixel_values for tile in tiles[1:]]
        return stacked([first, *rest])


@dataclass(frozen=True)
class PanAndScan:
    """Gemma 3: the image, and crops of it when it is much longer than wide or the other way round.

    Attributes:
        steps: What is done to the image and to each crop.
        min_crop: Smallest edge of a crop, in pixels.
        max_crops: Most crops of an image.
        min_ratio: Ratio of the edges from which an image is cropped.
    """

    steps: ImageConfig
    min_crop: int
    max_crops: int
    min_ratio: float

    def prepare(self, pixels: UInt8Array) -> PreparedImage:
        """Prepares an image; tiles are the image and its crops."""
        height, width = pixels.shape[:2]
        count = self.crop_count(max(height, width), min(height, width))
        columns, rows = (count, 1) if width >= height else (1, count)
        parts = [pixels]
        if count:
            parts += cut(pixels, math.ceil(height / rows), math.ceil(width / columns))
        values = self.steps.prepare_tiles(parts)
        return PreparedImage(values, (height, width), (rows, columns) if count else (0, 0))

    def crop_count(self, long: int, short: int) -> int:
        """Number of crops of an image with these edges; 0 when it is not cropped."""
        if long / short < self.min_ratio:
            return 0
        count = min(long // self.min_crop, math.floor(long / short + 0.5))
        count = min(self.max_crops, max(2, count))
        return 0 if min(math.ceil(long / count), short) < self.min_crop else count


def read_gemma3(reader: ConfigReader) -> ImageConfig | PanAndScan:
    """The steps of a Gemma 3 file."""
    steps = ImageConfig.read(reader)
    if not reader.flag("do_pan_and_scan"):
        return steps
    return PanAndScan(
        steps,
        reader.length("pan_and_scan_min_crop_size"),
        reader.length("pan_and_scan_max_num_crops"),
        reader.number("pan_and_scan_min_ratio_to_activate"),
    )
