"""Reads damaged images one after another and says what came of each; whoever started it watches.

    python tests/fuzz/image_worker.py KIND FIRST LAST

Case number i of a kind is the same bytes every time, as far as the encoders are the same. Prints `begin N`
before case N and `end N OUTCOME` after it.
"""

from __future__ import annotations

import contextlib
import io
import random
import resource
import struct
import sys
import traceback
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL
from PIL import Image, features

from executorch_mm import InputError
from executorch_mm.preprocess import image_to_hwc_uint8

INTERESTING = (
    0,
    1,
    2,
    7,
    8,
    15,
    16,
    127,
    128,
    255,
    256,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
)
MEMORY_BYTES = 6 * 2**30
_PILLOW = tuple(int(part) for part in PIL.__version__.split(".")[:2])
_PIXELS = (np.arange(24 * 32 * 3) * 7 % 251).astype(np.uint8).reshape(24, 32, 3)
_RGB = Image.fromarray(_PIXELS)
_NEXT = Image.fromarray(_PIXELS[::-1].copy())


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x112], exif[0x10F], exif[0x11A] = 6, "maker", 72.0
    exif.get_ifd(0x8769)[0x9003] = "2026:11:28 12:00:00"
    return exif.tobytes()


def _saved(kind: str, mode: str = "RGB", frames: int = 1, **options: Any) -> Callable[[], bytes]:
    def save() -> bytes:
        file = io.BytesIO()
        if mode == "I;16":
            image = Image.fromarray(_PIXELS[..., 0].astype(np.uint16) * 257)
        elif mode == "F":
            image = Image.fromarray(_PIXELS[..., 0].astype(np.float32) / 255)
        else:
            image = _RGB.convert(mode)
        if mode in ("RGBA", "LA"):
            image.putalpha(Image.fromarray(_PIXELS[..., 1]))
        more = {"save_all": True, "append_images": [_NEXT.copy()]} if frames == 2 else {}
        image.save(file, kind, **more, **options)
        return file.getvalue()

    return save


def _plain_ppm() -> bytes:
    return b"P3 # a comment\n32 24\n255\n" + b" ".join(b"%d" % value for value in _PIXELS.ravel())


def _scaled_ppm() -> bytes:
    return b"P6 32 24 100\n" + (_PIXELS % 101).tobytes()


def _plain_bits() -> bytes:
    return b"P1\n32 24\n" + b" ".join(b"%d" % (value % 2) for value in _PIXELS[..., 0].ravel())


def _float_map() -> bytes:
    return b"Pf\n32 24\n-1.0\n" + (_PIXELS[..., 0] / 255).astype("<f4").tobytes()


def _run_length_bmp() -> bytes:
    rows = b"".join(bytes([16, row % 256, 0, 16, *range(16), 0, 0]) for row in range(24)) + b"\0\1"
    palette = b"".join(bytes([value, 255 - value, value, 0]) for value in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, 32, 24, 1, 8, 1, len(rows), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + header + palette + rows


def _tiled_tiff() -> bytes:
    tile = _PIXELS[:16, :16].tobytes()
    shorts = {256: 32, 257: 24, 259: 1, 262: 2, 277: 3, 322: 16, 323: 16}
    entries = [(tag, 3, 1, value) for tag, value in shorts.items()]
    end = 8 + 2 + 12 * (len(entries) + 3) + 4
    entries += [(258, 3, 3, end), (324, 4, 4, end + 6), (325, 4, 4, end + 22)]
    body = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    places = struct.pack("<4I", *(end + 38 + len(tile) * index for index in range(4)))
    tail = struct.pack("<3H", 8, 8, 8) + places + struct.pack("<4I", *[len(tile)] * 4) + tile * 4
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4) + tail


def _heic() -> bytes:
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(_RGB.convert("RGBA")).save(file, quality=90)
    return file.getvalue()


KINDS: dict[str, list[Callable[[], bytes]]] = {
    "JPEG": [
        _saved("JPEG"), _saved("JPEG", progressive=True, exif=_exif()), _saved("JPEG", "CMYK"),
        _saved("JPEG", "L", restart_marker_blocks=2), _saved("MPO", frames=2),
    ],
    "PNG": [
        _saved("PNG", exif=_exif()), _saved("PNG", "P", transparency=3, bits=4), _saved("PNG", "I;16"),
        _saved("PNG", "RGBA"), _saved("PNG", "1"), _saved("PNG", "L", transparency=7),
        _saved("PNG", frames=2),
    ],
    "WEBP": [
        _saved("WEBP"), _saved("WEBP", lossless=True), _saved("WEBP", "RGBA", exif=_exif()),
        _saved("WEBP", frames=2),
    ],
    "GIF": [
        _saved("GIF", "P"), _saved("GIF", "L", interlace=0), _saved("GIF", "P", transparency=2, frames=2),
    ],
    "BMP": [_saved("BMP"), _saved("BMP", "P"), _saved("BMP", "1"), _saved("BMP", "RGBA"), _run_length_bmp],
    "TIFF": [
        *(
            _saved("TIFF", compression=name)
            for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "lzma")
        ),
        _saved("TIFF", "1", compression="group4"), _saved("TIFF", "P", compression="tiff_lzw"),
        _saved("TIFF", "I;16"), _saved("TIFF", "F", compression="tiff_deflate"),
        _saved("TIFF", big_tiff=True), _saved("TIFF", exif=_exif(), frames=2), _tiled_tiff,
    ],
    "AVIF": [
        _saved("AVIF", speed=9), _saved("AVIF", "RGBA", speed=9, exif=_exif()), _saved("AVIF", "L", speed=9),
        _saved("AVIF", speed=9, frames=2),
    ],
    "PPM": [
        _saved("PPM"), _saved("PPM", "1"), _saved("PPM", "I;16"), _plain_ppm, _scaled_ppm, _plain_bits,
        *([_float_map] if _PILLOW >= (10, 3) else []),
    ],
    "HEIC": [_heic],
}  # fmt: skip


def is_installed(kind: str) -> bool:
    if kind == "HEIC":
        try:
            import pillow_heif  # noqa: F401
        except ImportError:
            return False
        return True
    return kind not in ("AVIF", "WEBP") or kind.lower() in features.get_supported_modules()


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to four wounds; the first bytes, where the structure is, get half of them."""
    wounded = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        end = len(wounded) if rng.random() < 0.5 else min(len(wounded), 160)
        place = rng.randrange(max(1, end - 4))
        wound = rng.randrange(7)
        if wound <= 1:
            wounded[place] ^= 1 << rng.randrange(8)
        elif wound == 2:
            wounded[place] = rng.randrange(256)
        elif wound == 3:
            width, order = rng.choice(((2, "little"), (2, "big"), (4, "little"), (4, "big")))
            number = rng.choice((*INTERESTING, rng.getrandbits(32))) % (1 << 8 * width)
            wounded[place : place + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
        elif wound == 4:
            there = rng.randrange(len(wounded))
            wounded[place : place + 8] = wounded[there : there + 8]
        elif wound == 5:
            del wounded[place : place + rng.choice((1, 2, 4, 16))]
        else:
            del wounded[rng.randrange(len(wounded) // 4, len(wounded)) :]
        if len(wounded) < 16:
            break
    return bytes(wounded)


def _with_checksums(png: bytes) -> bytes:
    """Damage that a checksum would find at once goes deeper without it."""
    repaired, place = bytearray(png), 8
    while place + 12 <= len(png):
        end = place + 8 + int.from_bytes(png[place : place + 4], "big")
        if end + 4 > len(png):
            break
        repaired[end : end + 4] = zlib.crc32(png[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(repaired)


def sources(kind: str) -> list[bytes]:
    """Good files of a kind; what this Pillow's libraries cannot write is left out."""
    made = []
    for make in KINDS[kind]:
        with contextlib.suppress(OSError, KeyError, ValueError):
            made.append(make())
    return made


def make_case(kind: str, number: int, good: list[bytes]) -> bytes:
    rng = random.Random(f"{kind} {number}")
    data = damaged(good[number % len(good)], rng)
    return _with_checksums(data) if kind == "PNG" and rng.random() < 0.7 else data


def outcome_of(data: bytes) -> str:
    """ "image", "InputError", or what should not be."""
    try:
        pixels = image_to_hwc_uint8(data)
    except InputError:
        return "InputError"
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        return type(error).__name__
    return "image" if pixels.ndim == 3 and pixels.dtype == np.uint8 else "nothing"


def main() -> None:
    kind, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")  # Pillow's, about odd files
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    good = sources(kind)
    for number in range(first, last):
        print("begin", number, flush=True)
        print("end", number, outcome_of(make_case(kind, number, good)), flush=True)


if __name__ == "__main__":
    main()
