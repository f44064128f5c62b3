"""Image files: which formats are read, how large one may be, and what a damaged one ends in.

Pillow would try every format that it knows, and some start other programs. Here the first bytes decide, among
the formats of a list, and the size is known before memory is taken.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from executorch_mm._files.extras import import_extra
from executorch_mm.errors import ExecutorchMMError, InputError
from executorch_mm.preprocess.exif import orientation_block, read_orientation, with_pixel_tags_only
from executorch_mm.preprocess.image_size import check_image

if TYPE_CHECKING:
    Opener = Callable[[bytes], ImageFile.ImageFile]

FORMATS = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC and PPM"
# Pillow's names of these, with those that it gives to variants of them.
_NAMES = frozenset({"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "PPM"})
# TIFF's tags.
_BITS_PER_SAMPLE, _SAMPLES, _TILE_WIDTH, _TILE_LENGTH = 258, 277, 322, 323
_MODERN_BYTES = 12  # WebP, AVIF, HEIC: frames before and after conversion
# Decoders that Pillow has in Python.
_DECODER_BYTES = {"ppm_plain": 40, "ppm": 8, "bmp_rle": 4}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_GENERAL_BRANDS = {b"mif1", b"msf1"}


def decode_image(data: bytes, what: str) -> Image.Image:
    """Reads an image file completely; of one with several images the first.

    Args:
        data: The file.
        what: Starts the error messages.

    Raises:
        InputError: It is of none of the formats, damaged or larger than `MediaLimits` allows.
        MissingDependencyError: It is HEIC, and pillow-heif is not installed; the extra is `heic`.
    """
    opener = _opener(data)
    if opener is None:
        raise InputError(
            f"{what}: not an image in a format that is read ({FORMATS}), begins with {data[:8]!r}"
        )
    try:
        image = opener(data)
    except ExecutorchMMError:
        raise
    except Exception as error:
        raise damaged(what, error) from error
    read_completely(image, what)
    return image


def read_completely(image: Image.Image, what: str) -> None:
    """Reads the pixels of an image whose file is only open yet.

    Args:
        image: Any PIL image.
        what: Starts the error messages.

    Raises:
        InputError: See `decode_image`.
    """
    is_read = _is_read(image)
    if not is_read and image.format not in _NAMES:
        raise InputError(
            f"{what}: a {image.format} file that has not been read, expected one of {FORMATS}; "
            "others are taken after their load()"
        )
    try:
        reading_bytes = 0 if is_read else _reading_bytes(image)
        tile = _tile_size(image)
    except Exception as error:
        raise damaged(what, error) from error
    check_image(what, image.size, image.mode, reading_bytes)
    check_image(what, tile, image.mode, reading_bytes)
    if not is_read:
        _check_pillows_limit(image.size, what)
    try:
        image.load()
    except Exception as error:
        raise damaged(what, error) from error


def _check_pillows_limit(size: tuple[int, int], what: str) -> None:
    """A program may have lowered it; Pillow refuses what has more than twice as many pixels."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > 2 * limit:
        raise InputError(
            f"{what}: expected at most {2 * limit} pixels, got {size[0]} x {size[1]}; a decompression bomb, "
            "or PIL.Image.MAX_IMAGE_PIXELS, half of that, is to be raised"
        )


def _reading_bytes(image: Image.Image) -> int:
    """What a decoder takes for a pixel, besides the pixel: as measured, rounded up."""
    if image.format in ("WEBP", "AVIF", "HEIF"):
        return _MODERN_BYTES
    if isinstance(image, JpegImageFile):
        return 0 if _is_in_one_scan(image) else 2 * image.layers
    if isinstance(image, TiffImageFile):  # a strip may be the whole image
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (1,))
        return int(-(-max(bits) * image.tag_v2.get(_SAMPLES, 1) // 8))
    decoders = {tile[0] for tile in getattr(image, "tile", ())}
    return max((_DECODER_BYTES.get(name, 0) for name in decoders), default=0)


def _is_in_one_scan(image: JpegImageFile) -> bool:
    """Whether rows are ready as they are read; else libjpeg keeps the whole image as coefficients."""
    count = image.layers
    if image.info.get("progressive") or image.fp is None:
        return False
    position = image.fp.tell()
    image.fp.seek(max(0, position - 8 - 2 * count))
    header = image.fp.read(8 + 2 * count)
    image.fp.seek(position)
    return header[:2] == b"\xff\xda" and header[4] == count


def damaged(what: str, error: Exception) -> InputError:
    """The error for whatever Pillow raises: for damaged files its readers raise nearly anything."""
    if isinstance(error, MemoryError):
        return InputError(f"{what}: damaged image, or no memory left for it")
    return InputError(f"{what}: damaged image ({str(error) or type(error).__name__})")


def _is_read(image: Image.Image) -> bool:
    if getattr(image, "tile", None):
        return False
    try:
        return getattr(image, "im", None) is not None
    except Exception:  # noqa: BLE001  # Pillow 11 and later: an assertion, or what a closed file says
        return False


def _tile_size(image: Image.Image) -> tuple[int, int]:
    """A TIFF file's tiles are decoded whole, however small the image is."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(_TILE_WIDTH, 0)), int(tags.get(_TILE_LENGTH, 0))


def _opener(data: bytes) -> Opener | None:
    for magic, opener in _OPENERS:
        if re.match(magic, data, re.DOTALL):
            return opener
    brands = _brands(data)
    if brands & _AVIF_BRANDS:
        return _open_avif
    return _open_heic if brands & _HEIC_BRANDS else None


def _brands(data: bytes) -> set[bytes]:
    """What an ISO media file says it is; what it is compatible with counts where it only says "images"."""
    if data[4:8] != b"ftyp":
        return set()
    major = data[8:12]
    if major not in _GENERAL_BRANDS:
        return {major}
    end = min(int.from_bytes(data[:4], "big"), 256)
    return {data[at : at + 4] for at in range(16, end, 4)}


class _Jpeg(JpegImageFile):
    """A JPEG file whose EXIF block is not read for its resolution, which nobody asks for."""

    def _open(self) -> None:
        self.info["dpi"] = None  # else Pillow looks for it there
        super()._open()
        if self.info["dpi"] is None:
            del self.info["dpi"]


def _open_png(data: bytes) -> ImageFile.ImageFile:
    image = PngImageFile(io.BytesIO(data))
    colour, depth = image.info.get("transparency"), data[24]
    if isinstance(colour, tuple):
        # Of 16 bits Pillow keeps the upper 8 of a colour, but not of the colour that is transparent.
        image.info["transparency"] = tuple(part >> 8 if depth == 16 else part & 0xFF for part in colour)
    elif isinstance(colour, int) and image.mode == "L":
        # Pillow stretches grey of 2 and 4 bits to 0..255, and so must be what is compared with it.
        most = min((1 << depth) - 1, 255)
        image.info["transparency"] = (colour & most) * 255 // most
    elif isinstance(colour, int) and image.mode == "1":
        image.info["transparency"] = 255 if colour & 1 else 0
    return image


def _open_webp(data: bytes) -> ImageFile.ImageFile:
    size = _webp_size(data)
    if size is not None:  # the reader takes memory when it opens
        check_image("image", size, "RGBA", _MODERN_BYTES)
    return WebPImageFile(io.BytesIO(data))


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of the canvas."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", body, 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


def _open_tiff(data: bytes) -> ImageFile.ImageFile:
    image = TiffImageFile(io.BytesIO(with_pixel_tags_only(data)))
    image.info["exif"] = orientation_block(read_orientation(data) or 1)
    return image


def _open_avif(data: bytes) -> ImageFile.ImageFile:
    try:
        from PIL import AvifImagePlugin
    except ImportError as error:
        raise InputError("image: AVIF needs Pillow 11.3 or newer") from error
    # Pillow reads EXIF here, and an odd entry would cost the image. The container has the orientation.
    data = re.sub(rb"(infe[\2\3]...(?:..|....)..)Exif", rb"\1free", data, flags=re.DOTALL)
    image = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    image.info.setdefault("exif", orientation_block(1))
    return image


def _open_heic(data: bytes) -> ImageFile.ImageFile:
    pillow_heif = import_extra("pillow_heif", "heic", "image: reading HEIC")
    image: ImageFile.ImageFile = pillow_heif.HeifImageFile(io.BytesIO(data))
    image.info["exif"] = orientation_block(1)  # libheif turns the image
    return image


_OPENERS: tuple[tuple[bytes, Opener], ...] = (
    (rb"\xff\xd8\xff", lambda data: _Jpeg(io.BytesIO(data))),
    (rb"\x89PNG\r\n\x1a\n", _open_png),
    (rb"RIFF....WEBP", _open_webp),
    (rb"GIF8[79]a", lambda data: GifImageFile(io.BytesIO(data))),
    (rb"BM", lambda data: BmpImageFile(io.BytesIO(data))),
    (rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]|II\0\x2a|MM\x2a\0", _open_tiff),
    (rb"P[1-6f]\s", lambda data: PpmImageFile(io.BytesIO(data))),
)
