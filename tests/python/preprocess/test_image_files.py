"""Which image files are read, that nothing is started for one, and how much one may ask for."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from executorch_mm import (
    InputError,
    MediaLimits,
    MissingDependencyError,
    make_image_input,
    media_limits,
    set_media_limits,
)
from executorch_mm.preprocess import ImageProcessor, image_to_hwc_uint8, load_image
from executorch_mm.preprocess.resample import resize

RGB = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
IMAGE = Image.fromarray(RGB)
EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 10\n%%EndComments\n"
    b"0 0 moveto 20 10 lineto stroke showpage\n%%EOF\n"
)


def saved(kind: str, image: Image.Image = IMAGE, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(autouse=True)
def _default_limits() -> Iterator[None]:
    yield
    set_media_limits(MediaLimits())


@pytest.fixture
def nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"started {arguments}")

    for module, names in (
        (subprocess, ("Popen",)),
        (os, ("system", "fork", "posix_spawn", "execv", "execve")),
    ):
        for name in names:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, refuse)


def in_every_form(data: bytes, folder: Path, name: str) -> list[object]:
    path = folder / name
    path.write_bytes(data)
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    return [path, str(path), data, bytearray(data), uri]


READ = {
    "JPEG": [{}, {"progressive": True}], "PNG": [{}], "GIF": [{}], "BMP": [{}], "TIFF": [{}], "PPM": [{}],
    "WEBP": [{"lossless": True}], "AVIF": [{"quality": 90}], "MPO": [{}],
}  # fmt: skip


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("kind", READ)
def test_formats_of_the_list_are_read_in_every_form(kind: str, tmp_path: Path) -> None:
    if kind in ("WEBP", "AVIF") and kind.lower() not in features.get_supported_modules():
        pytest.skip(f"this Pillow reads no {kind}")
    for options in READ[kind]:
        data = saved(kind, **options)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        for form in in_every_form(data, tmp_path, "image.any"):
            np.testing.assert_array_equal(image_to_hwc_uint8(form), expected)
            np.testing.assert_array_equal(image_to_hwc_uint8(make_image_input(form).value), expected)  # type: ignore[arg-type]


UNREAD = ["ICO", "TGA", "DDS", "PCX", "SGI", "SPIDER", "XBM", "JPEG2000", "ICNS", "MSP", "DIB", "BLP"]


@pytest.mark.usefixtures("nothing_starts")
@pytest.mark.parametrize("kind", ["EPS", *UNREAD])
def test_other_formats_are_refused_in_every_form(kind: str, tmp_path: Path) -> None:
    if kind == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("this Pillow writes no JPEG 2000")
    mode = {"XBM": "1", "MSP": "1", "BLP": "P"}.get(kind, "RGB")
    data = EPS if kind == "EPS" else saved(kind, IMAGE.convert(mode))
    # The name and the type of the URI claim something else.
    for form in in_every_form(data, tmp_path, "image.png"):
        with pytest.raises(InputError, match=r"not an image in a format that is read \(JPEG, PNG, WebP, GIF"):
            make_image_input(form)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="not an image in a format that is read"):
            image_to_hwc_uint8(form)


@pytest.mark.usefixtures("nothing_starts")
def test_an_open_eps_file_is_not_read_for_the_caller() -> None:
    with pytest.raises(InputError, match="a EPS file that has not been read, expected one of JPEG"):
        make_image_input(Image.open(io.BytesIO(EPS)))
    with pytest.raises(InputError, match="a EPS file that has not been read"):
        image_to_hwc_uint8(Image.open(io.BytesIO(EPS)))
    icon = Image.open(io.BytesIO(saved("TGA")))
    with pytest.raises(InputError, match="a TGA file that has not been read"):
        make_image_input(icon)
    icon.load()
    np.testing.assert_array_equal(image_to_hwc_uint8(icon), RGB)


@pytest.mark.skipif(sys.platform != "linux", reason="counts processes in /proc")
def test_no_process_is_started_by_any_file() -> None:
    """In a process of its own, which hears of every fork and exec, those from C included."""
    code = f"""
import sys
events = []
sys.addaudithook(lambda event, args: events.append(event) if event.startswith(
    ("subprocess", "os.exec", "os.fork", "os.posix_spawn", "os.system", "os.spawn")) else None)
from executorch_mm import InputError, make_image_input
for data in ({EPS!r}, {saved("PNG")!r}, {saved("JPEG")!r}, b"GIF89a", b"%PDF-1.4"):
    try:
        make_image_input(data)
    except InputError:
        pass
import os
children = open(f"/proc/self/task/{{os.getpid()}}/children").read()
print(events, repr(children))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[] ''\n"


HEIC_HEADS = [b"heic", b"heix", b"hevc", b"mif1....heic", b"msf1....mif1hevc"]


@pytest.mark.parametrize("brands", HEIC_HEADS)
def test_heic_without_its_package_names_the_extra(brands: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    box = b"ftyp" + brands
    data = struct.pack(">I", len(box) + 4) + box + bytes(100)
    with pytest.raises(
        MissingDependencyError, match=r"HEIC needs the package 'pillow_heif'.*executorch_mm\[heic\]"
    ):
        load_image(data)


@pytest.mark.parametrize("value", [1, 3, 6, 8])
def test_heic_is_read_and_turned_once(value: int) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    from executorch_mm.preprocess.exif import orientation_block

    file = io.BytesIO()
    pillow_heif.from_pillow(IMAGE).save(file, quality=-1, chroma=444, exif=orientation_block(value))
    seen = pillow_heif.open_heif(io.BytesIO(file.getvalue())).to_pillow()  # libheif turns it
    result = image_to_hwc_uint8(file.getvalue())
    assert result.shape == ((32, 24, 3) if value > 4 else (24, 32, 3))
    np.testing.assert_array_equal(result, np.asarray(seen.convert("RGB")))


def test_a_general_brand_is_avif_where_the_file_says_so() -> None:
    if "avif" not in features.get_supported_modules():
        pytest.skip("this Pillow reads no AVIF")
    data = saved("AVIF")
    assert data[8:12] == b"avif"
    assert b"mif1" in data[16:40]
    general = data[:8] + b"mif1" + data[12:]
    np.testing.assert_array_equal(image_to_hwc_uint8(general), image_to_hwc_uint8(data))


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="expected a regular file"):
            load_image(path)
    with pytest.raises(InputError, match=r"Is a directory|expected a regular file"):
        load_image(tmp_path)
    name = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(name)).write_bytes(saved("PNG"))
    np.testing.assert_array_equal(image_to_hwc_uint8(os.fsdecode(name)), RGB)


@pytest.mark.parametrize(
    "uri", ["data:,\ud800", "data:;base64,\ud800", "data:;base64,ä", "data:image/png,%89PNG"]
)
def test_a_data_uri_that_is_no_image_is_an_input_error(uri: str) -> None:
    with pytest.raises(InputError):
        load_image(uri)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, colour_type: int, depth: int = 8) -> bytes:
    """A file that is right up to its pixels, which are missing."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))


def webp_of(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<II", 10, 0) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lossless_webp_of(width: int, height: int) -> bytes:
    body = b"WEBPVP8L" + struct.pack("<IBI", 20, 0x2F, (width - 1) | (height - 1) << 14) + bytes(20)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif_of(width: int, height: int) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame


def bmp_of(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 100, 0, 0, 54) + header + bytes(46)


def tiff_of(width: int, height: int, *more: tuple[int, int]) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1, **dict(more)}
    if 322 not in tags:
        tags |= {273: 200, 278: height, 279: 10}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return (b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)).ljust(210, b"\0")


LA, RGB_TYPE, GREY = 4, 2, 0
EDGE, PIXELS, BYTES = "65536 pixels along an edge", "178956970 pixels", "1073741824 bytes"


TOO_MUCH = [
        (png_of(100_000, 1, GREY), EDGE),
        (png_of(1, 2**31 - 1, GREY, 1), EDGE),
        (png_of(2**31 - 1, 2**31 - 1, RGB_TYPE), "pixels"),
        (png_of(13_000, 13_000, LA), BYTES),
        (png_of(13_000, 13_000, RGB_TYPE), BYTES),
        (png_of(13_000, 13_000, GREY, 16), "damaged|bytes"),  # would fit where Pillow keeps 2 bytes a pixel
        (png_of(13_378, 13_378, GREY), PIXELS),
        (b"P4\n65536 65536\n", "pixels"),
        (b"P3\n6000 6000\n255\n", BYTES),  # read in Python, with much memory
        (b"P5\n13000 13000\n100\n", BYTES),
        (webp_of(16_000, 16_000), "pixels"),
        (webp_of(9_000, 9_000), BYTES),
        (webp_of(2**24, 3), EDGE),
        (lossless_webp_of(9_000, 9_000), BYTES),
        (gif_of(65_535, 65_535), "pixels"),
        (bmp_of(13_000, 13_000), BYTES),
        (bmp_of(2**31 - 1, 1), EDGE),
        (tiff_of(13_000, 13_000, (258, 32), (339, 3)), BYTES),
        (tiff_of(10, 10, (322, 2**24), (323, 2**24), (324, 200), (325, 10)), "pixels|edge"),
        (tiff_of(10, 10, (322, 65_536), (323, 2_200), (324, 200), (325, 10), (258, 32), (339, 3)), BYTES),
]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "limit"), TOO_MUCH, ids=lambda value: value[:4] if isinstance(value, bytes) else ""
)
def test_what_asks_for_too_much_is_refused(data: bytes, limit: str) -> None:
    with pytest.raises(InputError, match=limit):
        image_to_hwc_uint8(data)
    with pytest.raises(InputError, match=limit):
        make_image_input(data)


# Reads files, each in base64 on a line of standard input; prints how many bytes the process has grown by.
MEASURE = """
import base64, resource, sys
from PIL import Image
from executorch_mm import InputError
from executorch_mm.preprocess import image_to_hwc_uint8, image_files
files = [base64.b64decode(line) for line in sys.stdin]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in files:
    try:
        image_to_hwc_uint8(data)
    except InputError:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def grown_bytes(*files: bytes) -> int:
    lines = b"\n".join(base64.b64encode(data) for data in files)
    done = subprocess.run([sys.executable, "-c", MEASURE], input=lines, capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in kilobytes")
def test_what_is_refused_takes_no_memory() -> None:
    files = [data for data, limit in TOO_MUCH if "damaged" not in limit]
    assert grown_bytes(*files) < 40_000_000


BIG = Image.fromarray(np.tile(RGB, (100, 75, 1)))  # 2400 x 2400


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss in kilobytes")
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
        ("JPEG", "CMYK", {"progressive": True}),
        ("PNG", "RGB", {"compress_level": 1}),
        ("PNG", "LA", {"compress_level": 1}),
        ("PNG", "P", {"compress_level": 1}),
        ("WEBP", "RGB", {"method": 0}),
        ("AVIF", "RGB", {"speed": 10, "subsampling": "4:4:4"}),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 2400}}),
        ("TIFF", "F", {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 2400}}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
    ],
)
def test_reading_takes_no_more_memory_than_the_limit_counts(
    kind: str, mode: str, options: dict[str, Any]
) -> None:
    if kind in ("WEBP", "AVIF") and kind.lower() not in features.get_supported_modules():
        pytest.skip(f"this Pillow reads no {kind}")
    data = saved(kind, BIG.convert(mode), **options)
    set_media_limits(MediaLimits(image_bytes=1))
    with pytest.raises(InputError) as caught:
        image_to_hwc_uint8(data)
    counted = int(re.findall(r"got (\d+) \(.* 2400 x 2400 pixels", str(caught.value))[0])
    strips = 25_000_000  # what is made RGB at a time, and allocators' slack
    assert grown_bytes(data) < counted + strips


def test_limits_are_raised_and_lowered_for_all_readers(tmp_path: Path) -> None:
    data = saved("PNG")
    set_media_limits(MediaLimits(image_edge=31))
    for form in in_every_form(data, tmp_path, "a.png"):
        with pytest.raises(
            InputError, match=r"at most 31 pixels along an edge, got 32 x 24; set_media_limits"
        ):
            image_to_hwc_uint8(form)
    with pytest.raises(InputError, match="31 pixels along an edge"):
        make_image_input(Image.open(io.BytesIO(data)))
    set_media_limits(MediaLimits(image_pixels=32 * 24 - 1))
    with pytest.raises(InputError, match="at most 767 pixels, got 32 x 24"):
        image_to_hwc_uint8(data)
    set_media_limits(MediaLimits(image_bytes=32 * 24 * 7 - 1))
    with pytest.raises(InputError, match="at most 5375 bytes, got 5376"):
        image_to_hwc_uint8(data)
    set_media_limits(MediaLimits(file_bytes=len(data) - 1))
    for form in in_every_form(data, tmp_path, "a.png"):
        with pytest.raises(InputError, match=f"at most {len(data) - 1} bytes, got {len(data)}"):
            image_to_hwc_uint8(form)
    with pytest.raises(InputError, match="bytes, got"):
        make_image_input("https://images.example/", fetch=lambda url: data)
    set_media_limits(MediaLimits(32**9, 32, 32 * 24, 32 * 24 * 7))
    np.testing.assert_array_equal(image_to_hwc_uint8(data), RGB)


def test_a_wider_image_is_read_where_the_limit_is_raised() -> None:
    wide = Image.new("L", (70_000, 2), 7)
    with pytest.raises(InputError, match="got 70000 x 2"):
        image_to_hwc_uint8(saved("PNG", wide))
    set_media_limits(MediaLimits(image_edge=70_000))
    assert image_to_hwc_uint8(saved("PNG", wide)).shape == (2, 70_000, 3)


def processor(folder: Path, name: str, **keys: object) -> ImageProcessor:
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": name, **keys}))
    return ImageProcessor.from_pretrained(folder)


HUGE = 2**31 - 1


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("CLIPImageProcessor", {"crop_size": HUGE}),
        ("CLIPImageProcessor", {"crop_size": {"height": 30_000, "width": 30_000}}),
        ("CLIPImageProcessor", {"crop_size": 9_000}),
        ("CLIPImageProcessor", {"size": HUGE, "do_center_crop": False}),
        ("CLIPImageProcessor", {"size": HUGE, "resample": 0}),
        ("LlavaImageProcessor", {
            "size": {"longest_edge": HUGE, "shortest_edge": HUGE}, "do_center_crop": False,
        }),
        ("CLIPImageProcessor", {"do_pad": True, "pad_size": 60_000}),
        ("ViTImageProcessor", {"size": HUGE}),
        ("ViTImageProcessor", {"size": {"height": 1, "width": HUGE}}),
        ("ViTImageProcessor", {"size": 8_000}),
        ("Gemma3ImageProcessor", {
            "do_pan_and_scan": True, "pan_and_scan_min_crop_size": 1, "pan_and_scan_max_num_crops": HUGE,
            "pan_and_scan_min_ratio_to_activate": 0.1, "size": 2_000,
        }),
        ("LlavaNextImageProcessor", {"crop_size": 1, "size": 1, "image_grid_pinpoints": [[300, 300]]}),
        ("LlavaNextImageProcessor", {"image_grid_pinpoints": [[HUGE, HUGE]]}),
        ("LlavaNextImageProcessor", {"size": 9, "crop_size": 9_000, "image_grid_pinpoints": [[9, 9]]}),
        ("GotOcr2ImageProcessor", {"crop_to_patches": True, "size": 60_000}),
        ("GotOcr2ImageProcessor", {"crop_to_patches": True, "size": 3_000, "min_patches": 9}),
        ("Idefics3ImageProcessor", {"max_image_size": {"longest_edge": 1}}),
        ("Idefics3ImageProcessor", {"max_image_size": {"longest_edge": HUGE}}),
        ("Idefics3ImageProcessor", {"size": {"height": HUGE, "width": 9}}),
        ("Qwen2VLImageProcessor", {"min_pixels": HUGE, "max_pixels": HUGE}),
        ("Qwen2VLImageProcessor", {"temporal_patch_size": HUGE}),
        ("Qwen2VLImageProcessor", {"patch_size": HUGE}),
        ("Qwen2VLImageProcessor", {"patch_size": HUGE, "merge_size": HUGE}),
    ],
)  # fmt: skip
def test_sizes_of_a_hostile_file_are_refused_when_an_image_comes(
    name: str, keys: dict[str, object], tmp_path: Path
) -> None:
    made = processor(tmp_path, name, **keys)
    pixels = np.zeros((40, 900, 3), np.uint8)
    with pytest.raises(
        InputError, match=r"expected at most \d+ (pixels|bytes|tiles).*, got \d+.*set_media_limits"
    ):
        made(pixels, layout="HWC")
    assert made is not None


@pytest.mark.parametrize("value", [2**31, 10**400, -(10**400), 1e999])
@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("CLIPImageProcessor", "size"),
        ("CLIPImageProcessor", "crop_size"),
        ("CLIPImageProcessor", "resample"),
        ("Qwen2VLImageProcessor", "patch_size"),
        ("Qwen2VLImageProcessor", "max_pixels"),
        ("GotOcr2ImageProcessor", "max_patches"),
    ],
)
def test_numbers_beyond_any_image_are_refused_when_the_file_is_read(
    name: str, key: str, value: float, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=key):
        processor(tmp_path, name, **{key: value})


@pytest.mark.parametrize("key", ["rescale_factor", "image_mean", "image_std"])
def test_a_number_beyond_any_float_is_an_input_error(key: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=key):
        processor(tmp_path, "CLIPImageProcessor", **{key: 10**400})


def test_tiles_count_together(tmp_path: Path) -> None:
    made = processor(
        tmp_path, "LlavaNextImageProcessor", size=10, crop_size=10, image_grid_pinpoints=[[10, 20], [20, 20]]
    )
    pixels = np.zeros((40, 80, 3), np.uint8)
    needed = 3 * 10 * 10 * 24  # the small image and two tiles
    set_media_limits(MediaLimits(image_bytes=needed))
    assert made(pixels).shape == (3, 3, 10, 10)
    set_media_limits(MediaLimits(image_bytes=needed - 1))
    with pytest.raises(InputError, match=f"at most {needed - 1} bytes, got {needed} .*3 x 3 x 10 x 10"):
        made(pixels)
    set_media_limits(MediaLimits(image_tiles=1))
    with pytest.raises(InputError, match="at most 1 tiles, got 2"):
        made(pixels)


def test_resolutions_beyond_any_image_are_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image_grid_pinpoints"):
        processor(tmp_path, "LlavaNextImageProcessor", image_grid_pinpoints=[[10**400, 3]])


def test_a_search_for_grids_of_tiles_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_patches: expected at most 1024 tiles, got 2000000000"):
        processor(tmp_path, "GotOcr2ImageProcessor", crop_to_patches=True, max_patches=2_000_000_000)


def test_what_lies_between_the_two_passes_of_resizing_is_bounded() -> None:
    tall = np.zeros((65_000, 1, 3), np.uint8)
    with pytest.raises(InputError, match="got 60000 x 65000, made of 1 x 65000"):
        resize(tall, 1, 60_000, 2)
    assert resize(tall, 1, 50, 2).shape == (1, 50, 3)


def test_the_defaults_let_cameras_through() -> None:
    """108 megapixels from a phone, in one scan; the largest images of published processors."""
    limits = media_limits()
    assert limits.image_bytes >= 12_000 * 9_000 * (4 + 3)
    assert limits.image_bytes >= 16_384 * 28 * 28 * 24
    assert limits == MediaLimits()
