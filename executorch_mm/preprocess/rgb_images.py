"""Images of any kind as RGB images of Pillow: files, bytes, URIs, arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from executorch_mm.arrays import AnyArray, image_array, is_pil_image, scale_16_bit
from executorch_mm.errors import InputError
from executorch_mm.preprocess.exif import orientation_of
from executorch_mm.preprocess.sources import Fetch, Source, is_source, read_source

if TYPE_CHECKING:
    from PIL import Image

Layout = Literal["HWC", "CHW"]
UInt8Array = npt.NDArray[np.uint8]

# A float image may leave 0..1 by this much (a resampling filter's overshoot) and is then clipped.
_RANGE_SLACK = 0.01
_STRIP_PIXELS = 2**20  # are made RGB at a time, so that it takes little memory
_ALPHA_MODES = ("LA", "PA", "RGBA", "RGBa")


def load_image(source: Source, *, fetch: Fetch | None = None) -> Image.Image:
    """Reads an image completely: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC (with pillow-heif) or PPM.

    Args:
        source: A path, a "file:", "data:" or "http(s):" URI, the bytes of an image file, a file object that
            is opened for bytes, or an iterator of its bytes. A file object is rewound if it can be.
        fetch: Called with an http(s) URL, returns the bytes behind it. Nothing is downloaded without it.

    Returns:
        The pixels as they are stored; `image_to_hwc_uint8` turns them as EXIF says.

    Raises:
        InputError: There is no such file, it is no image of these formats, damaged or larger than
            `MediaLimits` allows, or it is a URL and there is no `fetch`.
        MissingDependencyError: It is HEIC, and pillow-heif is not installed; the extra is `heic`.
    """
    data, what = read_source(source, "image", fetch)
    from executorch_mm.preprocess.image_files import decode_image

    return decode_image(data, what)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads an image file completely; see `load_image`."""
    return load_image(Path(path))


def image_to_hwc_uint8(image: object, *, layout: Layout | None = None) -> UInt8Array:
    """An image of any kind as RGB bytes.

    Transparent pixels are blended onto white. Grey becomes three equal channels, 16 bits become 8 by
    rounding. A PIL image is turned as its EXIF orientation says, where that can be read.

    Args:
        image: What `load_image` takes; a PIL image of any mode; or a numpy array, or anything with
            `__dlpack__` or the buffer protocol on the CPU: (H, W, C), (C, H, W), either with a batch of one,
            or grey (H, W); C of 1, 3 or 4; uint8 in 0..255, uint16 in 0..65535, or floats in 0..1.
        layout: Where an array's channels are; None decides from the shape, and channels first wins where both
            ends could be.

    Returns:
        uint8 (height, width, 3), C-contiguous.

    Raises:
        InputError: Wrong rank, channel number or dtype; no pixels; NaN or infinite values; floats outside
            of 0..1; a damaged file, or one larger than `MediaLimits` allows.
    """
    if is_source(image):
        image = load_image(image)
    if is_pil_image(image):
        return _pil_to_rgb(image)
    return _array_to_rgb(image, layout)


def _array_to_rgb(image: object, layout: Layout | None) -> UInt8Array:
    array = image_array(image, layout=layout)
    if array.shape[0] == 4:
        array = _blend_onto_white(array)
    if array.dtype != np.uint8:
        array = _unit_floats_to_bytes(array)
    if array.shape[0] == 1:
        array = np.broadcast_to(array, (3, *array.shape[1:]))
    return np.ascontiguousarray(array.transpose(1, 2, 0), dtype=np.uint8)


def _blend_onto_white(rgba: AnyArray) -> AnyArray:
    """(4, H, W) to (3, H, W), bytes to bytes and floats to floats."""
    if rgba.dtype != np.uint8:
        values = rgba.astype(np.float32)
        return values[:3] * values[3:] + (1 - values[3:])
    pixels = rgba.astype(np.float64)
    alpha = pixels[3:] / 255
    return np.rint(alpha * pixels[:3] + (1 - alpha) * 255).astype(np.uint8)


def _pil_to_rgb(image: Image.Image) -> UInt8Array:
    from executorch_mm.preprocess.image_files import read_completely

    if 0 in image.size:
        raise InputError(f"image: expected at least one pixel, got size {image.size}")
    read_completely(image, "image")
    width, height = image.size
    turned, upright = _turned(height, width, orientation_of(image))
    try:
        for rows in _strips(height, width):
            is_whole = rows.stop - rows.start == height
            strip = image if is_whole else image.crop((0, rows.start, width, rows.stop))
            turned[rows] = _strip_to_rgb(strip)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"image: damaged, or of a mode that has no RGB ({error})") from error
    return upright


def _turned(height: int, width: int, orientation: int) -> tuple[UInt8Array, UInt8Array]:
    """Memory for an image in two views: as it is stored, and as EXIF's orientation says that it is seen."""
    is_on_its_side = orientation >= 5
    upright = np.empty((width, height, 3) if is_on_its_side else (height, width, 3), np.uint8)
    stored = upright.transpose(1, 0, 2) if is_on_its_side else upright
    if orientation in (3, 4, 6, 7):
        stored = stored[::-1]
    if orientation in (2, 3, 7, 8):
        stored = stored[:, ::-1]
    return stored, upright


def _strips(height: int, width: int) -> Iterator[slice]:
    rows = max(1, _STRIP_PIXELS // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _strip_to_rgb(strip: Image.Image) -> AnyArray:
    from PIL import Image

    transparent = strip.info.get("transparency")
    if strip.mode == "I" or strip.mode.startswith("I;16"):
        # Pillow's own conversion to 8 bits would cut everything above 255 off.
        samples = np.asarray(strip)
        grey = scale_16_bit(samples)
        if isinstance(transparent, int):
            grey[samples == transparent] = 255
        return grey[:, :, np.newaxis]
    if strip.mode == "F":
        return _array_to_rgb(np.asarray(strip), None)
    if _is_transparent(strip):
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        strip = Image.alpha_composite(white, strip.convert("RGBA"))
    return np.asarray(strip if strip.mode == "RGB" else strip.convert("RGB"))


def _is_transparent(image: Image.Image) -> bool:
    if image.mode in _ALPHA_MODES or (image.mode in ("1", "L", "P", "RGB") and "transparency" in image.info):
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def _unit_floats_to_bytes(array: AnyArray) -> UInt8Array:
    values = array.astype(np.float32)
    low, high = float(np.min(values)), float(np.max(values))
    if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise InputError(
            f"image: expected floats in 0..1, got {low:.4g}..{high:.4g}; give 0..255 as uint8, "
            "and prepared arrays in the encoder's own shape"
        )
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
