"""Arguments of text encoders, checked before anything is run."""

from __future__ import annotations

from collections.abc import Sequence

from executorch_mm.errors import InputError, shown


def check_count(name: str, value: object, least: int = 1) -> int:
    """A whole number.

    Raises:
        InputError: It is something else, or less than `least`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name}: expected at least {least}, got {shown(value)}")
    return value


def check_text(name: str, value: object) -> str:
    """A text.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(value, str):
        raise InputError(f"{name}: expected a str, got {type(value).__name__}")
    return value


def listed(name: str, value: object, what: str) -> list[object]:
    """The items of a list.

    Args:
        name: Of the argument.
        value: The list.
        what: It is to hold, for the message.

    Raises:
        InputError: It is no list or other sequence, or a single text.
    """
    if isinstance(value, (str, bytes)) or not (isinstance(value, Sequence) or hasattr(value, "tolist")):
        raise InputError(f"{name}: expected a list of {what}, got {shown(value)}")
    found = value if isinstance(value, Sequence) else value.tolist()
    if not isinstance(found, Sequence):
        raise InputError(f"{name}: expected a list of {what}, got {shown(value)}")
    return list(found)
