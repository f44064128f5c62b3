"""preprocessor_config.json of the fixed-size image processors, checked key by key.

A key that is not understood is an error: a picture prepared almost as in training is answered almost right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from executorch_mm.errors import InputError

Json: TypeAlias = Mapping[str, object]

_HALF = (0.5, 0.5, 0.5)
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BILINEAR, _BICUBIC = 2, 3

# What a file that leaves a key out means, by processor class. An int size is the shorter edge for the CLIP
# family ("square": False) and both edges for the others.
_CLIP: Json = {
    "square": False,
    "size": 224,
    "resample": _BICUBIC,
    "do_center_crop": True,
    "crop_size": 224,
    "image_mean": _CLIP_MEAN,
    "image_std": _CLIP_STD,
}
_VIT: Json = {
    "square": True,
    "size": 224,
    "resample": _BILINEAR,
    "do_center_crop": False,
    "crop_size": None,
    "image_mean": _HALF,
    "image_std": _HALF,
}
_DEFAULTS: dict[str, Json] = {
    "CLIP": _CLIP,
    "Llava": _CLIP,
    "ViT": _VIT,
    "Siglip": {**_VIT, "resample": _BICUBIC},
    "Gemma3": _VIT,
}
_FILE_NAMES = ("preprocessor_config.json", "processor_config.json")
_CLASS_SUFFIXES = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")

_STEP_KEYS = frozenset(
    """do_convert_rgb do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize
    image_mean image_std default_to_square""".split()  # noqa: SIM905
)
# Written into the files, without a bearing on the pixels.
_OTHER_KEYS = frozenset(
    """image_processor_type feature_extractor_type processor_class auto_map _valid_processor_keys
    image_seq_length return_tensors device disable_grouping input_data_format pan_and_scan_min_crop_size
    pan_and_scan_max_num_crops
    pan_and_scan_min_ratio_to_activate""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class ImageConfig:
    """The steps of a fixed-size image processor, in this order; None leaves a step out.

    Attributes:
        resize: (height, width), or the length of the shorter edge, in pixels.
        resample: Pillow's number of the filter for `resize` (0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic,
            ...).
        crop: (height, width) of the centre crop, in pixels.
        rescale_factor: Multiplied with the bytes 0..255.
        mean_std: Mean and standard deviation of each of the three channels, after rescaling.
    """

    resize: tuple[int, int] | int | None = None
    resample: int = _BICUBIC
    crop: tuple[int, int] | None = None
    rescale_factor: float | None = 1 / 255
    mean_std: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None


def read_image_config(path: Path) -> ImageConfig:
    """Reads and checks a file; see `ImageProcessor.from_pretrained`."""
    file = path
    if path.is_dir():
        found = find_image_config(path)
        if found is None:
            raise InputError(f"{path}: expected {' or '.join(_FILE_NAMES)} in this folder")
        file = found
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{file}: expected a JSON file ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: expected a JSON object, got {type(content).__name__}")
    nested = content.get("image_processor")  # how processor_config.json keeps it
    return parse_image_config(nested if isinstance(nested, dict) else content, str(file))


def find_image_config(folder: Path) -> Path | None:
    """The file of a folder that describes its image processor, or None."""
    candidates = (folder / name for name in _FILE_NAMES)
    return next((file for file in candidates if file.is_file()), None)


def parse_image_config(content: Json, where: str) -> ImageConfig:
    """Turns the keys of an image processor into steps.

    Args:
        content: The JSON object.
        where: Starts the error messages.

    Raises:
        InputError: See `ImageProcessor.from_pretrained`.
    """
    unknown = sorted(key for key in content if not _is_understood(key, content[key]))
    keys = f"; keys not understood: {', '.join(unknown)}" if unknown else ""
    name = content.get("image_processor_type", content.get("feature_extractor_type"))
    if not isinstance(name, str):
        raise InputError(f"{where}: expected image_processor_type, one of {_supported()}{keys}")
    defaults = _DEFAULTS.get(_family(name))
    if defaults is None:
        raise InputError(f"{where}: image processor {name} is not supported, only {_supported()}{keys}")
    if unknown:
        raise InputError(f"{where}: {name}{keys}")
    return _Reader(content, defaults, where).read()


def _supported() -> str:
    return ", ".join(f"{family}ImageProcessor" for family in _DEFAULTS)


def _family(name: str) -> str:
    for suffix in _CLASS_SUFFIXES:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def _is_understood(key: str, value: object) -> bool:
    if key in _STEP_KEYS or key in _OTHER_KEYS or value is None or value is False:
        return True
    return key == "data_format" and value == "channels_first"


class _Reader:
    """Values by key, with the class's defaults and errors that say where they are."""

    def __init__(self, content: Json, defaults: Json, where: str) -> None:
        self._content = content
        self._defaults = defaults
        self._where = where

    def read(self) -> ImageConfig:
        return ImageConfig(
            resize=self._size("size") if self._flag("do_resize", True) else None,
            resample=self._resample(),
            crop=self._crop()
            if self._flag("do_center_crop", bool(self._defaults["do_center_crop"]))
            else None,
            rescale_factor=self._number("rescale_factor", 1 / 255)
            if self._flag("do_rescale", True)
            else None,
            mean_std=(self._triple("image_mean"), self._triple("image_std"))
            if self._flag("do_normalize", True)
            else None,
        )

    def _get(self, key: str) -> object:
        value = self._content.get(key)
        return self._defaults.get(key) if value is None else value

    def _wrong(self, key: str, expected: str) -> InputError:
        return InputError(f"{self._where}: {key}: expected {expected}, got {self._content.get(key)!r}")

    def _flag(self, key: str, default: bool) -> bool:
        value = self._content.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def _number(self, key: str, default: float) -> float:
        value = self._content.get(key)
        if value is None:
            return default
        if not _is_number(value):
            raise self._wrong(key, "a finite number")
        return float(value)  # type: ignore[arg-type]  # _is_number has seen it

    def _resample(self) -> int:
        value = self._get("resample")
        if not _is_length(value, smallest=0) or value not in range(6):
            raise self._wrong("resample", "the number of one of Pillow's filters, 0 to 5")
        return int(value)  # type: ignore[call-overload, no-any-return]

    def _size(self, key: str) -> tuple[int, int] | int:
        """(height, width), or the shorter edge."""
        value = self._get(key)
        if isinstance(value, dict):
            lengths = {name: length for name, length in value.items() if length is not None}
            if all(_is_length(length) for length in lengths.values()):
                if set(lengths) == {"height", "width"}:
                    return lengths["height"], lengths["width"]
                if set(lengths) == {"shortest_edge"}:
                    return int(lengths["shortest_edge"])
        elif _is_length(value):
            length = int(value)  # type: ignore[call-overload]
            square = self._flag("default_to_square", bool(self._defaults["square"])) or key == "crop_size"
            return (length, length) if square else length
        elif isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_length, value)):
            return int(value[0]), int(value[1])
        raise self._wrong(key, "{height, width}, {shortest_edge} or one length in pixels")

    def _crop(self) -> tuple[int, int]:
        if self._get("crop_size") is None:
            raise self._wrong("crop_size", "a size, since do_center_crop is true")
        size = self._size("crop_size")
        if isinstance(size, int):
            raise self._wrong("crop_size", "{height, width} or one length in pixels")
        return size

    def _triple(self, key: str) -> tuple[float, float, float]:
        value = self._get(key)
        numbers = [value] * 3 if _is_number(value) else value
        if not isinstance(numbers, (list, tuple)) or len(numbers) != 3 or not all(map(_is_number, numbers)):
            raise self._wrong(key, "one finite number or three")
        if key == "image_std" and 0 in numbers:
            raise self._wrong(key, "numbers other than 0")
        red, green, blue = (float(number) for number in numbers)
        return red, green, blue


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_length(value: object, smallest: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest
