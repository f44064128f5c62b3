"""Pictures of any kind as RGB pictures of Pillow: files, bytes, URIs, arrays."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from executorch_mm.arrays import AnyArray, image_array, is_pil_image
from executorch_mm.errors import InputError
from executorch_mm.preprocess.sources import Fetch, Source, is_source, read_source

if TYPE_CHECKING:
    from PIL import Image

Layout = Literal["HWC", "CHW"]
UInt8Array = npt.NDArray[np.uint8]

# 512 MB as RGB bytes. A file of a few kilobytes can claim more.
MAX_PIXELS = 2**29 // 3
# A float picture may leave 0..1 by this much (a resampling filter's overshoot) and is then clipped.
_RANGE_SLACK = 0.01
_ORIENTATION = 0x0112  # EXIF's tag


def load_image(source: Source, *, fetch: Fetch | None = None) -> Image.Image:
    """Reads a picture completely.

    Args:
        source: A path, a "data:" URI, an "http(s)://" URL, or the bytes of a picture file.
        fetch: Called with an http(s) URL, returns the bytes behind it. Nothing is downloaded without it.

    Raises:
        InputError: There is no such file, it is no picture, cut short or larger than `MAX_PIXELS`, or it is a
            URL and there is no `fetch`.
    """
    data, what = read_source(source, "image", fetch)
    return _open(io.BytesIO(data), what)


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Reads a picture file completely; see `load_image`."""
    return load_image(Path(path))


def _open(file: io.BytesIO, what: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    try:
        image: Image.Image = Image.open(file)
        with image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InputError(
                    f"{what}: expected at most {MAX_PIXELS} pixels, got {width} x {height}; "
                    "a decompression bomb, or a picture to be scaled down first"
                )
            image.load()
        return image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{what}: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{what}: not a picture in a format that Pillow reads") from error
    except OSError as error:
        raise InputError(f"{what}: {error.strerror or error}") from error
    except InputError:
        raise
    except (SyntaxError, ValueError, EOFError) as error:  # what Pillow's readers raise for damaged files
        raise InputError(f"{what}: damaged picture ({error})") from error


def image_to_hwc_uint8(image: object, *, layout: Layout | None = None) -> UInt8Array:
    """A picture of any kind as RGB bytes.

    Transparent pixels are blended onto white. Grey becomes three equal channels, 16 bits become 8 by
    rounding. A PIL image is turned as its EXIF orientation says.

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
            of 0..1; a damaged file.
    """
    if is_source(image):
        image = load_image(image)
    if is_pil_image(image):
        return np.ascontiguousarray(_pil_to_rgb(image))
    return _array_to_rgb(image, layout)


def _array_to_rgb(image: object, layout: Layout | None) -> UInt8Array:
    if getattr(image, "dtype", None) == np.uint16:
        image = scale_16_bit(np.asarray(image))
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


def _pil_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image, ImageOps

    if 0 in image.size:
        raise InputError(f"image: expected at least one pixel, got size {image.size}")
    try:
        if image.getexif().get(_ORIENTATION, 1) != 1:  # exif_transpose would copy an upright picture
            image = ImageOps.exif_transpose(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            # Pillow's own conversion to 8 bits would cut everything above 255 off.
            return Image.fromarray(scale_16_bit(np.asarray(image))).convert("RGB")
        if image.mode == "F":
            return Image.fromarray(_array_to_rgb(np.asarray(image), None))
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reads pixels late
        raise InputError(f"image: damaged, or of a mode that has no RGB ({error})") from error


def scale_16_bit(pixels: AnyArray) -> UInt8Array:
    """Samples in 0..65535, whatever integers hold them, as rounded uint8 (65535 / 257 = 255)."""
    clipped = np.clip(pixels.astype(np.int64), 0, 65535)
    return ((clipped + 128) // 257).astype(np.uint8)


def _unit_floats_to_bytes(array: AnyArray) -> UInt8Array:
    values = array.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if low < -_RANGE_SLACK or high > 1 + _RANGE_SLACK:
        raise InputError(
            f"image: expected floats in 0..1, got {low:.4g}..{high:.4g}; give 0..255 as uint8, "
            "and prepared arrays in the encoder's own shape"
        )
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
