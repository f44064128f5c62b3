"""What the operators compute, in float64 numpy, written from their documentation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def bfloat16_bits(values: Array) -> Array:
    """The bits of float32 values rounded to bfloat16 (nearest even), uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    nan = np.isnan(values)
    return np.where(nan, np.uint16(0x7FC0), rounded)


def from_bfloat16_bits(bits: Array) -> Array:
    """The float32 values of bfloat16 bits."""
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    start_pos: int = 0,
    mask: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Array:
    """Attention of q [B, S, Hq, D] to the cache k, v [B, Smax, Hkv, D]; float64 [B, S, Hq, D].

    Keys that a row may not attend to (by position, causality or a mask of -inf) are left out altogether.
    """
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    _, tokens, heads, size = q.shape
    group = heads // k.shape[2]
    scale = 1 / math.sqrt(size) if scale is None else scale
    keys = k.shape[1] if mask is not None else start_pos + tokens
    out = np.zeros(q.shape)
    with np.errstate(all="ignore"):
        for t in range(tokens):
            allowed = np.arange(keys)
            if causal:
                allowed = allowed[allowed <= start_pos + t]
            if mask is not None:
                allowed = allowed[~np.isneginf(mask[t])]
            if allowed.size == 0:
                continue
            kt = np.repeat(k[:, allowed], group, axis=2)  # [B, n, Hq, D]
            vt = np.repeat(v[:, allowed], group, axis=2)
            scores = np.einsum("bhd,bnhd->bhn", q[:, t], kt) * scale
            if mask is not None:
                scores = scores + mask[t, allowed].astype(np.float64)
            highest = scores.max(axis=-1, keepdims=True)
            weights = np.exp(scores - np.where(np.isneginf(highest), 0, highest))
            total = weights.sum(axis=-1, keepdims=True)
            mixed = np.einsum("bhn,bnhd->bhd", weights, vt)
            out[:, t] = np.where(total == 0, 0, mixed / np.where(total == 0, 1, total))
    return out


def quantize_rows(values: Array) -> tuple[Array, Array, Array]:
    """Int8 data, zero points and float32 scales of the rows; the latter two have a last axis of 1."""
    low = np.minimum(values.min(axis=-1, keepdims=True), 0)
    high = np.maximum(values.max(axis=-1, keepdims=True), 0)
    scales = np.maximum((high - low) / 255, 1e-6).astype(np.float32)
    zeros = np.clip(np.round(-128 - low / scales), -128, 127).astype(np.int8)
    data = np.clip(np.round(values / scales) + zeros, -128, 127).astype(np.int8)
    return data, zeros, scales


def dequantize(data: Array, zeros: Array, scales: Array) -> Array:
    """The float64 values that quantized rows stand for."""
    return (data.astype(np.float64) - zeros) * scales.astype(np.float64)


def gated_delta_rule(
    q: Array, k: Array, v: Array, decay: Array, beta: Array, state: Array
) -> tuple[Array, Array]:
    """The recurrence token by token: outputs [B, Hq, T, V] and the final state [B, Hkv, K, V], float64."""
    q, k, v, decay, beta, state = (np.asarray(x, np.float64) for x in (q, k, v, decay, beta, state))
    if decay.ndim == 3:
        decay = decay[..., None]
    group = q.shape[1] // k.shape[1]
    out = np.zeros((*q.shape[:3], v.shape[3]))
    for t in range(q.shape[2]):
        state = state * decay[:, :, t, :, None]
        predicted = np.einsum("bhkv,bhk->bhv", state, k[:, :, t])
        delta = beta[:, :, t, None] * (v[:, :, t] - predicted)
        state = state + k[:, :, t, :, None] * delta[:, :, None, :]
        out[:, :, t] = np.einsum("bhkv,bhk->bhv", np.repeat(state, group, axis=1), q[:, :, t])
    return out, state


def hadamard(size: int) -> Array:
    """The matrix of the transform of 2^k or 28 * 2^k numbers; the factor of order 28 is not normalized."""
    if size % 28 == 0:
        return np.kron(williamson28(), hadamard(size // 28))
    matrix = np.ones((1, 1))
    while matrix.shape[0] < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / math.sqrt(size)


def williamson28() -> Array:
    """The Hadamard matrix of order 28 of the SpinQuant exports."""

    def circulant(plus: set[int]) -> Array:
        row = np.array([1.0 if i in plus else -1.0 for i in range(7)])
        return np.array([np.roll(row, shift) for shift in range(7)])

    a, b, c, d = (circulant(plus) for plus in ({0}, {0, 1, 6}, {0, 2, 5}, {0, 3, 4}))
    return np.block([[a, b, c, d], [-b, a, -d, c], [-c, d, a, -b], [-d, -c, b, a]])
