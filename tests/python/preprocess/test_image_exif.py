"""Odd EXIF: an image is turned where an orientation can be read, else it stays as it is."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from executorch_mm import make_image_input
from executorch_mm._engine.prefix_reuse import _digest
from executorch_mm.preprocess import image_to_hwc_uint8, load_image
from executorch_mm.preprocess.exif import orientation_block, read_orientation

PIXELS = np.random.default_rng(3).integers(0, 256, (24, 32, 3), dtype=np.uint8)
# EXIF 2.32, 4.6.4 A: 6 is "the 0th row is the visual right-hand side, the 0th column the visual top".
TURNED = np.rot90(PIXELS, -1)

BYTE, ASCII, SHORT, LONG, RATIONAL, SBYTE, UNDEFINED, SSHORT, SLONG, SRATIONAL, FLOAT, DOUBLE = range(1, 13)
Entry = tuple[int, int, int, bytes]  # tag, type, number of values, four bytes


def block(*entries: Entry, tail: bytes = b"", order: str = "<", count: int | None = None) -> bytes:
    """An EXIF block, without the "Exif" in front."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    number = struct.pack(order + "H", len(entries) if count is None else count)
    body = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return head + number + body + bytes(4) + tail


def orientation(value: int = 6, order: str = "<") -> Entry:
    return 0x112, SHORT, 1, struct.pack(order + "HH", value, 0)


TURN = orientation()


def at_tail(entries: int) -> bytes:
    """Where the tail of a block with so many entries begins."""
    return struct.pack("<I", 8 + 2 + 12 * entries + 4)


ODD: dict[str, tuple[bytes, bool]] = {
    "signed fraction below zero": (
        block(TURN, (0x11A, SRATIONAL, 1, at_tail(2)), tail=struct.pack("<ii", -1, 0)), True,
    ),
    "fraction with nothing below the line": (
        block(TURN, (0x11A, RATIONAL, 1, at_tail(2)), tail=struct.pack("<II", 1, 0)), True,
    ),
    "negative short": (block(TURN, (0x213, SSHORT, 1, struct.pack("<hh", -1, 0))), True),
    "fraction for an integer": (
        block((0x101, RATIONAL, 1, at_tail(2)), TURN, tail=struct.pack("<II", 1, 3)), True,
    ),
    "float for an integer": (block((0x101, FLOAT, 1, struct.pack("<f", 1.5)), TURN), True),
    "NaN for an integer": (block((0x100, FLOAT, 1, struct.pack("<f", float("nan"))), TURN), True),
    "text for bytes": (block(TURN, (0x2BC, ASCII, 4, b"abc\0")), True),
    "bytes for text": (block(TURN, (0x10F, UNDEFINED, 4, b"\xff\xfe\0\1")), True),
    "text that is no UTF-8": (block(TURN, (0x10F, ASCII, 4, b"\xff\xfe\xfd\0")), True),
    "a type that is unknown": (block((0x100, 99, 1, bytes(4)), TURN), True),
    "no values": (block((0x100, SHORT, 0, bytes(4)), TURN), True),
    "more values than bytes": (block((0x10F, ASCII, 2**31, at_tail(9)), TURN), True),
    "a value behind the end": (block((0x10F, ASCII, 40, struct.pack("<I", 2**32 - 1)), TURN), True),
    "directories that lead nowhere": (
        block((0x8769, LONG, 1, b"\xff" * 4), (0x8825, FLOAT, 1, b"\xff" * 4), TURN), True,
    ),
    "a directory inside itself": (block(TURN, (0x8769, LONG, 1, struct.pack("<I", 8))), True),
    "entries in no order": (block((0x9999, SHORT, 1, bytes(4)), TURN, (0x100, SHORT, 1, bytes(4))), True),
    "one that is cut behind the orientation": (block(TURN, (0x100, SHORT, 1, bytes(4)))[:26], True),
    "more entries than there are": (block(TURN, count=500), True),
    "big endian": (block(orientation(order=">"), order=">"), True),
    "the prefix twice": (b"Exif\0\0" + block(TURN), True),
    "an orientation in four bytes": (block((0x112, LONG, 1, struct.pack("<I", 6))), True),
    "an orientation in one byte": (block((0x112, BYTE, 1, b"\6\0\0\0")), True),
    "an orientation as a fraction": (
        block((0x112, RATIONAL, 1, at_tail(1)), tail=struct.pack("<II", 12, 2)), True,
    ),
    "two orientations in one": (block((0x112, SHORT, 2, struct.pack("<HH", 6, 1))), True),
    "an orientation of 0": (block(orientation(0)), False),
    "an orientation of 9": (block(orientation(9)), False),
    "an orientation of 65535": (block(orientation(0xFFFF)), False),
    "an orientation in words": (block((0x112, ASCII, 4, b"6 6\0")), False),
    "an orientation that is not whole": (block((0x112, FLOAT, 1, struct.pack("<f", 6.5))), False),
    "an orientation divided by zero": (
        block((0x112, RATIONAL, 1, at_tail(1)), tail=struct.pack("<II", 6, 0)), False,
    ),
    "no orientation": (block((0x100, SHORT, 1, bytes(4))), False),
    "no TIFF header": (b"\0\x08\0\2\1\x12\0\3junk", False),
    "nothing": (b"", False),
    "cut in the header": (b"II*\0", False),
    "cut behind the header": (b"II*\0\x08\0\0\0", False),
    "a directory behind the end": (b"II*\0\xff\xff\xff\xff", False),
}  # fmt: skip


def with_exif(kind: str, exif: bytes) -> bytes:
    """The image as a file whose EXIF block is as given, to the byte."""
    file = io.BytesIO()
    image = Image.fromarray(PIXELS)
    if kind == "JPEG":
        image.save(file, "JPEG", quality=100, subsampling=0)
        data = file.getvalue()
        segment = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    if kind == "AVIF":
        # Pillow reads what it writes, so the block is put in the place of a good one.
        good = block((0x10E, ASCII, 400, at_tail(1)), tail=b"x" * 400)
        image.save(file, "AVIF", quality=100, subsampling="4:4:4", exif=good)
        assert file.getvalue().count(good) == 1
        return file.getvalue().replace(good[: len(exif)], exif, 1)
    image.save(file, kind, lossless=True, exif=b"Exif\0\0" + exif)
    return file.getvalue()


def plain(kind: str) -> np.ndarray[Any, Any]:
    """What Pillow decodes of the same pixels without EXIF."""
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, quality=100, lossless=True, subsampling=0)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_odd_entries_do_not_cost_the_image(kind: str, name: str) -> None:
    exif, is_turned = ODD[name]
    stored = plain(kind)
    expected = np.rot90(stored, -1) if is_turned else stored
    data = with_exif(kind, exif)
    np.testing.assert_array_equal(image_to_hwc_uint8(data), expected)
    np.testing.assert_array_equal(image_to_hwc_uint8(load_image(data)), expected)


@pytest.mark.parametrize("name", ODD)
def test_odd_entries_do_not_cost_an_image_that_pillow_has_opened(name: str) -> None:
    exif, is_turned = ODD[name]
    image = Image.open(io.BytesIO(with_exif("PNG", exif)))
    np.testing.assert_array_equal(image_to_hwc_uint8(image), TURNED if is_turned else PIXELS)


@pytest.mark.skipif("avif" not in features.get_supported_modules(), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("name", ODD)
def test_avif_is_turned_by_its_container_whatever_exif_says(name: str) -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "AVIF", quality=100, subsampling="4:4:4")
    expected = np.asarray(Image.open(file))
    np.testing.assert_array_equal(image_to_hwc_uint8(with_exif("AVIF", ODD[name][0])), expected)


@pytest.mark.skipif("avif" not in features.get_supported_modules(), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("value", range(1, 9))
def test_avif_is_turned_as_pillow_turns_it(value: int) -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "AVIF", exif=orientation_block(value)[6:])
    with Image.open(file) as opened:
        assert opened.getexif().get(0x112, 1) == value
        stored = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(image_to_hwc_uint8(file.getvalue()), turned(stored, value))


def turned(stored: np.ndarray[Any, Any], value: int) -> np.ndarray[Any, Any]:
    """EXIF 2.32, 4.6.4 A: which side of what is seen the first row and the first column are."""
    seen = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: stored.transpose(1, 0, 2), 6: np.rot90(stored, -1), 7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored, 1),
    }  # fmt: skip
    return seen[value]


def tiff(*metadata: Entry, order: str = "<") -> bytes:
    """An uncompressed TIFF file of the image, with entries of the caller's among those that it needs."""
    height, width, _ = PIXELS.shape

    def short(tag: int, value: int) -> Entry:
        return tag, SHORT, 1, struct.pack(order + "HH", value, 0)

    entries = [
        short(256, width), short(257, height), (258, SHORT, 3, b"bits"), short(259, 1), short(262, 2),
        (273, LONG, 1, b"data"), short(277, 3), short(278, height),
        (279, LONG, 1, struct.pack(order + "I", PIXELS.size)), *metadata,
    ]  # fmt: skip
    entries.sort()
    end = 8 + 2 + 12 * len(entries) + 4
    data = block(*entries, order=order)
    data = data.replace(b"bits", struct.pack(order + "I", end))
    data = data.replace(b"data", struct.pack(order + "I", end + 6))
    return data + struct.pack(order + "3H", 8, 8, 8) + PIXELS.tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_tiff_file_is_turned_once(value: int, order: str) -> None:
    data = tiff(orientation(value, order), order=order)
    np.testing.assert_array_equal(image_to_hwc_uint8(data), turned(PIXELS, value))
    np.testing.assert_array_equal(image_to_hwc_uint8(Image.open(io.BytesIO(data))), turned(PIXELS, value))


@pytest.mark.parametrize(
    "entry",
    [
        (0x2BC, ASCII, 4, b"abc\0"),
        (0x11A, SRATIONAL, 1, struct.pack("<I", 2**32 - 1)),
        (0x11A, FLOAT, 1, struct.pack("<f", float("nan"))),
        (0x213, SSHORT, 1, struct.pack("<hh", -1, 0)),
        (0x8769, LONG, 1, b"\xff" * 4),
        (0x8773, ASCII, 4, b"icc\0"),
        (0x9999, 99, 1, bytes(4)),
        (0x14A, LONG, 1, struct.pack("<I", 8)),
    ],
)
def test_odd_entries_do_not_cost_a_tiff_file(entry: Entry) -> None:
    np.testing.assert_array_equal(image_to_hwc_uint8(tiff(TURN, entry)), TURNED)
    np.testing.assert_array_equal(image_to_hwc_uint8(tiff(entry)), PIXELS)


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "tiff_lzw"},
        {"compression": "tiff_adobe_deflate", "tiffinfo": {317: 2, 274: 6}},
        {"compression": "packbits"},
        {"big_tiff": True},
        {"compression": "tiff_deflate", "big_tiff": True},
    ],
)
def test_tiff_files_of_other_kinds_are_read_as_pillow_reads_them(options: dict[str, Any]) -> None:
    modes = ["RGB", "L", "P", "RGBA", "CMYK", "I;16", "LA"]
    for mode in modes if "tiffinfo" in options else ["1", *modes]:  # libtiff has no predictor of single bits
        image = Image.fromarray(PIXELS).convert("L" if mode == "I;16" else mode).convert(mode)
        file = io.BytesIO()
        image.save(file, "TIFF", exif=orientation_block(6)[6:], **options)
        with Image.open(file) as opened:
            expected = image_to_hwc_uint8(opened)
        np.testing.assert_array_equal(image_to_hwc_uint8(file.getvalue()), expected)
        assert expected.shape == (32, 24, 3)


def test_what_the_caller_has_changed_counts() -> None:
    image = Image.open(io.BytesIO(with_exif("PNG", block(TURN))))
    image.getexif()[0x112] = 1
    np.testing.assert_array_equal(image_to_hwc_uint8(image), PIXELS)
    image.getexif()[0x112] = 3
    np.testing.assert_array_equal(image_to_hwc_uint8(image), PIXELS[::-1, ::-1])


@pytest.mark.parametrize("value", range(1, 9))
def test_a_block_that_is_made_is_read_again(value: int) -> None:
    exif = Image.Exif()
    exif.load(orientation_block(value))
    assert dict(exif) == {0x112: value}
    assert read_orientation(orientation_block(value)) == value
    assert read_orientation(exif.tobytes()) == value


def test_a_conversation_takes_the_same_pixels_turned_for_another_image() -> None:
    digests = set()
    for value in (1, 6, 8):
        image = Image.fromarray(PIXELS)
        image.getexif()[0x112] = value
        digests.add(_digest([make_image_input(image)]))
    opaque, transparent = Image.fromarray(PIXELS), Image.fromarray(PIXELS)
    transparent.info["transparency"] = tuple(PIXELS[0, 0].tolist())
    digests |= {_digest([make_image_input(image)]) for image in (opaque, transparent)}
    assert len(digests) == 4
