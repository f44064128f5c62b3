"""Pictures to the float array an image encoder was trained on: resize, centre crop, rescale, normalise.

The steps and their order are those of the Hugging Face image processors, in Pillow and numpy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from executorch_mm.arrays import image_array, is_pil_image
from executorch_mm.errors import InputError
from executorch_mm.preprocess.image_config import ImageConfig, read_image_config

if TYPE_CHECKING:
    from PIL import Image

Layout = Literal["HWC", "CHW"]
UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

# A float picture may leave 0..1 by this much (a resampling filter's overshoot) and is then clipped.
_RANGE_SLACK = 0.01


class ImageProcessor:
    """Prepares one picture at a time; thread-safe, since it holds nothing but its configuration.

    Args:
        config: What to do, usually from `ImageProcessor.from_pretrained`.

    Example:
        >>> processor = ImageProcessor.from_pretrained("model/")  # doctest: +SKIP
        >>> processor(np.zeros((480, 640, 3), np.uint8)).shape  # doctest: +SKIP
        (3, 336, 336)
    """

    def __init__(self, config: ImageConfig) -> None:
        self.config = config
        self._table = value_table(config)

    def __repr__(self) -> str:
        return f"ImageProcessor({self.config!r})"

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> ImageProcessor:
        """Reads preprocessor_config.json.

        Args:
            path: The file, or a folder with preprocessor_config.json or processor_config.json in it.

        Raises:
            InputError: The file is missing or damaged, its processor class is not supported, or it has keys
                that are not understood; the message names them.
        """
        return cls(read_image_config(Path(path)))

    def __call__(
        self, image: Image.Image | npt.NDArray[np.generic] | object, *, layout: Layout | None = None
    ) -> FloatArray:
        """Prepares a picture.

        Args:
            image: See `image_to_hwc_uint8`.
            layout: Where an array's channels are; None decides from its shape.

        Returns:
            float32 (3, height, width), C-contiguous: the input of the image encoder.

        Raises:
            InputError: See `image_to_hwc_uint8`.
        """
        from PIL import Image

        config = self.config
        picture = Image.fromarray(image_to_hwc_uint8(image, layout=layout))
        if config.resize is not None:
            width, height = resized_size(picture.size, config.resize)
            picture = picture.resize((width, height), resample=Image.Resampling(config.resample))
        pixels = np.asarray(picture)
        if config.crop is not None:
            pixels = centre_crop(pixels, *config.crop)
        values = np.empty((3, *pixels.shape[:2]), np.float32)
        for channel in range(3):
            np.take(self._table[channel], pixels[:, :, channel], out=values[channel], mode="clip")
        return values


def value_table(config: ImageConfig) -> FloatArray:
    """What the rescale and normalise steps make of each byte, computed in Hugging Face's precisions.

    Returns:
        float32 (3, 256): channel, byte.
    """
    values = np.arange(256, dtype=np.float64)
    if config.rescale_factor is not None:
        values = values * config.rescale_factor
    table = np.tile(values.astype(np.float32), (3, 1))
    if config.mean_std is not None:
        mean, std = (np.array(numbers, np.float32)[:, np.newaxis] for numbers in config.mean_std)
        table = (table - mean) / std
    return table


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Opens a picture file and reads it completely.

    Raises:
        InputError: The file is missing, no picture, cut short, or too large to be one in earnest.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(path)
        with image:
            image.load()
        return image
    except Image.DecompressionBombError as error:
        raise InputError(f"image {os.fspath(path)}: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"image {os.fspath(path)}: not a picture in a format that Pillow reads") from error
    except OSError as error:
        raise InputError(f"image {os.fspath(path)}: {error.strerror or error}") from error
    except (SyntaxError, ValueError, EOFError) as error:  # what Pillow's readers raise for damaged files
        raise InputError(f"image {os.fspath(path)}: damaged picture ({error})") from error


def image_to_hwc_uint8(image: object, *, layout: Layout | None = None) -> UInt8Array:
    """A picture of any kind as RGB bytes.

    Transparency is dropped, not blended, as in the Hugging Face processors. Grey becomes three equal
    channels. A PIL image is turned as its EXIF orientation says.

    Args:
        image: A PIL image of any mode; or a numpy array or anything with `__dlpack__` on the CPU: (H, W, C),
            (C, H, W), either with a batch of one, or grey (H, W); C of 1, 3 or 4; uint8 in 0..255, uint16 in
            0..65535, or floats in 0..1.
        layout: Where the channels are; None decides from the shape, and channels first wins where both ends
            could be.

    Returns:
        uint8 (height, width, 3).

    Raises:
        InputError: Wrong rank, channel number or dtype; no pixels; NaN or infinite values; floats outside
            of 0..1.
    """
    if is_pil_image(image):
        return _pil_to_rgb(image)
    if getattr(image, "dtype", None) == np.uint16:
        image = scale_16_bit(np.asarray(image))
    array = image_array(image, layout=layout)
    if array.dtype != np.uint8:
        array = _unit_floats_to_bytes(array)
    if array.shape[0] == 1:
        array = np.broadcast_to(array, (3, *array.shape[1:]))
    return np.ascontiguousarray(array[:3].transpose(1, 2, 0), dtype=np.uint8)


def _pil_to_rgb(image: Image.Image) -> UInt8Array:
    from PIL import ImageOps

    if 0 in image.size:
        raise InputError(f"image: expected at least one pixel, got size {image.size}")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            # Pillow's own conversion to 8 bits would cut everything above 255 off.
            grey = scale_16_bit(np.asarray(image))
            return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
        if image.mode == "F":
            return image_to_hwc_uint8(np.asarray(image))
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError) as error:  # Pillow reads pixels late
        raise InputError(f"image: damaged picture ({error})") from error


def scale_16_bit(pixels: npt.NDArray[np.generic]) -> UInt8Array:
    """Samples in 0..65535, whatever integers hold them, as rounded uint8 (65535 / 257 = 255)."""
    clipped = np.clip(pixels.astype(np.int64), 0, 65535)
    return ((clipped + 128) // 257).astype(np.uint8)


def _unit_floats_to_bytes(array: npt.NDArray[np.generic]) -> UInt8Array:
    values = array.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise InputError(
            f"image: expected floats in 0..1, got {low:.4g}..{high:.4g}; give 0..255 as uint8, "
            "and prepared arrays in the encoder's own shape"
        )
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def resized_size(size: tuple[int, int], target: tuple[int, int] | int) -> tuple[int, int]:
    """Size after the resize step.

    Args:
        size: (width, height) now.
        target: (height, width), or the length of the shorter edge, which keeps the aspect ratio.

    Returns:
        (width, height).
    """
    if not isinstance(target, int):
        return target[1], target[0]
    width, height = size
    if width <= height:
        return target, max(1, int(target * height / width))
    return max(1, int(target * width / height)), target


def centre_crop(pixels: UInt8Array, height: int, width: int) -> UInt8Array:
    """The middle of a picture, with black around it where the picture is too small.

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
