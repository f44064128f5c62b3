"""Attention over what an encoder has made, as operators that a runtime may give several windows at once.

`cross_attend(q, keys, values, scale)`: query [1, S, H, D], keys and values [1, T, H, D] to [1, S, H, D];
no token is masked. `cross_weights(q, keys, head, scale)`: how much the last token looks at each key with one
head, [1, 1, T]. Here are schemas, shapes and the meaning for one window; in a call with tokens of several
windows executorch_mm gives each token the keys and values of its own.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.library import Library, impl, register_fake

LIBRARY = Library("executorch_mm", "DEF")
ATTEND = "Tensor q, Tensor keys, Tensor values, float scale"
WEIGHTS = "Tensor q, Tensor keys, int head, float scale"
for name, arguments in (("cross_attend", ATTEND), ("cross_weights", WEIGHTS)):
    LIBRARY.define(f"{name}({arguments}) -> Tensor")
    LIBRARY.define(f"{name}.out({arguments}, *, Tensor(a!) out) -> Tensor(a!)")


@impl(LIBRARY, "cross_attend", "CompositeExplicitAutograd")
def cross_attend(q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    heads = [each.transpose(1, 2) for each in (q, keys, values)]
    return F.scaled_dot_product_attention(*heads, scale=scale).transpose(1, 2).contiguous()


@impl(LIBRARY, "cross_attend.out", "CompositeExplicitAutograd")
def cross_attend_out(q: Tensor, keys: Tensor, values: Tensor, scale: float, *, out: Tensor) -> Tensor:
    return out.copy_(cross_attend(q, keys, values, scale))


@register_fake("executorch_mm::cross_attend", lib=LIBRARY)
def _(q: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    del keys, values, scale
    return q.new_empty(q.shape)


@impl(LIBRARY, "cross_weights", "CompositeExplicitAutograd")
def cross_weights(q: Tensor, keys: Tensor, head: int, scale: float) -> Tensor:
    return (keys[:, :, head] @ q[:, -1, head, :, None] * scale).softmax(1).transpose(1, 2).contiguous()


@impl(LIBRARY, "cross_weights.out", "CompositeExplicitAutograd")
def cross_weights_out(q: Tensor, keys: Tensor, head: int, scale: float, *, out: Tensor) -> Tensor:
    return out.copy_(cross_weights(q, keys, head, scale))


@register_fake("executorch_mm::cross_weights", lib=LIBRARY)
def _(q: Tensor, keys: Tensor, head: int, scale: float) -> Tensor:
    del head, scale
    return q.new_empty(1, 1, keys.shape[1])
