"""Modes, 16-bit samples and transparent colours, against Pillow's conversion and PNG's specification."""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from executorch_mm import InputError, make_image_input
from executorch_mm.preprocess import image_to_hwc_uint8

SIZE = (13, 9)
AnyArray = np.ndarray[Any, Any]


def random_bytes(count: int) -> bytes:
    return np.random.default_rng(count).bytes(count)


def random_image(mode: str) -> Image.Image:
    """Every byte that a pixel of this mode may hold, from all of them."""
    empty = Image.new(mode, SIZE)
    image = Image.frombytes(mode, SIZE, random_bytes(len(empty.tobytes())))
    if mode in ("P", "PA"):
        image.putpalette(random_bytes(768))
    return image


def on_white(rgba: AnyArray) -> AnyArray:
    """Porter and Duff's "over" with an opaque white image below, exact."""
    colour, alpha = rgba[..., :3].astype(np.int64), rgba[..., 3:].astype(np.int64)
    return (colour * alpha + 255 * (255 - alpha)) / 255


SCALED = ("I", "F", *(mode for mode in Image.MODES if mode.startswith("I;16")))
WITH_ALPHA = ("LA", "PA", "RGBA", "RGBa")


@pytest.mark.parametrize("mode", [mode for mode in Image.MODES if mode not in SCALED])
def test_every_mode_is_what_pillow_makes_of_it(mode: str) -> None:
    image = random_image(mode)
    try:
        expected = np.asarray(image.convert("RGB"))
    except ValueError:  # "La" has no way to RGB
        with pytest.raises(InputError, match="of a mode that has no RGB"):
            image_to_hwc_uint8(image)
        return
    if mode not in WITH_ALPHA:
        np.testing.assert_array_equal(image_to_hwc_uint8(image), expected)
        return
    rgba = np.asarray(image.convert("RGBA"))
    np.testing.assert_allclose(image_to_hwc_uint8(image), on_white(rgba), atol=0.51)
    image.putalpha(255)
    np.testing.assert_array_equal(image_to_hwc_uint8(image), np.asarray(image.convert("RGB")))


def test_a_lab_image_of_bands_keeps_its_colours() -> None:
    """Its band "A" runs from green to red, and is no alpha."""
    bands = [Image.frombytes("L", SIZE, random_bytes(13 * 9 + shift)[shift:]) for shift in range(3)]
    image = Image.merge("LAB", bands)
    np.testing.assert_array_equal(image_to_hwc_uint8(image), np.asarray(image.convert("RGB")))
    part = make_image_input(image)
    np.testing.assert_array_equal(image_to_hwc_uint8(part.value), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", [mode for mode in SCALED if mode != "F"])
def test_sixteen_bits_become_eight_as_the_png_specification_says(mode: str) -> None:
    """Third edition, 13.12: floor(sample * MAXOUTSAMPLE / MAXINSAMPLE + 0.5)."""
    samples = np.arange(65536).reshape(256, 256)
    expected = np.array([math.floor(sample * 255 / 65535 + 0.5) for sample in range(65536)], np.uint8)
    dtype = {"I": "<i4", "I;16B": ">u2"}.get(mode, "<u2")
    image = Image.frombytes(mode, (256, 256), samples.astype(dtype).tobytes())
    assert image.mode == mode
    for channel in range(3):
        np.testing.assert_array_equal(image_to_hwc_uint8(image)[..., channel].ravel(), expected)


SIXTEEN = np.random.default_rng(5).integers(0, 65536, (6, 7, 3), dtype=np.uint16)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
@pytest.mark.parametrize(
    "shaped",
    [
        SIXTEEN,
        SIXTEEN.transpose(2, 0, 1),
        np.ascontiguousarray(SIXTEEN.transpose(2, 0, 1)),
        SIXTEEN[np.newaxis],
        SIXTEEN[::-1, ::2],
        SIXTEEN[..., 0],
        SIXTEEN[..., :1],
        np.dstack([SIXTEEN, np.full((6, 7), 65535, np.uint16)]),
    ],
    ids=["HWC", "CHW", "CHW in a row", "batch", "strides", "grey", "one channel", "RGBA"],
)
def test_arrays_of_sixteen_bits_are_inputs(shaped: AnyArray, dtype: str) -> None:
    array = shaped.astype(dtype, order="K")
    eight = np.floor(shaped.astype(np.int64) * 255 / 65535 + 0.5).astype(np.uint8)  # PNG, 13.12
    value = make_image_input(array).value
    assert isinstance(value, np.ndarray)
    assert value.dtype == np.uint8
    expected = make_image_input(eight).value
    assert isinstance(expected, np.ndarray)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(image_to_hwc_uint8(array), image_to_hwc_uint8(eight))


def test_a_transparent_array_of_sixteen_bits_is_blended() -> None:
    rgba = np.array([[[65535, 0, 257, 0], [65535, 0, 257, 65535], [0, 0, 0, 32896]]], np.uint16)
    expected = [[[255, 255, 255], [255, 0, 1], [127, 127, 127]]]
    np.testing.assert_array_equal(image_to_hwc_uint8(rgba, layout="HWC"), expected)


def test_numbers_in_the_other_byte_order_are_the_same_numbers() -> None:
    unit = np.random.default_rng(2).random((5, 6, 3))
    for kind in ("f2", "f4", "f8"):
        native, swapped = unit.astype("<" + kind), unit.astype(">" + kind)
        np.testing.assert_array_equal(image_to_hwc_uint8(swapped), image_to_hwc_uint8(native))
        value = make_image_input(swapped).value
        assert isinstance(value, np.ndarray)
        assert value.dtype.isnative
    with pytest.raises(InputError, match="uint8, uint16 or floats, got int16"):
        make_image_input(np.zeros((5, 6, 3), ">i2"))


def png(kind: int, depth: int, row: bytes, width: int, transparent: bytes, palette: bytes = b"") -> bytes:
    """A PNG file of one row, written by the specification: Pillow writes no tRNS of 16 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, kind, 0, 0, 0))]
    chunks += [chunk(b"PLTE", palette)] if palette else []
    chunks += [chunk(b"tRNS", transparent), chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def shorts(*values: int) -> bytes:
    return struct.pack(f">{len(values)}H", *values)


GREY, RGB_TYPE, PALETTE = 0, 2, 3


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(GREY, 1, b"\xa0", 4, b"\0\1"), [255, 0, 255, 0]),
        (png(GREY, 1, b"\xa0", 4, b"\0\0"), [255, 255, 255, 255]),
        (png(GREY, 2, b"\x1b", 4, b"\0\2"), [0, 85, 255, 255]),
        (png(GREY, 4, b"\x12\x34", 4, b"\0\3"), [17, 34, 255, 68]),
        (png(GREY, 8, b"\1\2\3\4", 4, b"\0\3"), [1, 2, 255, 4]),
        # "the least significant bits are used and the others are 0": a writer that did not clear them
        (png(GREY, 8, b"\1\2\3\4", 4, b"\1\3"), [1, 2, 255, 4]),
        (png(GREY, 16, shorts(257, 514, 515, 65535), 4, shorts(514)), [1, 255, 2, 255]),
        (png(GREY, 16, shorts(0, 1, 128, 65535), 4, b"\0\0"), [255, 0, 0, 255]),
        (png(RGB_TYPE, 8, bytes([5] * 3 + [6] * 3), 2, shorts(6, 6, 6)), [5, 255]),
        (png(RGB_TYPE, 8, bytes([5] * 3 + [6] * 3), 2, shorts(6, 6, 7)), [5, 6]),
        (png(RGB_TYPE, 16, shorts(*[0x505] * 3, *[0x606] * 3), 2, shorts(*[0x606] * 3)), [5, 255]),
        (png(PALETTE, 8, b"\0\1\2", 3, b"\xff\0", b"\7\7\7\x08\x08\x08\x09\x09\x09"), [7, 255, 9]),
        (png(PALETTE, 8, b"\0\1\2", 3, b"\0\x80", bytes([0] * 9)), [255, 127, 0]),
    ],
)  # fmt: skip
def test_the_colour_that_a_png_file_calls_transparent_becomes_white(data: bytes, expected: list[int]) -> None:
    result = image_to_hwc_uint8(data)
    assert result[0].tolist() == [[value] * 3 for value in expected]


def test_a_palette_of_four_channels_is_transparent_too() -> None:
    image = Image.frombytes("P", (3, 1), b"\0\1\2")
    image.putpalette([9, 9, 9, 255, 9, 9, 9, 0, 0, 0, 0, 51], "RGBA")
    assert image_to_hwc_uint8(image)[0].tolist() == [[9] * 3, [255] * 3, [204] * 3]


def test_an_image_of_many_strips_is_put_together_and_turned() -> None:
    """More pixels than are made RGB at a time; palette and transparent colour go with each strip."""
    height, width = 1500, 1000
    index = np.random.default_rng(1).integers(0, 4, (height, width), dtype=np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    image.info["transparency"] = 3
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [255, 255, 255]], np.uint8)
    np.testing.assert_array_equal(image_to_hwc_uint8(image), colours[index])
    image.getexif()[0x112] = 8
    np.testing.assert_array_equal(image_to_hwc_uint8(image), np.rot90(colours[index], 1))
    file = io.BytesIO()
    Image.fromarray(colours[index]).save(file, "PNG")
    np.testing.assert_array_equal(image_to_hwc_uint8(file.getvalue()), colours[index])


def test_an_image_of_floats_is_judged_in_every_strip() -> None:
    floats = np.zeros((1200, 1000), np.float32)
    floats[-1, -1] = 2
    with pytest.raises(InputError, match=r"floats in 0..1, got 0..2"):
        image_to_hwc_uint8(Image.fromarray(floats))
