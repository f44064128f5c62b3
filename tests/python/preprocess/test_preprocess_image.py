"""The image processor against each step written out by hand, and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from executorch_mm.errors import InputError
from executorch_mm.preprocess import ImageConfig, ImageProcessor, Normalize, image_to_hwc_uint8, open_image
from executorch_mm.preprocess.resample import resize
from executorch_mm.preprocess.steps import EdgeLimits, Resize, Within, centre_crop, resized_size

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
CLIP_336 = {
    "crop_size": {"height": 336, "width": 336},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": CLIP_MEAN,
    "image_processor_type": "CLIPImageProcessor",
    "image_std": CLIP_STD,
    "processor_class": "LlavaProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 336},
}
SIGLIP = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "SiglipImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"height": 224, "width": 224},
}
GEMMA3 = {
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_pan_and_scan": None,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Gemma3ImageProcessor",
    "image_seq_length": 256,
    "image_std": [0.5, 0.5, 0.5],
    "pan_and_scan_max_num_crops": None,
    "processor_class": "Gemma3Processor",
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 896, "width": 896},
}


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def processor_of(tmp_path: Path, content: object) -> ImageProcessor:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    return ImageProcessor.from_pretrained(tmp_path)


def by_hand(pixels: np.ndarray, content: dict[str, Any]) -> np.ndarray:
    """The steps one after another, in float64, with loops where a formula could hide a mistake."""
    image = Image.fromarray(pixels)
    if content.get("do_resize"):
        size = content["size"]
        if "shortest_edge" in size:
            short, (width, height) = size["shortest_edge"], image.size
            scale_to = (
                (short, int(short * height / width))
                if width <= height
                else (int(short * width / height), short)
            )
        else:
            scale_to = (size["width"], size["height"])
        # In two calls, since Pillow 13 may begin with the rows in one.
        image = image.resize((scale_to[0], image.height), resample=content["resample"])
        image = image.resize(scale_to, resample=content["resample"])
    pixels = np.asarray(image)
    if content.get("do_center_crop"):
        height, width = content["crop_size"]["height"], content["crop_size"]["width"]
        cropped = np.zeros((height, width, 3))
        # Where the crop's first row lies in the image; HF pads with ceil(missing / 2) zeros first.
        top = (
            (pixels.shape[0] - height) // 2
            if pixels.shape[0] >= height
            else -math.ceil((height - pixels.shape[0]) / 2)
        )
        left = (
            (pixels.shape[1] - width) // 2
            if pixels.shape[1] >= width
            else -math.ceil((width - pixels.shape[1]) / 2)
        )
        for y in range(height):
            for x in range(width):
                if 0 <= top + y < pixels.shape[0] and 0 <= left + x < pixels.shape[1]:
                    cropped[y, x] = pixels[top + y, left + x]
        pixels = cropped
    values = pixels.astype(np.float64)
    if content.get("do_rescale"):
        values = values * content["rescale_factor"]
    if content.get("do_normalize"):
        for channel in range(3):
            values[..., channel] -= content["image_mean"][channel]
            values[..., channel] /= content["image_std"][channel]
    return values.transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(37, 61), (480, 640), (336, 336), (700, 90), (1, 1), (1, 40)])
@pytest.mark.parametrize("content", [CLIP_336, SIGLIP, GEMMA3], ids=["clip", "siglip", "gemma3"])
def test_published_configurations_give_what_the_steps_by_hand_give(
    content: dict[str, Any], size: tuple[int, int], tmp_path: Path
) -> None:
    pixels = noise(*size)
    result = processor_of(tmp_path, content)(pixels, layout="HWC")
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    side = content["size"].get("shortest_edge") or content["size"]["height"]
    assert result.shape == (3, side, side)
    np.testing.assert_allclose(result, by_hand(pixels, content), rtol=0, atol=2e-6)


@pytest.mark.parametrize("image", [(5, 4), (4, 5), (3, 3), (2, 9), (9, 2), (6, 7)])
@pytest.mark.parametrize("crop", [(3, 3), (4, 4), (5, 2), (8, 8), (1, 1)])
def test_centre_crop_cuts_and_pads_as_hugging_face_does(
    image: tuple[int, int], crop: tuple[int, int]
) -> None:
    pixels = noise(*image)
    content = {"do_center_crop": True, "crop_size": {"height": crop[0], "width": crop[1]}}
    np.testing.assert_array_equal(centre_crop(pixels, *crop).transpose(2, 0, 1), by_hand(pixels, content))


def test_centre_crop_loses_the_odd_row_at_the_bottom_and_pads_the_odd_row_at_the_top() -> None:
    column = np.arange(1, 6, dtype=np.uint8)[:, None, None]
    assert centre_crop(column, 2, 1).ravel().tolist() == [2, 3]
    assert centre_crop(column, 8, 1).ravel().tolist() == [0, 0, 1, 2, 3, 4, 5, 0]


@pytest.mark.parametrize(
    ("size", "target", "expected"),
    [
        ((480, 640), 224, (224, 298)),
        ((640, 480), 224, (298, 224)),
        ((10, 10), 224, (224, 224)),
        ((1, 4000), 2, (2, 8000)),
        ((7, 3), (20, 10), (20, 10)),
        ((480, 640), EdgeLimits(224, 400), (224, 298)),
        ((100, 1000), EdgeLimits(224, 400), (40, 400)),
        ((1000, 100), EdgeLimits(224, 400), (400, 40)),
        ((480, 640), Within(100, 100), (75, 100)),
        ((20, 10), Within(100, 100), (100, 50)),
    ],
)
def test_resized_size_keeps_the_aspect_ratio_unless_both_edges_are_given(
    size: tuple[int, int], target: Resize, expected: tuple[int, int]
) -> None:
    assert resized_size(size, target) == expected


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("resample", range(6))
def test_resizing_is_pillows_bit_for_bit(resample: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width, rows, columns = (int(edge) for edge in rng.integers(1, 40 if seed % 2 else 300, 4))
    pixels = noise(height, width, seed=seed)
    pillow = Image.fromarray(pixels).resize((columns, height), resample).resize((columns, rows), resample)
    result = resize(pixels, rows, columns, resample)
    np.testing.assert_array_equal(result, np.asarray(pillow))
    crop = (int(rng.integers(1, rows + 1)), int(rng.integers(1, columns + 1)))
    top, left = (rows - crop[0]) // 2, (columns - crop[1]) // 2
    part = result[top : top + crop[0], left : left + crop[1]]
    np.testing.assert_array_equal(resize(pixels, rows, columns, resample, crop), part)


def test_the_middle_of_a_huge_result_needs_no_more_memory_than_itself() -> None:
    thin = noise(1, 4000)
    tracemalloc.start()
    middle = resize(thin, 224, 896_000, 3, (224, 224))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10_000_000
    assert set(map(tuple, middle[0])) <= set(map(tuple, middle[100]))
    with pytest.raises(InputError, match="got 896000 x 224, made of 4000 x 1"):
        resize(thin, 224, 896_000, 3)


def test_padding_to_a_square_does_not_make_a_huge_image_of_a_thin_one(tmp_path: Path) -> None:
    processor = processor_of(tmp_path, {"image_processor_type": "LlavaImageProcessor", "do_pad": True})
    with pytest.raises(InputError, match="got 20000 x 20000, made of 20000 x 1"):
        processor(noise(1, 20_000), layout="HWC")


def test_internvl_cuts_tiles_although_its_file_says_no(tmp_path: Path) -> None:
    image_processor = {
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "size": 30,
        "crop_to_patches": False,
    }
    pixels = noise(40, 80)
    assert processor_of(tmp_path, image_processor)(pixels).shape == (3, 30, 30)
    named = {**image_processor, "processor_class": "InternVLProcessor"}
    assert processor_of(tmp_path, named)(pixels).shape == (3, 3, 30, 30)
    nested = {"image_processor": image_processor, "processor_class": "InternVLProcessor"}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert ImageProcessor.from_pretrained(tmp_path).prepare(pixels).grid == (1, 2)


def test_gemma3_scans_with_its_processors_numbers_where_the_file_has_none(tmp_path: Path) -> None:
    processor = processor_of(tmp_path, {**GEMMA3, "do_pan_and_scan": True, "size": 20})
    assert processor(noise(300, 599)).shape == (3, 3, 20, 20)  # 2 crops of 300 and the whole
    assert processor(noise(255, 599)).shape == (1, 3, 20, 20)  # crops below 256 pixels
    assert processor(noise(300, 359)).shape == (1, 3, 20, 20)  # a ratio below 1.2


def test_tiles_of_different_sizes_are_an_input_error(tmp_path: Path) -> None:
    scan = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 2, "pan_and_scan_max_num_crops": 4}
    content = {**GEMMA3, **scan, "pan_and_scan_min_ratio_to_activate": 1.2, "do_resize": False}
    with pytest.raises(InputError, match="tiles neither resized nor cropped to one size"):
        processor_of(tmp_path, content)(noise(10, 35))


def test_patches_need_a_size_that_fits_and_no_extreme_shape(tmp_path: Path) -> None:
    content = {"image_processor_type": "Qwen2VLImageProcessor"}
    with pytest.raises(InputError, match="a ratio of at most 200, got 4000 x 1"):
        processor_of(tmp_path, content)(noise(1, 4000), layout="HWC")
    unresized = processor_of(tmp_path, {**content, "do_resize": False})
    with pytest.raises(InputError, match="expected edges that 28 divides, got 57 x 56"):
        unresized(noise(56, 57))
    assert unresized(noise(56, 84)).shape == (24, 1176)
    with pytest.raises(InputError, match="frames: expected one size"):
        unresized.prepare_frames([noise(56, 84), noise(56, 56)])
    with pytest.raises(InputError, match="frames: expected at least one"):
        unresized.prepare_frames([])


def test_steps_that_are_switched_off_are_left_out(tmp_path: Path) -> None:
    pixels = noise(5, 7)
    off = {**CLIP_336, "do_resize": False, "do_center_crop": False, "do_normalize": False}
    scaled = processor_of(tmp_path, off)(pixels)
    np.testing.assert_allclose(scaled, pixels.transpose(2, 0, 1) / 255, atol=1e-7)
    raw = processor_of(tmp_path, {**off, "do_rescale": False})(pixels)
    np.testing.assert_array_equal(raw, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("resample", range(6))
def test_every_pillow_filter_can_be_asked_for(resample: int, tmp_path: Path) -> None:
    pixels = noise(11, 13)
    content = {**SIGLIP, "resample": resample, "size": {"height": 6, "width": 5}}
    expected = by_hand(pixels, content)
    np.testing.assert_allclose(processor_of(tmp_path, content)(pixels), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "changes", "resize", "crop"),
    [
        ("CLIPImageProcessor", {"size": 100}, 100, (224, 224)),
        ("CLIPFeatureExtractor", {"size": 100, "crop_size": 90}, 100, (90, 90)),
        ("CLIPImageProcessorFast", {}, 224, (224, 224)),
        ("ViTImageProcessor", {"size": 100}, (100, 100), None),
        ("ViTFeatureExtractor", {}, (224, 224), None),
        ("SiglipImageProcessorFast", {"size": [60, 50]}, (60, 50), None),
        ("LlavaImageProcessor", {"size": {"shortest_edge": 336}, "do_pad": False}, 336, (224, 224)),
        ("Gemma3ImageProcessorFast", {"size": {"height": 8, "width": 9, "longest_edge": None}}, (8, 9), None),
    ],
)
def test_each_class_reads_sizes_and_missing_keys_its_own_way(
    name: str, changes: dict[str, Any], resize: object, crop: object, tmp_path: Path
) -> None:
    config = processor_of(tmp_path, {"image_processor_type": name, **changes}).config
    assert isinstance(config, ImageConfig)
    assert (config.resize, config.crop) == (resize, crop)
    assert config.normalize.rescale_factor == 1 / 255
    assert config.normalize.mean_std is not None
    assert config.normalize.mean_std[0][0] == (CLIP_MEAN[0] if name.startswith(("CLIP", "Llava")) else 0.5)


def test_the_class_may_be_named_the_old_way_and_the_file_may_be_nested_or_given_itself(
    tmp_path: Path,
) -> None:
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 30}
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": old, "image_seq_length": 5})
    )
    for path in (tmp_path, str(tmp_path / "processor_config.json")):
        config = ImageProcessor.from_pretrained(path).config
        assert isinstance(config, ImageConfig)
        assert config.resize == 30


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"image_processor_type": "FuyuImageProcessor", "padding_mode": "constant", "patch_size": 14},
         ["image_processor_type FuyuImageProcessor is not supported", "padding_mode", "CLIPImageProcessor"]),
        ({"size": 3, "do_flip": True}, ["no image_processor_type is named", "do_flip"]),
        ({**CLIP_336, "image_grid_pinpoints": [[336, 672]]}, ["keys not understood: image_grid_pinpoints"]),
        ({**GEMMA3, "do_pan_and_scan": True, "pan_and_scan_min_crop_size": 0},
         ["pan_and_scan_min_crop_size: expected an int of 1 or more"]),
        ({**GEMMA3, "do_pad": True}, ["keys not understood: do_pad"]),
        ({**CLIP_336, "do_pad": True, "pad_size": {"shortest_edge": 3}}, ["pad_size: expected {height, wid"]),
        ({**CLIP_336, "data_format": "channels_last"}, ["keys not understood: data_format"]),
        ({**CLIP_336, "size": {"longest_edge": 3}}, ["size: expected {height, width}", "longest_edge"]),
        ({**CLIP_336, "size": {"shortest_edge": 0}}, ["size: expected"]),
        ({**CLIP_336, "size": {"shortest_edge": 9, "height": 12}}, ["size: expected"]),
        ({**CLIP_336, "crop_size": {"shortest_edge": 5}}, ["crop_size: expected"]),
        ({**SIGLIP, "do_center_crop": True}, ["crop_size: expected {height, width} or one length"]),
        ({**CLIP_336, "resample": 9}, ["resample: expected"]),
        ({**CLIP_336, "resample": True}, ["resample: expected"]),
        ({**CLIP_336, "do_resize": "yes"}, ["do_resize: expected true or false, got 'yes'"]),
        ({**CLIP_336, "image_mean": [0.5, 0.5]}, ["image_mean: expected one finite number or three"]),
        ({**CLIP_336, "image_std": [1, 0, 1]}, ["image_std: expected numbers other than 0"]),
        ({**CLIP_336, "rescale_factor": "x"}, ["rescale_factor: expected a finite number"]),
        ([1], ["expected a JSON object, got list"]),
        ({"image_processor_type": ["CLIPImageProcessor"]}, ["['CLIPImageProcessor'] is not supported"]),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_an_error_that_names_it(
    content: object, words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        processor_of(tmp_path, content)
    message = str(caught.value)
    assert "preprocessor_config.json" in message
    assert all(word in message for word in words), message


def test_a_missing_or_damaged_configuration_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected preprocessor_config\.json or processor_config\.json"):
        ImageProcessor.from_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"none\.json: No such file"):
        ImageProcessor.from_pretrained(tmp_path / "none.json")
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(InputError, match=r"preprocessor_config\.json: expected a JSON file"):
        ImageProcessor.from_pretrained(tmp_path)


class DLPackOnly:
    """An array of another library: nothing but `__dlpack__`."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


RGB = noise(6, 8)


@pytest.mark.parametrize(
    "image",
    [
        RGB,
        RGB.transpose(2, 0, 1),
        RGB[None],
        np.asfortranarray(RGB),
        np.ascontiguousarray(RGB[:, ::-1])[:, ::-1],
        np.dstack([RGB, np.full((6, 8), 255, np.uint8)]),
        RGB / 255,
        (RGB / 255).astype(np.float32).transpose(2, 0, 1),
        (RGB / 255).astype(np.float16),
        RGB.astype(np.uint16) * 257,
        DLPackOnly(RGB),
        Image.fromarray(RGB),
        Image.fromarray(np.dstack([RGB, np.full((6, 8), 255, np.uint8)])),
    ],
    ids=["hwc", "chw", "batch", "fortran", "negative strides", "rgba", "float64", "float32 chw", "float16",
         "uint16", "dlpack", "pil", "pil rgba"],
)  # fmt: skip
def test_every_kind_of_image_gives_the_same_bytes(image: object) -> None:
    result = image_to_hwc_uint8(image)
    assert (result.dtype, result.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(result, RGB)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "CMYK", "YCbCr", "HSV", "RGBX", "I;16", "I", "F"]
)
def test_every_pil_mode_becomes_rgb(mode: str) -> None:
    grey = np.full((4, 5), 255, np.uint8)
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 5), 65535, np.uint16))
    elif mode == "I":
        image = Image.fromarray(np.full((4, 5), 65535, np.int32))
    elif mode == "F":
        image = Image.fromarray(np.ones((4, 5), np.float32))
    elif mode == "PA":
        image = Image.fromarray(grey).convert("P").convert("PA")
    else:
        image = Image.fromarray(grey).convert("RGB").convert(mode)
    assert image.mode == mode
    np.testing.assert_array_equal(image_to_hwc_uint8(image), np.full((4, 5, 3), 255))


def test_a_mode_that_pillow_does_not_convert_is_an_input_error() -> None:
    with pytest.raises(InputError, match="of a mode that has no RGB"):
        image_to_hwc_uint8(Image.new("La", (2, 2)))


def test_transparent_pixels_are_blended_onto_white_in_every_form() -> None:
    rgba = np.array([[[0, 100, 200, 255], [0, 100, 200, 0], [0, 100, 200, 102]]], np.uint8)
    blended = [[[0, 100, 200], [255, 255, 255], [153, 193, 233]]]  # 102 / 255 = 0.4
    for image in (rgba, Image.fromarray(rgba), rgba / 255, (rgba / 255).astype(np.float32)):
        np.testing.assert_array_equal(image_to_hwc_uint8(image, layout="HWC"), blended)
    palette = Image.frombytes("P", (2, 1), b"\0\1")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.info["transparency"] = 1
    np.testing.assert_array_equal(image_to_hwc_uint8(palette), [[[10, 20, 30], [255, 255, 255]]])


def test_sixteen_bit_samples_are_scaled_not_cut_off(tmp_path: Path) -> None:
    samples = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    Image.fromarray(samples).save(tmp_path / "deep.png")
    expected = np.rint(samples / 257).astype(np.uint8)
    assert expected.ravel().tolist() == [0, 0, 1, 1, 128, 255]
    np.testing.assert_array_equal(image_to_hwc_uint8(open_image(tmp_path / "deep.png"))[..., 1], expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(orientation: int, tmp_path: Path) -> None:
    upright = noise(4, 6)
    # What a camera stores so that the transformation named by EXIF makes it upright again.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "photo.png", exif=exif)
    np.testing.assert_array_equal(image_to_hwc_uint8(open_image(tmp_path / "photo.png")), upright)


@pytest.mark.parametrize(
    ("shape", "layout", "height_width"),
    [
        ((5, 7, 3), None, (5, 7)),
        ((3, 5, 7), None, (5, 7)),
        ((3, 3, 3), None, (3, 3)),
        ((3, 5, 4), None, (5, 4)),
        ((3, 5, 4), "HWC", (3, 5)),
        ((4, 5, 3), "HWC", (4, 5)),
        ((5, 7), None, (5, 7)),
        ((1, 5, 7), None, (5, 7)),
        ((5, 7, 1), None, (5, 7)),
        ((5, 7, 4), None, (5, 7)),
    ],
)
def test_layout_rule(shape: tuple[int, ...], layout: Any, height_width: tuple[int, int]) -> None:
    assert image_to_hwc_uint8(np.zeros(shape, np.uint8), layout=layout).shape == (*height_width, 3)


def test_ambiguous_images_are_channels_first() -> None:
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    np.testing.assert_array_equal(image_to_hwc_uint8(image), image.transpose(1, 2, 0))
    np.testing.assert_array_equal(image_to_hwc_uint8(image, layout="HWC"), image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(9, np.uint8), "3-dimensional"),
        (np.zeros((2, 3, 4, 3), np.uint8), "3-dimensional"),
        (np.zeros((1, 1, 4, 4, 3), np.uint8), "3-dimensional"),
        (np.zeros((2, 5, 7), np.uint8), r"3 \(RGB\) or 4 \(RGBA\)"),
        (np.zeros((0, 7, 3), np.uint8), "at least one pixel"),
        (np.full((5, 7, 3), np.nan), "NaN"),
        (np.full((5, 7, 3), np.inf, np.float32), "infinity"),
        (np.full((5, 7, 3), 255.0), "floats in 0..1, got 255..255"),
        (np.full((5, 7, 3), -1, np.float32), "floats in 0..1, got -1..-1"),
        (np.zeros((5, 7, 3), np.int64), "uint8, uint16 or floats, got int64"),
        (np.zeros((5, 7, 3), np.complex64), "uint8, uint16 or floats"),
        ("image.png", r"image\.png: No such file"),
        (None, "got NoneType"),
        ([[1, 2], [3, 4]], "got list"),
    ],
)
def test_what_is_no_image_is_an_input_error(image: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        image_to_hwc_uint8(image)
    assert isinstance(caught.value, (RuntimeError, ValueError))


def test_an_unknown_layout_is_an_input_error() -> None:
    with pytest.raises(InputError, match="layout"):
        image_to_hwc_uint8(RGB, layout="NCHW")  # type: ignore[arg-type]


def test_the_caller_keeps_an_unchanged_image() -> None:
    image = RGB.copy()
    normalize = Normalize(mean_std=((0.5,) * 3, (0.5,) * 3))
    ImageProcessor(ImageConfig(resize=(4, 4), normalize=normalize))(image)
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "No such file"),
        ("text.png", b"this is not an image", "not an image in a format that is read"),
        ("empty.png", b"", "not an image"),
    ],
)
def test_a_file_that_is_no_image_is_an_error_that_names_it(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        open_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_an_image_cut_short_is_an_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="cut"):
        open_image(path)


def test_a_decompression_bomb_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="decompression bomb"):
        open_image(tmp_path / "bomb.png")


def test_importing_the_module_does_not_import_pillow() -> None:
    code = "import sys, executorch_mm.preprocess; print('PIL' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
