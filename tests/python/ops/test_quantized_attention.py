"""custom_quantized_sdpa and sdpa_with_kv_cache against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from op_reference import Array, attention, dequantize, quantize_rows
from oplib import OK, OpLibrary

QUANTIZED = "llama::custom_quantized_sdpa.out"
WITH_CACHE = "llama::sdpa_with_kv_cache.out"
RANDOM = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def by_heads(x: Array) -> Array:
    """[B, S, H, D] as [B, H, S, D]."""
    return np.ascontiguousarray(x.swapaxes(1, 2))


@RANDOM
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.one_of(st.just(1), st.integers(1, 50)),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 6),
    size=st.one_of(st.sampled_from([16, 32, 64, 128]), st.integers(1, 70)),
    start_pos=st.one_of(st.integers(0, 60), st.integers(0, 1100)),
    mode=st.sampled_from(["causal", "full", "mask"]),
    heads_first=st.booleans(),
)
def test_int8_caches_match_the_reference_in_both_layouts(
    each_isa: OpLibrary,
    seed: int,
    tokens: int,
    kv_heads: int,
    group: int,
    size: int,
    start_pos: int,
    mode: str,
    heads_first: bool,
) -> None:
    rng = np.random.default_rng(seed)
    keys = start_pos + tokens + 2
    offset = rng.uniform(-1, 1)  # asymmetric data: zero points away from 0
    quantized = [
        quantize_rows(rng.standard_normal((2, length, heads, size)) + offset)
        for length, heads in ((tokens, kv_heads * group), (keys, kv_heads), (keys, kv_heads))
    ]
    values = [dequantize(*parts) for parts in quantized]
    mask = (
        np.where(rng.random((tokens, keys)) < 0.3, -np.inf, 0).astype(np.float32) if mode == "mask" else None
    )
    expected = attention(*values, start_pos=start_pos, mask=mask, causal=mode == "causal")
    if heads_first:
        quantized = [(by_heads(data), by_heads(zeros), by_heads(scales)) for data, zeros, scales in quantized]
        expected = by_heads(expected)
    (q, q_zeros, q_scales), (k, k_zeros, k_scales), (v, v_zeros, v_scales) = quantized
    out = np.full(q.shape, 7, np.float32)
    result = each_isa.call(
        QUANTIZED,
        [
            q,
            k,
            v,
            start_pos,
            mask,
            0.0,
            mode == "causal",
            None,
            q_zeros,
            q_scales,
            k_zeros,
            k_scales,
            v_zeros,
            v_scales,
            heads_first,
            out,
        ],
    )
    assert (result.code, result.log) == (OK, "")
    np.testing.assert_allclose(out, expected, atol=3e-5)


@RANDOM
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.sampled_from([1, 2, 3, 17, 40]),
    kv_heads=st.integers(1, 4),
    group=st.integers(1, 4),
    size=st.sampled_from([1, 7, 16, 33, 64, 128]),
    keys=st.sampled_from([40, 95, 96, 97, 193, 700]),  # about a block's length, and several parts
    value_scale=st.sampled_from([1e-42, 1e-20, 1.0, 1e30]),
    spread=st.sampled_from([0, 6]),
    mode=st.sampled_from(["causal", "mask"]),
)
def test_any_bytes_zero_points_and_scales_match_the_reference(
    each_isa: OpLibrary,
    seed: int,
    tokens: int,
    kv_heads: int,
    group: int,
    size: int,
    keys: int,
    value_scale: float,
    spread: int,
    mode: str,
) -> None:
    rng = np.random.default_rng(seed)

    def rows(length: int, heads: int, scale: float) -> tuple[Array, Array, Array]:
        shape = (1, length, heads)
        zeros = rng.choice(np.array([-128, -127, 0, 1, 127], np.int8), (*shape, 1))
        scales = (scale * 10.0 ** rng.uniform(-spread, 0, (*shape, 1))).astype(np.float32)
        return rng.integers(-128, 128, (*shape, size)).astype(np.int8), zeros, scales

    (q, q_zeros, q_scales) = rows(tokens, kv_heads * group, 0.02)
    (k, k_zeros, k_scales) = rows(keys, kv_heads, 0.02)
    (v, v_zeros, v_scales) = rows(keys, kv_heads, value_scale)
    values = [dequantize(q, q_zeros, q_scales), dequantize(k, k_zeros, k_scales)]
    values.append(dequantize(v, v_zeros, v_scales))
    start_pos = keys - tokens
    mask = None
    if mode == "mask":
        mask = np.where(rng.random((tokens, keys)) < 0.3, -np.inf, 0).astype(np.float32)
        mask[:, 0] = 0
        mask[:, 5] = -np.inf
        k_scales[:, 5] = v_scales[:, 5] = np.nan  # of a key that nobody looks at
    expected = attention(*values, start_pos=start_pos, mask=mask, causal=mode == "causal")
    out = np.full(q.shape, 7, np.float32)
    quantization = [q_zeros, q_scales, k_zeros, k_scales, v_zeros, v_scales]
    result = each_isa.call(
        QUANTIZED,
        [q, k, v, start_pos, mask, 0.0, mode == "causal", None, *quantization, False, out],
    )
    assert (result.code, result.log) == (OK, "")
    # Sums of `size` and `keys` numbers in float32. A denormal scale times a weight is rounded to a step of
    # 1.4e-45, half of which is multiplied by up to 255.
    scores = np.abs(values[0]).max() * np.abs(values[1]).max() * np.sqrt(size)
    largest = np.abs(values[2]).max()
    np.testing.assert_allclose(out, expected, rtol=0, atol=(1e-6 + 1e-6 * scores) * largest + 2e-43 * keys)


@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize("size", [64, 61])
def test_each_byte_is_exactly_its_distance_from_the_zero_point_times_the_scale(
    each_isa: OpLibrary, tokens: int, size: int
) -> None:
    keys = 256
    data = np.resize(np.arange(-128, 128), (1, keys, 1, size)).astype(np.int8)
    zeros = np.arange(-128, 128).astype(np.int8).reshape(1, keys, 1, 1)
    scales = np.linspace(0.01, 3, keys, dtype=np.float32).reshape(1, keys, 1, 1)
    q = np.ones((1, tokens, 1, size), np.int8)
    q_zeros, q_scales = np.zeros((1, tokens, 1, 1), np.int8), np.ones((1, tokens, 1, 1), np.float32)
    for first in range(0, keys - tokens + 1, tokens):
        mask = np.full((tokens, keys), -np.inf, np.float32)
        mask[np.arange(tokens), first + np.arange(tokens)] = 0
        out = np.zeros(q.shape, np.float32)
        quantization = [q_zeros, q_scales, zeros, scales, zeros, scales]
        result = each_isa.call(
            QUANTIZED, [q, data, data, 0, mask, 0.0, False, None, *quantization, False, out]
        )
        assert (result.code, result.log) == (OK, "")
        chosen = np.s_[:, first : first + tokens]
        difference = data[chosen].astype(np.float32) - zeros[chosen].astype(np.float32)
        np.testing.assert_array_equal(out, difference * scales[chosen])


@pytest.mark.parametrize("heads_first", [False, True])
def test_a_float_query_is_ordinary_attention(ops: OpLibrary, heads_first: bool) -> None:
    rng = np.random.default_rng(1)
    q = rng.standard_normal((1, 4, 6, 32)).astype(np.float32)
    k, v = rng.standard_normal((2, 1, 9, 2, 32)).astype(np.float32)
    expected = attention(q, k, v, start_pos=5, causal=True)
    if heads_first:
        q, k, v, expected = (by_heads(x) for x in (q, k, v, expected))
    out = np.zeros_like(q)
    result = ops.call(QUANTIZED, [q, k, v, 5, None, 0.0, True, None, *([None] * 6), heads_first, out])
    assert (result.code, result.log) == (OK, "")
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_missing_quantization_parameters_are_an_error_that_names_the_operator(ops: OpLibrary) -> None:
    q = np.zeros((1, 1, 2, 8), np.int8)
    k = np.zeros((1, 4, 1, 8), np.int8)
    out = np.full(q.shape, 7, np.float32)
    result = ops.call(QUANTIZED, [q, k, k.copy(), 0, None, 0.0, True, None, *([None] * 6), False, out])
    assert result.code != OK
    assert len(result.errors) == 1
    assert result.errors[0].startswith("llama::custom_quantized_sdpa: ")
    assert "Char[1, 1, 2, 8]" in result.errors[0]
    assert (out == 7).all()


@settings(RANDOM, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    tokens=st.integers(1, 20),
    start_pos=st.integers(0, 40),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_sdpa_with_kv_cache_writes_the_caches_and_attends_to_them(
    ops: OpLibrary, seed: int, tokens: int, start_pos: int, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((1, tokens, 4, 16)).astype(dtype)
    k, v = rng.standard_normal((2, 1, tokens, 2, 16)).astype(dtype)
    k_cache, v_cache = rng.standard_normal((2, 1, 64, 2, 16)).astype(dtype)
    wanted_k, wanted_v = k_cache.copy(), v_cache.copy()
    wanted_k[:, start_pos : start_pos + tokens] = k
    wanted_v[:, start_pos : start_pos + tokens] = v
    out = np.zeros_like(q)
    result = ops.call(WITH_CACHE, [q, k, v, k_cache, v_cache, start_pos, tokens, None, 0.0, True, None, out])
    assert (result.code, result.log) == (OK, "")
    np.testing.assert_array_equal(k_cache, wanted_k)
    np.testing.assert_array_equal(v_cache, wanted_v)
    expected = attention(q, wanted_k, wanted_v, start_pos=start_pos, causal=True)
    np.testing.assert_allclose(out, expected, atol=1e-5 if dtype == "float32" else 3e-3)


def test_sdpa_with_kv_cache_leaves_the_caches_alone_when_it_fails(ops: OpLibrary) -> None:
    q = np.ones((1, 4, 4, 16), np.float32)
    k = np.ones((1, 4, 2, 16), np.float32)
    caches = np.zeros((2, 1, 6, 2, 16), np.float32)
    result = ops.call(
        WITH_CACHE, [q, k, k.copy(), caches[0], caches[1], 3, 4, None, 0.0, True, None, q.copy()]
    )
    assert result.code != OK
    assert result.errors[0].startswith("llama::sdpa_with_kv_cache: ")
    assert not caches.any()
