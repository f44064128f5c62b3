"""Rows of a batch in columns: what Ray and Arrow have made of them is undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from executorch_mm.errors import InputError, shown

_INTEGERS = {
    *("max_tokens", "max_completion_tokens", "max_new_tokens", "min_new_tokens", "top_k", "seed"),
    *("no_repeat_ngram_size", "prompt_lookup_num_tokens", "num_assistant_tokens"),
}


def num_rows(batch: object) -> int:
    """How many rows there are.

    Raises:
        InputError: It is no batch of columns of one length.
    """
    if not isinstance(batch, Mapping) or not batch:
        raise InputError(f"batch: expected a mapping of columns, got {shown(batch)}")
    lengths = {name: len(column) for name, column in batch.items()}
    if len({*lengths.values()}) > 1:
        raise InputError(f"batch: expected columns of one length, got {lengths}")
    return next(iter(lengths.values()))


def plain(value: Any) -> Any:
    """A value of a cell as it was before Arrow: lists for arrays of objects, and no fields that are null."""
    if isinstance(value, np.ndarray) and value.dtype == object:
        return [plain(item) for item in value]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, np.generic):
        return value.item()
    return value


def sampling_params(value: object) -> dict[str, Any]:
    """Options of a row; integers, which are floats in a column where some are missing, are integers again.

    Raises:
        InputError: It is something else.
    """
    if value is None:
        return {}
    given = plain(value)
    if not isinstance(given, dict):
        raise InputError(f"sampling_params: expected a mapping, got {shown(value)}")
    for name in _INTEGERS & {*given}:
        if isinstance(given[name], float) and given[name].is_integer():
            given[name] = int(given[name])
    if given.get("top_k") == -1:  # as vLLM says all
        given["top_k"] = 0
    return given


def media(value: object) -> list[Any]:
    """The images or clips of a cell: one, several, or none.

    Args:
        value: An array of numbers, bytes, a path, a PIL image, a mapping, or a list of such.
    """
    if value is None:
        return []
    if (isinstance(value, np.ndarray) and value.dtype == object) or isinstance(value, (list, tuple)):
        return [item for item in value if item is not None]
    return [value]


def images(value: object) -> list[Any]:
    """The images of a cell, as in `media`; Arrow's lists of lists of numbers are arrays (H, W, C) again.

    Raises:
        InputError: Such lists have rows of several lengths.
    """
    levels = _levels(value)
    if levels in (2, 3):
        return [_dense(value, "image")]
    return [_dense(one, "image") for one in media(value)] if levels == 4 else media(value)


def clips(value: object, sampling_rate: object) -> list[tuple[Any, int | None]]:
    """The clips of a cell, each as `clip` reads it; a list of numbers is the samples of one."""
    if isinstance(value, (list, tuple)) and _levels(value) == 1:
        value = np.asarray(value, np.float32)
    return [clip(one, sampling_rate) for one in media(value)]


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object)


def _levels(value: Any) -> int:
    """Of lists that Arrow makes of numbers, the innermost of which may be an array; 0 of all else."""
    levels = 0
    while _is_list(value):
        if not len(value):
            return 0
        levels, value = levels + 1, value[0]
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return levels + 1
    return levels if isinstance(value, (int, float, np.number)) else 0


def _dense(value: Any, name: str) -> Any:
    def stacked(value: Any) -> Any:
        is_outer = _is_list(value) and len(value) and not isinstance(value[0], (int, float, np.number))
        return np.stack([stacked(one) for one in value]) if is_outer else np.asarray(value)

    try:
        made = stacked(value)
    except ValueError as error:
        raise InputError(f"{name}: expected lists of one length at each level: {error}") from error
    is_byte = made.dtype.kind in "iu" and made.size and made.min() >= 0 and made.max() <= 255
    return made.astype(np.uint8, copy=False) if is_byte else made


def clip(value: Any, sampling_rate: object) -> tuple[Any, int | None]:
    """A clip of a cell and its samples per second.

    Ray makes (1, frames) of a mono clip (frames,) that shares its column with stereo clips (2, frames).

    Args:
        value: Samples (frames,) or (channels, frames), the bytes of a file or its path; or a mapping with
            "array" and "sampling_rate", or "bytes" and "path", as data sets store audio.
        sampling_rate: Samples per second of samples; None where `value` says it.

    Raises:
        InputError: A rate is no whole number, or lists of samples have several lengths.
    """
    rate = _rate(sampling_rate)
    if isinstance(value, Mapping):
        if (samples := value.get("array")) is not None:
            samples = samples if _levels(samples) < 2 else _dense(samples, "audio")
            return clip(np.asarray(samples), value.get("sampling_rate", rate))
        return clip(file_of(value), rate)
    if isinstance(value, np.ndarray):
        mono = value[0] if value.ndim == 2 and len(value) == 1 else value
        return mono, rate
    return value, None


def _rate(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, (int, float, np.number)) and float(value).is_integer():
        return int(value)
    raise InputError(f"sampling_rate: expected samples per second, got {shown(value)}")


def file_of(value: Any) -> Any:
    """The bytes or the path in a mapping, as data sets store images; all else as it is."""
    if isinstance(value, Mapping):
        return value["bytes"] if value.get("bytes") is not None else value.get("path")
    return value


def cell(column: Sequence[Any] | None, index: int) -> Any:
    """A value of a column that may be missing; None also for what stands for null in a column of floats."""
    value = None if column is None else column[index]
    return None if isinstance(value, (float, np.floating)) and np.isnan(value) else value
