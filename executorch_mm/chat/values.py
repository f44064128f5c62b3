"""Plain data of whatever messages, tools and options are made of: exact, or refused with its place."""

from __future__ import annotations

import dataclasses
import enum
from collections import UserString
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, Protocol, TypeAlias, cast

from executorch_mm.arrays import numpy as np
from executorch_mm.errors import InputError

Leaf: TypeAlias = Callable[[object], object]


class DataclassObject(Protocol):
    """An object of a dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class ModelObject(Protocol):
    """An object of a class of pydantic's, or what tells its fields as they do."""

    def model_dump(self) -> Any:
        """The fields."""
        ...


Fields: TypeAlias = Mapping[str, object] | DataclassObject | ModelObject

_MAX_DEPTH = 200  # far below where Python's own recursion ends
_EXPECTED = "text, a number, a bool, None, or lists and mappings of them"


def plain(value: object, where: str, leaf: Leaf | None = None) -> object:
    """A copy made of nothing but None, str, bool, int, float, list, tuple and dict.

    Members of enums are their values, subclasses of str, int and float what they are made of, scalars of
    numpy the Python number; dataclasses and pydantic's models (whatever has `model_dump`) are mappings of
    their fields. transformers takes them so too, but writes the name of a type where this is an error.

    Args:
        value: Of those kinds, nested at will.
        where: Its place, for errors.
        leaf: Stands in for what is of no such kind; without it, that is an error.

    Raises:
        InputError: Something in it is of another kind; the message names the place, as in
            `messages[2].content[0].text`.
    """
    try:
        return _copy(value, leaf or _refuse, 0)
    except _RefusedError as refused:
        raise InputError(f"{where}{''.join(reversed(refused.path))}: {refused.reason}") from None


def as_mapping(value: object, where: str) -> Mapping[object, object] | None:
    """The fields of a mapping, a dataclass or a pydantic model, none of them copied; None for all else.

    Args:
        value: Anything.
        where: Its place, for errors.

    Raises:
        InputError: An object cannot tell its fields.
    """
    try:
        fields = _fields(value)
    except _RefusedError as refused:
        raise InputError(f"{where}: {refused.reason}") from refused
    return fields if isinstance(fields, Mapping) else None


def is_list(value: object) -> bool:
    """Whether it is a sequence of values: not a text, bytes, or numbers that nobody has written down."""
    others = (str, UserString, bytes, bytearray, memoryview, range)
    return isinstance(value, Sequence) and not isinstance(value, others)


def name_of_kind(value: object) -> str:
    """A `leaf` for what nothing but its being there matters of: `<Image>` for an image."""
    if callable(value):
        _refuse(value)
    return f"<{type(value).__name__}>"


class _RefusedError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []  # innermost first


def _fields(value: object) -> object:
    """What an object of a dataclass or a pydantic model holds; the value itself for all else."""
    if isinstance(value, type):
        return value
    try:
        if dataclasses.is_dataclass(value):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        dump = getattr(value, "model_dump", None)
        return dump() if callable(dump) else value
    except Exception as error:  # whatever the object's own code raises
        raise _RefusedError(f"{type(value).__name__} does not tell its fields ({error})") from error


def _refuse(value: object) -> NoReturn:
    raise _RefusedError(f"expected {_EXPECTED}, got {type(value).__name__}")


def _copy(value: object, leaf: Leaf, depth: int) -> object:
    if value is None or type(value) in (str, bool, int, float):
        return value
    if depth > _MAX_DEPTH:
        raise _RefusedError(f"expected at most {_MAX_DEPTH} lists and mappings in each other")
    if (base := _base_of(value)) is not None:
        return base
    if isinstance(value, enum.Enum):
        return _copy(value.value, leaf, depth + 1)
    if is_list(value):
        values = cast("Sequence[object]", value)
        items = [_at(f"[{index}]", item, leaf, depth) for index, item in enumerate(values)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        return _copy_mapping(value, leaf, depth)
    fields = _fields(value)
    return leaf(value) if fields is value else _copy(fields, leaf, depth + 1)


def _base_of(value: object) -> str | int | float | None:
    """The text or number that an object is, of a class of its own; None where it is none."""
    # A member of an enum prints its name, so what it is made of is asked for by the base type.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, UserString):
        return value.data
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":  # no times
        number = value.item()
        return number if type(number) in (bool, int, float) else None
    return None


def _copy_mapping(fields: Mapping[object, object], leaf: Leaf, depth: int) -> dict[object, object]:
    copied: dict[object, object] = {}
    for key, item in fields.items():
        name = _copy(key, _refuse_key, depth + 1)
        if isinstance(name, (list, tuple, dict)):
            _refuse_key(key)
        if name in copied:
            raise _RefusedError(f"expected each key once, got {name!r} twice")
        copied[name] = _at(path_of(name), item, leaf, depth)
    return copied


def _refuse_key(key: object) -> NoReturn:
    raise _RefusedError(f"expected keys that are text or numbers, got {type(key).__name__}")


def _at(step: str, value: object, leaf: Leaf, depth: int) -> object:
    try:
        return _copy(value, leaf, depth + 1)
    except _RefusedError as refused:
        refused.path.append(step)
        raise


def path_of(key: object) -> str:
    """A key as a step of a place: `.name`, or `['a name']`."""
    return f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"
