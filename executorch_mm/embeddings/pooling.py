"""One vector for each text out of the vectors of its tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from executorch_mm.errors import InputError, shown

FloatArray = npt.NDArray[np.float32]
Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


def check_pooling(name: object, where: str) -> Pooling:
    """A mode by its name.

    Raises:
        InputError: There is none of this name.
    """
    for mode in get_args(Pooling):
        if isinstance(name, str) and name == mode:
            found: Pooling = mode
            return found
    raise InputError(f"{where}: expected one of {', '.join(get_args(Pooling))}, got {shown(name)}")


def pool(hidden: FloatArray, mask: npt.NDArray[np.bool_], modes: tuple[Pooling, ...]) -> FloatArray:
    """The vectors of all modes, one behind the other.

    Args:
        hidden: float32 (batch, length, size), of rows that are filled up at their ends.
        mask: bool (batch, length), True for the tokens that count; at least one in each row.
        modes: As sentence-transformers names and computes them.

    Returns:
        float32 (batch, size times the number of modes).
    """
    return np.concatenate([_POOLINGS[mode](hidden, mask) for mode in modes], axis=1)


def _first(hidden: FloatArray, mask: npt.NDArray[np.bool_]) -> FloatArray:
    first: FloatArray = hidden[np.arange(len(hidden)), mask.argmax(axis=1)]
    return first


def _last(hidden: FloatArray, mask: npt.NDArray[np.bool_]) -> FloatArray:
    last: FloatArray = hidden[np.arange(len(hidden)), mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)]
    return last


def _max(hidden: FloatArray, mask: npt.NDArray[np.bool_]) -> FloatArray:
    largest: FloatArray = np.where(mask[..., np.newaxis], hidden, np.float32(-np.inf)).max(axis=1)
    return largest


def _weighted(hidden: FloatArray, weights: FloatArray, total: FloatArray) -> FloatArray:
    # a text of which nothing is left without its prompt has the vector 0
    summed: FloatArray = (weights[:, np.newaxis] @ hidden)[:, 0]
    mean: FloatArray = summed / np.maximum(total, np.float32(1e-9))[:, np.newaxis]
    return mean


def _mean(hidden: FloatArray, mask: npt.NDArray[np.bool_]) -> FloatArray:
    weights = mask.astype(np.float32)
    return _weighted(hidden, weights, weights.sum(axis=1))


def _mean_by_root(hidden: FloatArray, mask: npt.NDArray[np.bool_]) -> FloatArray:
    weights = mask.astype(np.float32)
    return _weighted(hidden, weights, np.sqrt(weights.sum(axis=1), dtype=np.float32))


def _mean_by_position(hidden: FloatArray, mask: npt.NDArray[np.bool_]) -> FloatArray:
    weights = mask.astype(np.float32) * np.arange(1, mask.shape[1] + 1, dtype=np.float32)
    return _weighted(hidden, weights, weights.sum(axis=1))


_POOLINGS: dict[Pooling, Callable[[FloatArray, npt.NDArray[np.bool_]], FloatArray]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_by_root,
    "weightedmean": _mean_by_position,
    "lasttoken": _last,
}
