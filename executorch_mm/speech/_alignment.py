"""Times of tokens from what the decoder's alignment heads look at, as in Whisper's reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_Matrix = npt.NDArray[np.floating]

# Frames that the median is taken of, as in Whisper's reference.
_FILTER = 7


def token_starts(rows: Sequence[npt.NDArray[np.float32]], num_frames: int) -> list[int]:
    """The frame of the encoder at which each token begins; they do not fall.

    Args:
        rows: Of each token (heads, frames): how much it looks at each frame.
        num_frames: Of the audio in the window; the others are left out.
    """
    weights = np.stack(rows, axis=1)[..., : max(num_frames, 1)]  # (heads, tokens, frames)
    spread = weights.std(axis=1, keepdims=True)
    spread[spread == 0] = 1
    sharpened = _median((weights - weights.mean(axis=1, keepdims=True)) / spread)
    path = warping_path(-sharpened.mean(axis=0, dtype=np.float32).astype(np.float64))
    starts: dict[int, int] = {}
    for token, frame in path:
        starts.setdefault(token, frame)
    return [starts[token] for token in range(len(rows))]


def warping_path(costs: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """Dynamic time warping: the cheapest way from the first corner of a matrix to the last.

    Each step goes on in one of the two directions or in both; where none is cheaper than both others, in the
    second.

    Args:
        costs: (tokens, frames)

    Returns:
        Pairs (token, frame), in order.
    """
    num_tokens, num_frames = costs.shape
    # By diagonals, of which each hangs on the two before alone. Row 0 stands before the first token.
    steps = np.empty((num_tokens + 1, num_frames + 1), np.int8)
    before = np.full(num_tokens + 1, np.inf, np.float32)
    before[0] = 0
    last = np.full(num_tokens + 1, np.inf, np.float32)
    for diagonal in range(2, num_tokens + num_frames + 1):
        low, high = max(1, diagonal - num_frames), min(num_tokens, diagonal - 1)
        tokens = np.arange(low, high + 1)
        both, token, frame = before[low - 1 : high], last[low - 1 : high], last[low : high + 1]
        step = np.where((both < token) & (both < frame), 0, np.where((token < both) & (token < frame), 1, 2))
        cheapest = np.choose(step, (both, token, frame))
        made = np.full(num_tokens + 1, np.inf, np.float32)
        made[low : high + 1] = costs[tokens - 1, diagonal - tokens - 1] + cheapest
        steps[tokens, diagonal - tokens] = step
        before, last = last, made
    path = []
    token_at, frame_at = num_tokens, num_frames
    while token_at > 0 and frame_at > 0:
        path.append((token_at - 1, frame_at - 1))
        taken = steps[token_at, frame_at]
        token_at -= int(taken != 2)
        frame_at -= int(taken != 1)
    # Along an edge there is one way.
    path += [(token, 0) for token in range(token_at - 1, -1, -1)]
    path += [(0, frame) for frame in range(frame_at - 1, -1, -1)]
    return path[::-1]


def _median(values: _Matrix) -> _Matrix:
    """Over the last axis, mirrored at its ends; itself where it is too short for that."""
    half = _FILTER // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    around = np.lib.stride_tricks.sliding_window_view(padded, _FILTER, axis=-1)
    return np.sort(around, axis=-1)[..., half]
