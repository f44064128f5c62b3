"""Checks of single options of loading, most of which come back as the core takes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from executorch_mm._files.paths import checked_path
from executorch_mm.errors import InputError, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer


def optional_count(number: object, name: str) -> int | None:
    """A number of 1 or more that may be left out.

    Raises:
        InputError: It is none.
    """
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number < 2**62:
        raise InputError(f"{name}: expected 1 or more, or None, got {shown(number)}")
    return number


def optional_path(path: object, name: str) -> Path | None:
    """A path that may be left out; see `checked_path`."""
    return None if path is None else checked_path(path, name)


def data_paths(given: object) -> list[str]:
    """One path or several."""
    if isinstance(given, (str, os.PathLike)):
        given = [given]
    if not isinstance(given, (list, tuple)):
        raise InputError(f"data_path: expected a path or a list of them, got {shown(given)}")
    return [str(checked_path(path, "data_path")) for path in given]


def check_word(name: str, value: object, words: Sequence[str]) -> None:
    """Refuses what is none of the words."""
    if not isinstance(value, str) or value not in words:
        *others, last = map(repr, words)
        raise InputError(f"{name}: expected {', '.join(others)} or {last}, got {shown(value)}")


def path_or_bytes(model: str | os.PathLike[str] | Buffer) -> tuple[str, NDArray[np.uint8] | None]:
    """A model's path, "" for one in memory, whose bytes are the other."""
    if isinstance(model, (str, os.PathLike)):
        return str(checked_path(model, "model_path")), None
    try:
        view = memoryview(model)
    except (TypeError, ValueError, BufferError):
        got = type(model).__name__
        raise InputError(f"model_path: expected a path or an object with a buffer, got {got}") from None
    if not view.c_contiguous or view.nbytes == 0:
        raise InputError(f"model_path: expected contiguous memory, not empty, got {view.nbytes} bytes")
    import numpy as np  # here: models in files do without

    return "", np.frombuffer(view, np.uint8)


def num_bytes(name: str, given: object) -> int:
    """How much a cache may keep."""
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**62:
        raise InputError(f"{name}: expected a number of bytes, 0 or more, got {shown(given)}")
    return given


def thread_count(num_threads: object) -> int:
    """As the core takes it: 0 for "auto"."""
    if isinstance(num_threads, str) and num_threads == "auto":
        return 0
    if isinstance(num_threads, bool) or not isinstance(num_threads, int) or not 1 <= num_threads < 2**31:
        raise InputError(f"num_threads: expected 1 or more, or 'auto', got {shown(num_threads)}")
    return num_threads


def method_name(name: object) -> str:
    """As the core takes it: "" for None."""
    if name is None:
        return ""
    if not isinstance(name, str) or not name or "\0" in name or not name.isprintable():
        raise InputError(f"method: expected a method's name, or None, got {shown(name)}")
    return name
