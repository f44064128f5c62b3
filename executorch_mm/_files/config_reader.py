"""The JSON files that describe preprocessing, read key by key.

A key that is not understood is an error: an image prepared almost as in training is answered almost right.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from executorch_mm.errors import InputError

Json: TypeAlias = Mapping[str, object]
Triple: TypeAlias = "tuple[float, float, float]"
Steps_co = TypeVar("Steps_co", covariant=True)

# Written into the files, without a bearing on the result.
_OTHER_KEYS = frozenset(
    """image_processor_type feature_extractor_type video_processor_type processor_class auto_map
    _valid_processor_keys image_seq_length return_tensors device disable_grouping input_data_format
    do_convert_rgb model_input_names""".split()  # noqa: SIM905
)
# A number of pixels, samples or the like: what floats hold exactly and no image or audio clip reaches.
LARGEST_LENGTH = 2**31 - 1


class ConfigReader:
    """Values by key, with a class's defaults and errors that say where they are.

    Args:
        content: The JSON object.
        defaults: What a key that is missing or null means.
        where: Starts the error messages.
    """

    def __init__(self, content: Json, defaults: Json, where: str) -> None:
        self._content = content
        self._defaults = defaults
        self.where = where

    def unknown_keys(self, understood: frozenset[str]) -> list[str]:
        """The keys that are neither understood nor switched off nor without a bearing on the result."""
        return sorted(
            key
            for key, value in self._content.items()
            if key not in understood
            and key not in _OTHER_KEYS
            and value is not None
            and value is not False
            and (key, value) != ("data_format", "channels_first")
        )

    def get(self, key: str) -> object:
        """The value, or the default."""
        value = self._content.get(key)
        return self._defaults.get(key) if value is None else value

    def wrong(self, key: str, expected: str) -> InputError:
        """An error about a key, to be raised."""
        return InputError(f"{self.where}: {key}: expected {expected}, got {self.get(key)!r}")

    def flag(self, key: str) -> bool:
        """True or false; false where neither the file nor the class says anything."""
        value = self.get(key)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.get(key)
        if not _is_number(value):
            raise self.wrong(key, "a finite number")
        return float(value)  # type: ignore[arg-type]  # _is_number has seen it

    def length(self, key: str, *, smallest: int = 1) -> int:
        """An int, such as a number of pixels."""
        value = self.get(key)
        if not is_length(value, smallest):
            raise self.wrong(key, f"an int of {smallest} or more and at most {LARGEST_LENGTH}")
        return int(value)  # type: ignore[call-overload, no-any-return]  # is_length has seen it

    def resample(self) -> int:
        """Pillow's number of a resampling filter."""
        value = self.get("resample")
        if not is_length(value, smallest=0) or value not in range(6):
            raise self.wrong("resample", "the number of one of Pillow's filters, 0 to 5")
        return int(value)  # type: ignore[call-overload, no-any-return]

    def lengths(self, key: str) -> dict[str, int] | None:
        """A size in its modern form, such as {"height": 3, "width": 4}, without its null entries.

        A single int stands for both edges, or for the shorter one where "default_to_square" is false; a list
        is height and width.

        Raises:
            InputError: It is none of these, or an entry is no positive int.
        """
        value = self.get(key)
        if value is None:
            return None
        if isinstance(value, dict):
            entries = {str(name): length for name, length in value.items() if length is not None}
        elif isinstance(value, (list, tuple)) and len(value) == 2:
            entries = {"height": value[0], "width": value[1]}
        elif key != "size" or self.flag("default_to_square"):
            entries = {"height": value, "width": value}
        else:
            entries = {"shortest_edge": value}
        if not entries or not all(is_length(length) for length in entries.values()):
            raise self.wrong(key, "{height, width}, {shortest_edge} or one length, in whole pixels")
        return entries

    def height_width(self, key: str) -> tuple[int, int]:
        """A size that names both edges.

        Returns:
            (height, width).
        """
        lengths = self.lengths(key)
        if lengths is None or set(lengths) != {"height", "width"}:
            raise self.wrong(key, "{height, width} or one length in pixels")
        return lengths["height"], lengths["width"]

    def edge(self, key: str, name: str) -> int:
        """A size that names one edge: "shortest_edge" or "longest_edge"."""
        lengths = self.lengths(key)
        if lengths is None or set(lengths) != {name}:
            raise self.wrong(key, f"{{{name}}} in pixels")
        return lengths[name]

    def triple(self, key: str) -> Triple:
        """A number for each of the three channels; one number counts for all."""
        value = self.get(key)
        numbers = [value] * 3 if _is_number(value) else value
        if not isinstance(numbers, (list, tuple)) or len(numbers) != 3 or not all(map(_is_number, numbers)):
            raise self.wrong(key, "one finite number or three")
        if key == "image_std" and 0 in numbers:
            raise self.wrong(key, "numbers other than 0")
        red, green, blue = (float(number) for number in numbers)
        return red, green, blue


@dataclass(frozen=True)
class Family(Generic[Steps_co]):
    """How the files of one processor class are read.

    Attributes:
        read: Makes steps of a file's values.
        defaults: What a key that is missing or null means.
        keys: The keys that `read` understands.
    """

    read: Callable[[ConfigReader], Steps_co]
    defaults: Json
    keys: frozenset[str]


def read_family(
    content: Json, name: object, families: Mapping[str, Family[Steps_co]], what: str, where: str
) -> Steps_co:
    """Reads a file as its processor class says.

    Args:
        content: The JSON object.
        name: The class that it names.
        families: The classes that are supported, by name.
        what: The kind of class, for error messages.
        where: Starts the error messages.

    Raises:
        InputError: The class is not among them, or there are keys that are not understood; both are named.
    """
    family = families.get(name) if isinstance(name, str) else None
    if family is not None:
        reader = ConfigReader(content, family.defaults, where)
        unknown = reader.unknown_keys(family.keys)
        if unknown:
            raise InputError(f"{where}: {name}: keys not understood: {', '.join(unknown)}")
        return family.read(reader)
    understood = frozenset[str]().union(*(family.keys for family in families.values()))
    unknown = ConfigReader(content, {}, where).unknown_keys(understood)
    keys = f"; keys not understood: {', '.join(unknown)}" if unknown else ""
    got = f"{what} {name} is not supported" if name is not None else f"no {what} is named"
    raise InputError(f"{where}: {got}, expected one of {', '.join(families)}{keys}")


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max  # an int beyond all floats makes isfinite() raise


def is_length(value: object, smallest: int = 1) -> bool:
    """Whether it is an int that something may be counted with."""
    return isinstance(value, int) and not isinstance(value, bool) and smallest <= value <= LARGEST_LENGTH
