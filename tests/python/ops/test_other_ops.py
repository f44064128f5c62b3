"""The Hadamard transform, the gated delta rule, and the operators that only move data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from op_reference import bfloat16_bits, from_bfloat16_bits, gated_delta_rule, hadamard, williamson28
from oplib import INVALID_ARGUMENT, OK, Bf16, OpLibrary, Tensor

HADAMARD = "llama::fast_hadamard_transform.out"
DELTA = "llama::gated_delta_rule.out"
RANDOM = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def test_the_reference_matrices_are_hadamard_matrices() -> None:
    matrix = williamson28()
    np.testing.assert_array_equal(matrix @ matrix.T, 28 * np.eye(28))
    np.testing.assert_allclose(hadamard(64) @ hadamard(64).T, np.eye(64), atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 8, 64, 256, 2048, 28, 56, 224, 448, 896])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_hadamard_matches_the_matrix_product(each_isa: OpLibrary, size: int, dtype: str) -> None:
    rng = np.random.default_rng(size)
    values = rng.standard_normal((3, 2, size))
    if dtype == "bfloat16":
        mat = bfloat16_bits(values).view(Bf16)
        values = from_bfloat16_bits(np.asarray(mat)).astype(np.float64)
    else:
        mat = values.astype(dtype)
        values = mat.astype(np.float64)
    expected = values @ hadamard(size).T
    out = np.zeros_like(mat)
    before = mat.copy()
    assert each_isa.call(HADAMARD, [mat, out]).code == OK
    np.testing.assert_array_equal(mat, before)
    got = from_bfloat16_bits(np.asarray(out)) if dtype == "bfloat16" else out
    tolerance = {"float32": 2e-6, "float64": 1e-13, "float16": 2e-3, "bfloat16": 2e-2}[dtype]
    np.testing.assert_allclose(got, expected, atol=tolerance * (6 if size % 28 == 0 else 1))


def test_hadamard_on_several_threads_is_the_same(ops: OpLibrary) -> None:
    mat = np.random.default_rng(0).standard_normal((300, 896)).astype(np.float32)
    results = []
    for threads in (1, 3):
        ops.set_threads(threads)
        out = np.zeros_like(mat)
        assert ops.call(HADAMARD, [mat, out]).code == OK
        results.append(out.tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("size", [3, 12, 27, 84, 100])
def test_hadamard_of_another_size_is_an_error(ops: OpLibrary, size: int) -> None:
    mat = np.ones((2, size), np.float32)
    result = ops.call(HADAMARD, [mat, mat.copy()])
    assert result.code == INVALID_ARGUMENT
    assert result.errors[0].startswith(
        "llama::fast_hadamard_transform: expected a last dimension of 2^k or 28"
    )
    assert result.errors[0].endswith(f"got input Float[2, {size}]")


def test_hadamard_of_nothing_is_nothing(ops: OpLibrary) -> None:
    assert ops.call(HADAMARD, [np.zeros((0, 8), np.float32), np.zeros((0, 8), np.float32)]).code == OK
    assert ops.call(HADAMARD, [np.zeros((2, 0), np.float32), np.zeros((2, 0), np.float32)]).code == OK


@RANDOM
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 2),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    tokens=st.integers(0, 20),
    keys=st.one_of(st.integers(1, 20), st.just(64)),
    values=st.one_of(st.integers(1, 70), st.just(128)),
    scalar=st.booleans(),
    old_name=st.booleans(),
)
def test_gated_delta_rule_matches_the_recurrence(
    each_isa: OpLibrary,
    seed: int,
    batch: int,
    kv_heads: int,
    group: int,
    tokens: int,
    keys: int,
    values: int,
    scalar: bool,
    old_name: bool,
) -> None:
    rng = np.random.default_rng(seed)
    f32 = np.float32
    q = rng.standard_normal((batch, kv_heads * group, tokens, keys)).astype(f32)
    k = rng.standard_normal((batch, kv_heads, tokens, keys)).astype(f32)
    k /= np.maximum(np.linalg.norm(k, axis=-1, keepdims=True), 1e-6)  # as models do, or the state explodes
    v = rng.standard_normal((batch, kv_heads, tokens, values)).astype(f32)
    decay = rng.uniform(0, 1, (batch, kv_heads, tokens) if scalar else k.shape).astype(f32)
    beta = rng.uniform(0, 1, (batch, kv_heads, tokens)).astype(f32)
    state = rng.standard_normal((batch, kv_heads, keys, values)).astype(f32)
    expected_out, expected_state = gated_delta_rule(q, k, v, decay, beta, state)
    out = np.full((batch, kv_heads * group, tokens, values), 7, f32)
    final = np.full_like(state, 7)
    before = state.copy()
    name = "llama::channelwise_gated_delta_rule.out" if old_name else DELTA
    result = each_isa.call(name, [q, k, v, decay, beta, state, out, final, None])
    assert (result.code, result.log) == (OK, "")
    np.testing.assert_array_equal(state, before)
    np.testing.assert_allclose(final, expected_state, atol=2e-5)
    np.testing.assert_allclose(out, expected_out, atol=2e-5 * math.sqrt(keys) * 3)


def delta_arguments() -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    f32 = np.float32
    return {
        "q": np.ones((1, 4, 5, 8), f32),
        "k": np.ones((1, 2, 5, 8), f32),
        "v": np.ones((1, 2, 5, 6), f32),
        "decay": np.ones((1, 2, 5, 8), f32),
        "beta": np.ones((1, 2, 5), f32),
        "state": np.ones((1, 2, 8, 6), f32),
        "out": np.zeros((1, 4, 5, 6), f32),
        "final": np.zeros((1, 2, 8, 6), f32),
    }


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("q", np.ones((1, 3, 5, 8), np.float32)),
        ("q", np.ones((1, 4, 6, 8), np.float32)),
        ("k", np.ones((1, 2, 5), np.float32)),
        ("v", np.ones((1, 2, 4, 6), np.float32)),
        ("decay", np.ones((1, 2), np.float32)),
        ("decay", np.ones((1, 2, 5, 7), np.float32)),
        ("beta", np.ones((1, 2, 5, 1), np.float32)),
        ("state", np.ones((1, 2, 6, 8), np.float32)),
        ("v", np.ones((1, 2, 5, 6), np.float16)),
        ("out", np.ones((1, 4, 5, 7), np.float32)),
        ("final", np.ones((1, 2, 8), np.float32)),
    ],
)
def test_gated_delta_rule_rejects_shapes_that_do_not_fit(ops: OpLibrary, name: str, bad: np.ndarray) -> None:  # type: ignore[type-arg]
    arguments = delta_arguments() | {name: bad}
    result = ops.call(DELTA, [*arguments.values(), None])
    assert result.code == INVALID_ARGUMENT
    assert any(line.startswith("llama::gated_delta_rule: expected ") for line in result.errors)


def test_gated_delta_rule_rejects_a_final_state_in_the_memory_of_the_initial_one(ops: OpLibrary) -> None:
    arguments = delta_arguments()
    arguments["final"] = arguments["state"]
    result = ops.call(DELTA, [*arguments.values(), None])
    assert result.code == INVALID_ARGUMENT
    assert "overlapping memory for Float[1, 2, 8, 6]" in result.errors[0]


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (2, 3, 4, 5, 6)])
def test_fallback_copies(ops: OpLibrary, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).integers(0, 2, shape).astype(dtype).reshape(shape)
    out = np.zeros_like(values)
    assert ops.call("llama::fallback.out", [values, out]).code == OK
    np.testing.assert_array_equal(out, values)


def test_fallback_rejects_an_output_of_another_dtype(ops: OpLibrary) -> None:
    result = ops.call("llama::fallback.out", [np.ones(3, np.float32), np.ones(3, np.int32)])
    assert result.code == INVALID_ARGUMENT
    assert "got input Float[3], output Int[3]" in result.errors[0]


@pytest.mark.parametrize("dtype", ["float32", "uint8", "float16"])
@pytest.mark.parametrize(("rows", "columns", "tile"), [(1, 1, 4), (2, 3, 5), (4, 1, 1), (0, 2, 3)])
def test_tile_crop_cuts_tiles_row_by_row(
    ops: OpLibrary, dtype: str, rows: int, columns: int, tile: int
) -> None:
    image = np.random.default_rng(1).integers(0, 100, (3, rows * tile, columns * tile)).astype(dtype)
    expected = image.reshape(3, rows, tile, columns, tile).transpose(1, 3, 0, 2, 4).reshape(-1, 3, tile, tile)
    out = np.zeros((6, 3, tile, tile), dtype)
    result = ops.call("preprocess::tile_crop.out", [image, tile, Tensor(out, dynamic=True)])
    assert (result.code, result.out_sizes) == (OK, expected.shape)
    np.testing.assert_array_equal(out.ravel()[: expected.size], expected.ravel())


@pytest.mark.parametrize(
    ("shape", "tile"), [((3, 8, 9), 4), ((3, 9, 8), 4), ((3, 8, 8), 0), ((3, 8, 8), -4), ((8, 8), 4)]
)
def test_tile_crop_rejects_images_that_tiles_do_not_cover(
    ops: OpLibrary, shape: tuple[int, ...], tile: int
) -> None:
    image = np.ones(shape, np.float32)
    result = ops.call("preprocess::tile_crop.out", [image, tile, np.zeros((4, 3, 4, 4), np.float32)])
    assert result.code == INVALID_ARGUMENT
    assert f"tile size {tile}" in result.errors[0]
