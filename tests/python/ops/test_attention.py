"""custom_sdpa against a float64 reference, over random shapes, dtypes, positions and masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from op_reference import Array, attention, bfloat16_bits, from_bfloat16_bits
from oplib import OK, Bf16, OpLibrary, Tensor

SDPA = "llama::custom_sdpa.out"
TOLERANCE = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}
RANDOM = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass(frozen=True)
class Case:
    seed: int
    batch: int
    tokens: int
    kv_heads: int
    group: int
    head_size: int
    start_pos: int
    spare: int  # cache rows behind the last token
    dtype: str
    mode: str  # causal, full or mask
    sharpness: float
    scale: float | None


def cases(dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        seed=st.integers(0, 2**32 - 1),
        batch=st.sampled_from([1, 1, 1, 2]),
        tokens=st.one_of(st.just(1), st.integers(1, 8), st.integers(1, 70)),
        kv_heads=st.integers(1, 4),
        group=st.one_of(st.integers(1, 5), st.integers(1, 12)),
        head_size=st.one_of(st.sampled_from([8, 16, 32, 64, 80, 128, 256]), st.integers(1, 70)),
        start_pos=st.one_of(st.just(0), st.integers(0, 40), st.integers(0, 1200)),
        spare=st.integers(0, 40),
        dtype=st.sampled_from(dtypes),
        mode=st.sampled_from(["causal", "full", "mask"]),
        sharpness=st.sampled_from([0.1, 1.0, 10.0]),
        scale=st.sampled_from([None, None, 0.3, 1.0]),
    )


def to_dtype(values: Array, dtype: str) -> tuple[Array, Array]:
    """The stored array and the float32 values that it holds."""
    if dtype == "bfloat16":
        bits = bfloat16_bits(values)
        return bits.view(Bf16), from_bfloat16_bits(bits)
    stored = values.astype(dtype)
    return stored, stored.astype(np.float32)


def from_dtype(stored: Array) -> Array:
    return from_bfloat16_bits(np.asarray(stored)) if isinstance(stored, Bf16) else stored.astype(np.float32)


def random_mask(rng: np.random.Generator, tokens: int, keys: int) -> Array:
    mask = rng.standard_normal((tokens, keys)).astype(np.float32)
    kind = rng.integers(0, 4)
    if kind == 0:  # a sliding window, as ring caches have it
        distance = np.arange(keys)[None] - np.arange(tokens)[:, None]
        mask = np.where((distance >= 0) & (distance < keys // 2 + 1), 0, -np.inf).astype(np.float32)
    elif kind == 1:
        mask[rng.random(mask.shape) < 0.5] = -np.inf
    elif kind == 2:
        mask[:] = 0
        mask[:, keys // 3 :] = -np.inf
    mask[rng.random(tokens) < 0.1] = -np.inf  # rows that may look at nothing
    return mask


def check(ops: OpLibrary, case: Case) -> None:
    rng = np.random.default_rng(case.seed)
    start_pos = case.start_pos if case.tokens * case.group < 100 else case.start_pos % 200
    keys = start_pos + case.tokens + case.spare
    heads = case.kv_heads * case.group
    q, q_values = to_dtype(
        rng.standard_normal((case.batch, case.tokens, heads, case.head_size)) * case.sharpness, case.dtype
    )
    cache_shape = (case.batch, keys, case.kv_heads, case.head_size)
    k, k_values = to_dtype(rng.standard_normal(cache_shape), case.dtype)
    v, v_values = to_dtype(rng.standard_normal(cache_shape), case.dtype)
    mask = random_mask(rng, case.tokens, keys) if case.mode == "mask" else None
    out = np.full_like(q, 7)
    result = ops.call(SDPA, [q, k, v, start_pos, mask, 0.0, case.mode == "causal", case.scale, out])
    assert (result.code, result.log) == (OK, "")
    expected = attention(
        q_values,
        k_values,
        v_values,
        start_pos=start_pos,
        mask=mask,
        causal=case.mode == "causal",
        scale=case.scale,
    )
    error = np.abs(from_dtype(out) - expected).max(initial=0)
    # A score's rounding error moves the weights by as much: it grows with the scores themselves.
    scores = (
        np.abs(q_values).max(initial=0)
        * np.abs(k_values).max(initial=0)
        * (case.scale or 1 / math.sqrt(case.head_size))
    )
    assert error <= TOLERANCE[case.dtype] * (1 + np.abs(v_values).max(initial=0)) + 1e-6 * scores * math.sqrt(
        case.head_size
    )


@RANDOM
@given(case=cases())
def test_random_problems_match_the_reference(each_isa: OpLibrary, case: Case) -> None:
    check(each_isa, case)


@settings(RANDOM, max_examples=120)
@given(case=cases())
def test_random_problems_match_the_reference_on_several_threads(ops: OpLibrary, case: Case) -> None:
    ops.set_threads(3)
    check(ops, case)


# The last three have rows whose distance is a multiple of 1 KiB, which prefill copies.
@pytest.mark.parametrize(
    "shape",
    [(9, 3, 64), (32, 8, 64), (4, 1, 256), (71, 1, 64), (8, 8, 128), (16, 8, 128), (32, 32, 40)],
)
@pytest.mark.parametrize(("tokens", "start_pos"), [(1, 0), (1, 2047), (5, 700), (128, 0), (130, 600)])
def test_the_shapes_of_known_models(
    ops: OpLibrary, shape: tuple[int, int, int], tokens: int, start_pos: int
) -> None:
    heads, kv_heads, size = shape
    check(
        ops,
        Case(1, 1, tokens, kv_heads, heads // kv_heads, size, start_pos, 3, "float32", "causal", 1.0, None),
    )


@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_a_row_whose_keys_are_all_masked_is_zero(each_isa: OpLibrary, tokens: int) -> None:
    rng = np.random.default_rng(0)
    q = rng.standard_normal((1, tokens, 6, 20)).astype(np.float32)
    k = rng.standard_normal((1, 700, 2, 20)).astype(np.float32)
    mask = np.full((tokens, 700), -np.inf, np.float32)
    out = np.full_like(q, 7)
    assert each_isa.call(SDPA, [q, k, k.copy(), 0, mask, 0.0, False, None, out]).code == OK
    assert not out.any()


@pytest.mark.parametrize("tokens", [1, 4, 33])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_excluded_keys_play_no_part_whatever_they_hold(
    each_isa: OpLibrary, tokens: int, poison: float
) -> None:
    rng = np.random.default_rng(tokens)
    keys = 600
    q = rng.standard_normal((1, tokens, 4, 24)).astype(np.float32)
    k, v = rng.standard_normal((2, 1, keys, 2, 24)).astype(np.float32)
    mask = np.zeros((tokens, keys), np.float32)
    mask[rng.random(mask.shape) < 0.2] = -np.inf
    mask[:, 100:200] = -np.inf
    mask[:, 577] = -np.inf
    expected = attention(q, k, v, mask=mask)
    k[:, 577], v[:, 577] = poison, poison
    k[:, 120:130], v[:, 120:130] = poison, poison
    out = np.zeros_like(q)
    assert each_isa.call(SDPA, [q, k, v, 0, mask, 0.0, False, None, out]).code == OK
    np.testing.assert_allclose(out, expected, atol=2e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_causality_keeps_a_bad_value_from_earlier_tokens(each_isa: OpLibrary, poison: float) -> None:
    rng = np.random.default_rng(3)
    q = rng.standard_normal((1, 50, 4, 16)).astype(np.float32)
    k, v = rng.standard_normal((2, 1, 60, 2, 16)).astype(np.float32)
    v[0, 10 + 20, :, 3] = poison
    out = np.zeros_like(q)
    assert each_isa.call(SDPA, [q, k, v, 10, None, 0.0, True, None, out]).code == OK
    expected = attention(q, k, v, start_pos=10, causal=True)
    assert np.isfinite(out[0, :20]).all()
    np.testing.assert_allclose(out[0, :20], expected[0, :20], atol=2e-5)
    assert not np.isfinite(out[0, 20:, :, 3]).any()
    columns = [d for d in range(16) if d != 3]
    np.testing.assert_allclose(out[0, 20:][..., columns], expected[0, 20:][..., columns], atol=2e-5)


@pytest.mark.parametrize("where", ["query", "key", "mask"])
@pytest.mark.parametrize("tokens", [1, 20])
def test_nan_in_what_a_row_uses_makes_the_row_nan(each_isa: OpLibrary, where: str, tokens: int) -> None:
    rng = np.random.default_rng(5)
    q = rng.standard_normal((1, tokens, 2, 16)).astype(np.float32)
    k, v = rng.standard_normal((2, 1, 40, 1, 16)).astype(np.float32)
    mask = np.zeros((tokens, 40), np.float32)
    {"query": q[0, 0], "key": k[0, 7], "mask": mask[0, 5:6]}[where][...] = np.nan
    out = np.zeros_like(q)
    assert each_isa.call(SDPA, [q, k, v, 0, mask, 0.0, False, None, out]).code == OK
    assert np.isnan(out[0, 0]).all()
    if where != "key":
        assert np.isfinite(out[0, 1:]).all()


def test_a_row_whose_scores_are_all_nan_is_nan_and_not_zero(each_isa: OpLibrary) -> None:
    q = np.full((1, 1, 1, 8), np.nan, np.float32)
    k = np.ones((1, 4, 1, 8), np.float32)
    out = np.zeros_like(q)
    assert each_isa.call(SDPA, [q, k, k.copy(), 3, None, 0.0, True, None, out]).code == OK
    assert np.isnan(out).all()


@pytest.mark.parametrize("tokens", [1, 30])
def test_very_negative_finite_masks_and_large_scores_do_not_overflow(
    each_isa: OpLibrary, tokens: int
) -> None:
    rng = np.random.default_rng(6)
    q = 100 * rng.standard_normal((1, tokens, 4, 64)).astype(np.float32)
    k, v = 10 * rng.standard_normal((2, 1, 64, 2, 64)).astype(np.float32)
    mask = np.where(rng.random((tokens, 64)) < 0.5, np.finfo(np.float32).min, 0).astype(np.float32)
    mask[:, 0] = 0
    out = np.zeros_like(q)
    assert each_isa.call(SDPA, [q, k, v, 0, mask, 0.0, False, None, out]).code == OK
    np.testing.assert_allclose(out, attention(q, k, v, mask=mask), atol=2e-2)


def test_no_query_tokens_is_no_work(ops: OpLibrary) -> None:
    q = np.zeros((1, 0, 4, 8), np.float32)
    k = np.zeros((1, 5, 2, 8), np.float32)
    result = ops.call(SDPA, [q, k, k.copy(), 2, None, 0.0, True, None, q.copy()])
    assert (result.code, result.log) == (OK, "")


def test_the_output_takes_the_shape_of_the_query(ops: OpLibrary) -> None:
    q = np.ones((1, 2, 2, 8), np.float32)
    k = np.ones((1, 5, 1, 8), np.float32)
    out = Tensor(np.zeros((1, 6, 2, 8), np.float32), dynamic=True)
    result = ops.call(SDPA, [q, k, k.copy(), 0, None, 0.0, True, None, out])
    assert (result.code, result.out_sizes) == (OK, (1, 2, 2, 8))
    assert (out.data.ravel()[: q.size] == 1).all()


@settings(RANDOM, max_examples=60)
@given(case=cases(("float32",)))
def test_the_result_does_not_depend_on_the_number_of_threads(ops: OpLibrary, case: Case) -> None:
    rng = np.random.default_rng(case.seed)
    keys = case.start_pos + case.tokens
    q = rng.standard_normal((case.batch, case.tokens, case.kv_heads * case.group, case.head_size)).astype(
        np.float32
    )
    k, v = rng.standard_normal((2, case.batch, keys, case.kv_heads, case.head_size)).astype(np.float32)
    results = []
    for threads in (1, 2, 4):
        ops.set_threads(threads)
        out = np.zeros_like(q)
        assert ops.call(SDPA, [q, k, v, case.start_pos, None, 0.0, True, None, out]).code == OK
        results.append(out.tobytes())
    assert len(set(results)) == 1


def test_a_warm_call_allocates_no_scratch_memory(ops: OpLibrary) -> None:
    ops.set_threads(2)
    rng = np.random.default_rng(8)
    k, v = rng.standard_normal((2, 1, 2048, 3, 64)).astype(np.float32)

    def run(tokens: int, start_pos: int) -> None:
        q = rng.standard_normal((1, tokens, 9, 64)).astype(np.float32)
        assert ops.call(SDPA, [q, k, v, start_pos, None, 0.0, True, None, np.zeros_like(q)]).code == OK

    shapes = ((512, 1536), (512, 0), (1, 0), (1, 2047), (64, 1000), (5, 2000))
    for tokens, start_pos in shapes:
        run(tokens, start_pos)
    before = ops.scratch_growths()
    for tokens, start_pos in shapes:
        run(tokens, start_pos)
    assert ops.scratch_growths() == before


def test_a_growing_context_seldom_needs_more_scratch_memory(ops: OpLibrary) -> None:
    rng = np.random.default_rng(9)
    k, v = rng.standard_normal((2, 1, 8192, 3, 64)).astype(np.float32)
    q = rng.standard_normal((1, 1, 9, 64)).astype(np.float32)
    before = ops.scratch_growths()
    for position in range(0, 8192, 64):
        assert ops.call(SDPA, [q, k, v, position, None, 0.0, True, None, np.zeros_like(q)]).code == OK
    assert ops.scratch_growths() - before <= 3
