"""The same calls to upstream's own kernels, which live in a library that links torch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from op_reference import Array, quantize_rows
from oplib import OK, OpLibrary

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def llama():  # type: ignore[no-untyped-def]
    torch = pytest.importorskip("torch")
    pytest.importorskip("executorch.extension.llm.custom_ops.custom_ops")
    return torch.ops.llama


def tensor(array: Array):  # type: ignore[no-untyped-def]
    import torch

    return torch.from_numpy(array)


@pytest.mark.parametrize("seed", range(40))
def test_custom_sdpa(ops: OpLibrary, llama, seed: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    tokens, start_pos = int(rng.choice([1, 1, 3, 40, 200])), int(rng.integers(0, 700))
    kv_heads, group, size = (
        int(rng.integers(1, 4)),
        int(rng.integers(1, 5)),
        int(rng.choice([16, 40, 64, 128])),
    )
    keys = start_pos + tokens + 4
    q = rng.standard_normal((1, tokens, kv_heads * group, size)).astype(np.float32)
    k, v = rng.standard_normal((2, 1, keys, kv_heads, size)).astype(np.float32)
    mask = None
    if seed % 3 == 2:
        mask = np.where(rng.random((tokens, keys)) < 0.5, -np.inf, 0).astype(np.float32)
        mask[:, 0] = 0
    causal = seed % 3 == 0
    out = np.zeros_like(q)
    assert ops.call("llama::custom_sdpa.out", [q, k, v, start_pos, mask, 0.0, causal, None, out]).code == OK
    theirs = llama.custom_sdpa(
        tensor(q), tensor(k), tensor(v), start_pos, None if mask is None else tensor(mask), 0.0, causal
    )
    np.testing.assert_allclose(out, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_custom_quantized_sdpa(ops: OpLibrary, llama, seed: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    tokens, start_pos = int(rng.choice([1, 3, 30])), int(rng.integers(0, 300))
    (q, qz, qs), (k, kz, ks), (v, vz, vs) = (
        quantize_rows(rng.standard_normal((1, heads, length, 64)))
        for heads, length in ((6, tokens), (2, start_pos + tokens), (2, start_pos + tokens))
    )
    out = np.zeros(q.shape, np.float32)
    arguments = [q, k, v, start_pos, None, 0.0, False, None, qz, qs, kz, ks, vz, vs, True]
    assert ops.call("llama::custom_quantized_sdpa.out", [*arguments, out]).code == OK
    theirs = llama.custom_quantized_sdpa(*[tensor(a) if isinstance(a, np.ndarray) else a for a in arguments])
    np.testing.assert_allclose(out, theirs.numpy(), atol=2e-4)


@pytest.mark.parametrize("size", [8, 64, 128, 56, 448])
def test_fast_hadamard_transform(ops: OpLibrary, llama, size: int) -> None:  # type: ignore[no-untyped-def]
    mat = np.random.default_rng(size).standard_normal((3, size)).astype(np.float32)
    out = np.zeros_like(mat)
    assert ops.call("llama::fast_hadamard_transform.out", [mat, out]).code == OK
    np.testing.assert_allclose(out, llama.fast_hadamard_transform(tensor(mat)).numpy(), atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 7, 100])
@pytest.mark.parametrize("scalar", [False, True])
def test_gated_delta_rule(ops: OpLibrary, llama, tokens: int, scalar: bool) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(tokens)
    f32 = np.float32
    q = rng.standard_normal((1, 4, tokens, 32)).astype(f32)
    k = rng.standard_normal((1, 2, tokens, 32)).astype(f32) / f32(math.sqrt(32))
    v = rng.standard_normal((1, 2, tokens, 48)).astype(f32)
    decay = rng.uniform(0.7, 1, (1, 2, tokens) if scalar else k.shape).astype(f32)
    beta = rng.uniform(0, 1, (1, 2, tokens)).astype(f32)
    state = rng.standard_normal((1, 2, 32, 48)).astype(f32)
    out, final = np.zeros((1, 4, tokens, 48), f32), np.zeros_like(state)
    assert ops.call("llama::gated_delta_rule.out", [q, k, v, decay, beta, state, out, final, None]).code == OK
    theirs = llama.gated_delta_rule(*(tensor(x) for x in (q, k, v, decay, beta, state)))
    np.testing.assert_allclose(out, theirs[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(final, theirs[1].numpy(), atol=1e-4)


def test_update_cache(ops: OpLibrary, llama) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    value = rng.standard_normal((2, 3, 2, 8)).astype(np.float32)
    ours = rng.standard_normal((2, 9, 2, 8)).astype(np.float32)
    theirs = ours.copy()
    assert ops.call("llama::update_cache.out", [value, ours, 4, np.zeros(1, np.float32)]).code == OK
    llama.update_cache(tensor(value), tensor(theirs), 4)
    np.testing.assert_array_equal(ours, theirs)
