"""What kvcache::update_and_attend computes, in float64 numpy: sequences are lists of rows, forks copies."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from op_reference import Array, dequantize, quantize_rows


def stored(rows: Array, store: str) -> Array:
    """The float64 values of rows [heads, size] as a cache of that dtype keeps them."""
    if store == "int8":
        return dequantize(*quantize_rows(rows.astype(np.float32)))
    return rows.astype(store).astype(np.float64)


@dataclass
class Sequence:
    """The keys and values of one layer's positions, in order."""

    keys: list[Array] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)

    def fork(self, length: int) -> Sequence:
        return Sequence(self.keys[:length], self.values[:length])

    def step(
        self, q: Array, k: Array, v: Array, position: int, *, scale: float, window: int, store: str
    ) -> Array:
        """Writes k, v [Hkv, S, D] from `position` on and attends q [Hq, S, D] to them; float64 [Hq, S, Dv].

        A query sees the positions up to its own, with a window only the last `window` of them.
        """
        del self.keys[position:], self.values[position:]
        for token in range(k.shape[1]):
            self.keys.append(stored(k[:, token], store))
            self.values.append(stored(v[:, token], store))
        group = q.shape[0] // k.shape[0]
        out = np.zeros((q.shape[0], q.shape[1], v.shape[2]))
        for token in range(q.shape[1]):
            end = position + token + 1
            first = max(0, end - window) if window else 0
            keys = np.repeat(np.stack(self.keys[first:end]), group, axis=1)  # [n, Hq, D]
            values = np.repeat(np.stack(self.values[first:end]), group, axis=1)
            scores = np.einsum("hd,nhd->hn", q[:, token].astype(np.float64), keys) * scale
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            out[:, token] = np.einsum("hn,nhd->hd", weights, values)
        return out
