"""Features of audio that comes bit by bit: the columns that the whole clip would have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from executorch_mm.errors import ContractError

Floats: TypeAlias = npt.NDArray[np.float32]
MakeFeatures: TypeAlias = "Callable[[Floats], Floats | None]"
"""Samples (n) to columns (1, bins, columns); None where it was stopped."""

_TRIED = 40  # columns that a preprocessor is tried with
_FARTHEST = 8  # columns that a sample may reach from its own; fewer than _LEAD
_CLOSE = 1e-3  # rounding may differ with the place in a clip
# Columns before those that are wanted: upstream's exports of NeMo's preprocessor take 0.1 s or more.
_LEAD = 10


def find_delay(make: MakeFeatures, hop: int, most_samples: int, most_columns: int) -> int:
    """Tries a preprocessor on a clip and parts of it.

    Args:
        make: Runs the preprocessor.
        hop: Samples from one column to the next.
        most_samples: That it takes.
        most_columns: That are wanted at a time.

    Returns:
        How many columns fewer than whole steps of samples are those of the clip whatever follows.

    Raises:
        ContractError: It makes columns of a part that are not those of the whole.
    """
    needed = (_TRIED + most_columns) * hop
    if most_samples < needed:
        raise ContractError(
            f"preprocessor: expected to take {needed} samples, for an encoder of chunks, got {most_samples}"
        )
    cut, end = _TRIED // 4, _TRIED * 3 // 4
    noise = np.random.default_rng(0).normal(0, 0.1, _TRIED * hop).astype(np.float32)
    made = [make(noise), make(noise[cut * hop :]), make(noise[: end * hop])]
    nothing = np.zeros((1, 1, 0), np.float32)
    whole, without_beginning, without_end = (nothing if one is None else one for one in made)
    count = without_end.shape[2]
    if whole.shape[2] - without_beginning.shape[2] == cut and 0 < count <= whole.shape[2]:
        before = _num_apart(whole[:, :, cut:], without_beginning)
        delay = end - count + _num_apart(whole[:, :, count - 1 :: -1], without_end[:, :, ::-1])
        if before <= _FARTHEST and delay <= _FARTHEST:
            return int(max(delay, 0))
    raise ContractError(
        f"preprocessor: expected a column every {hop} samples that depends on the audio around it alone, for "
        f"an encoder of chunks, got columns that change with audio {_FARTHEST} columns away: what is "
        "normalised over a clip (normalize 'per_feature') has no value before its end; streaming models are "
        "trained without (normalize 'NA')"
    )


def _num_apart(one: Floats, other: Floats) -> int:
    """The first columns, up to the last that differs."""
    differs = (np.abs(one - other) > _CLOSE * np.maximum(1, np.abs(one))).any(axis=(0, 1))
    return int(np.flatnonzero(differs)[-1]) + 1 if differs.any() else 0


class FeatureStream:
    """Makes the columns of one stream, in pieces of the same place and size however the audio comes.

    Args:
        hop: Samples from one column to the next.
        delay: From `find_delay`.
    """

    def __init__(self, hop: int, delay: int) -> None:
        self._hop, self._delay = hop, delay
        self._kept = np.zeros(0, np.float32)
        self._kept_from = 0  # its first sample's number
        self._done = 0  # columns that were given out

    @property
    def _end(self) -> int:
        return self._kept_from + len(self._kept)

    @property
    def num_ready(self) -> int:
        """Columns that are those of the clip whatever follows."""
        return max(0, self._end // self._hop - self._delay - self._done)

    def push(self, samples: Floats) -> None:
        """Adds audio."""
        self._kept = np.concatenate([self._kept, samples])

    def take(self, make: MakeFeatures, count: int | None) -> Floats | None:
        """The next columns.

        Args:
            make: Runs the preprocessor.
            count: How many, of those that are ready; None for all that are left of a clip that has ended.

        Returns:
            (1, bins, count); None where it was stopped, and where nothing is left.
        """
        first = max(0, self._done - _LEAD)
        end = self._end if count is None else (self._done + count + self._delay) * self._hop
        begin = first * self._hop - self._kept_from
        window = self._kept[begin : end - self._kept_from]
        made = make(np.ascontiguousarray(window)) if len(window) else None
        if made is None:
            return None
        made = made[:, :, self._done - first :]
        made = made if count is None else made[:, :, :count]
        self._done += made.shape[2]
        keep = max(0, self._done - _LEAD) * self._hop
        if keep > self._kept_from:
            self._kept = self._kept[keep - self._kept_from :].copy()
            self._kept_from = keep
        return made
