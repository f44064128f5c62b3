"""update_cache and update_cache_with_indices: what is written where, and that a bad call writes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oplib import INVALID_ARGUMENT, OK, OpLibrary, Tensor

UPDATE = "llama::update_cache.out"
INDEXED = "llama::update_cache_with_indices.out"
RANDOM = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
DTYPES = ("float32", "float16", "int8", "float64")


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:  # type: ignore[type-arg]
    return rng.integers(-100, 100, shape).astype(dtype)


@RANDOM
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 3),
    tokens=st.integers(0, 9),
    heads=st.integers(1, 4),
    size=st.integers(1, 33),
    start_pos=st.integers(0, 30),
    spare=st.integers(1, 9),
    dtype=st.sampled_from(DTYPES),
)
def test_new_tokens_land_at_their_positions_and_nothing_else_changes(
    ops: OpLibrary,
    seed: int,
    batch: int,
    tokens: int,
    heads: int,
    size: int,
    start_pos: int,
    spare: int,
    dtype: str,
) -> None:
    rng = np.random.default_rng(seed)
    cache = random_array(rng, (batch, start_pos + tokens + spare, heads, size), dtype)
    value = random_array(rng, (batch, tokens, heads, size), dtype)
    expected = cache.copy()
    expected[:, start_pos : start_pos + tokens] = value
    placeholder = np.full(1, 7, dtype)
    result = ops.call(UPDATE, [value, cache, start_pos, placeholder])
    assert (result.code, result.log) == (OK, "")
    np.testing.assert_array_equal(cache, expected)
    assert placeholder[0] == 7


@RANDOM
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 3),
    tokens=st.integers(0, 9),
    heads=st.integers(1, 4),
    size=st.integers(1, 33),
    keys=st.integers(9, 40),
    dtype=st.sampled_from(DTYPES),
)
def test_indices_choose_the_position_of_every_token(
    ops: OpLibrary, seed: int, batch: int, tokens: int, heads: int, size: int, keys: int, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    cache = random_array(rng, (batch, keys, heads, size), dtype)
    value = random_array(rng, (batch, tokens, heads, size), dtype)
    indices = rng.integers(0, keys, (batch, tokens))
    expected = cache.copy()
    for b in range(batch):
        for s in range(tokens):
            expected[b, indices[b, s]] = value[b, s]
    result = ops.call(INDEXED, [value, cache, -5, indices, np.zeros(1, dtype)])  # start_pos plays no part
    assert (result.code, result.log) == (OK, "")
    np.testing.assert_array_equal(cache, expected)


@pytest.mark.parametrize("start_pos", [-1, -(2**62), 6, 8, 9, 2**62, 2**63 - 1])
def test_positions_outside_the_cache_are_an_error_and_write_nothing(ops: OpLibrary, start_pos: int) -> None:
    cache = np.zeros((2, 8, 3, 4), np.float32)
    result = ops.call(UPDATE, [np.ones((2, 3, 3, 4), np.float32), cache, start_pos, np.zeros(1, np.float32)])
    assert result.code == INVALID_ARGUMENT
    assert len(result.errors) == 1
    assert result.errors[0].startswith("llama::update_cache: ")
    assert f"start_pos {start_pos}" in result.errors[0]
    assert "Float[2, 3, 3, 4]" in result.errors[0]
    assert "Float[2, 8, 3, 4]" in result.errors[0]
    assert not cache.any()


@pytest.mark.parametrize("bad", [-1, 8, 2**40, -(2**63)])
def test_one_index_out_of_range_is_an_error_and_writes_nothing(ops: OpLibrary, bad: int) -> None:
    cache = np.zeros((1, 8, 3, 4), np.float32)
    indices = np.array([[0, 1, bad]])
    value = np.ones((1, 3, 3, 4), np.float32)
    result = ops.call(INDEXED, [value, cache, 0, indices, np.zeros(1, np.float32)])
    assert result.code == INVALID_ARGUMENT
    assert result.errors[0].startswith("llama::update_cache_with_indices: ")
    assert f"got {bad} at element 2" in result.errors[0]
    assert not cache.any()


VALUE = np.ones((1, 3, 2, 4), np.float32)
BAD_SHAPES = {
    "batch": (np.ones((2, 3, 2, 4), np.float32), (1, 8, 2, 4)),
    "heads": (np.ones((1, 3, 3, 4), np.float32), (1, 8, 2, 4)),
    "head size": (np.ones((1, 3, 2, 5), np.float32), (1, 8, 2, 4)),
    "rank of the value": (np.ones((3, 2, 4), np.float32), (1, 8, 2, 4)),
    "rank of the cache": (VALUE, (8, 2, 4)),
    "element size": (VALUE.astype(np.float16), (1, 8, 2, 4)),
    "memory layout": (Tensor(VALUE, dim_order=(0, 2, 1, 3)), (1, 8, 2, 4)),
    "no memory": (Tensor(VALUE, null=True), (1, 8, 2, 4)),
}


@pytest.mark.parametrize("case", BAD_SHAPES)
@pytest.mark.parametrize("indexed", [False, True])
def test_tensors_that_do_not_fit_are_an_error_that_names_both(
    ops: OpLibrary, case: str, indexed: bool
) -> None:
    value, cache_shape = BAD_SHAPES[case]
    cache = np.zeros(cache_shape, np.float32)
    indices = [np.zeros((1, 3), np.int64)] if indexed else []
    result = ops.call(INDEXED if indexed else UPDATE, [value, cache, 0, *indices, np.zeros(1, np.float32)])
    assert result.code == INVALID_ARGUMENT
    assert len(result.errors) == 1
    assert result.errors[0].startswith("llama::update_cache")
    assert "Float[" + ", ".join(map(str, cache_shape)) + "]" in result.errors[0]
    assert not cache.any()


@pytest.mark.parametrize(
    "indices",
    [
        np.zeros((1, 2), np.int64),
        np.zeros((1, 3), np.int32),
        np.zeros(3, np.int64),
        np.zeros((2, 3), np.int64),
    ],
)
def test_indices_of_another_shape_or_dtype_are_an_error(ops: OpLibrary, indices: np.ndarray) -> None:  # type: ignore[type-arg]
    cache = np.zeros((1, 8, 2, 4), np.float32)
    result = ops.call(INDEXED, [VALUE, cache, 0, indices, np.zeros(1, np.float32)])
    assert result.code == INVALID_ARGUMENT
    assert "expected contiguous indices Long[B, S]" in result.errors[0]
    assert not cache.any()
