"""What upstream answers by ending the process is one error line here, with the operator and the shapes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from oplib import BFLOAT16, DTYPES, INVALID_ARGUMENT, OK, Argument, OpLibrary, Tensor

SDPA = "llama::custom_sdpa.out"


def sdpa_arguments(**changes: Argument) -> list[Argument]:
    arguments: dict[str, Argument] = {
        "q": np.ones((1, 4, 6, 8), np.float32),
        "k": np.ones((1, 10, 2, 8), np.float32),
        "v": np.ones((1, 10, 2, 8), np.float32),
        "start_pos": 3,
        "mask": None,
        "dropout": 0.0,
        "causal": True,
        "scale": None,
        "out": np.full((1, 4, 6, 8), 7, np.float32),
    }
    assert set(changes) <= set(arguments)
    return list((arguments | changes).values())


def ones(*shape: int, dtype: str = "float32") -> np.ndarray:  # type: ignore[type-arg]
    return np.ones(shape, dtype)


BAD_CALLS: dict[str, dict[str, Argument]] = {
    "negative start_pos": {"start_pos": -1},
    "start_pos past the cache": {"start_pos": 7},
    "start_pos that overflows": {"start_pos": 2**63 - 1},
    "query of rank 3": {"q": ones(4, 6, 8)},
    "key of rank 3": {"k": ones(10, 2, 8)},
    "value of rank 5": {"v": ones(1, 1, 10, 2, 8)},
    "heads not a multiple": {"q": ones(1, 4, 5, 8), "out": ones(1, 4, 5, 8)},
    "more key heads than query heads": {"k": ones(1, 10, 12, 8), "v": ones(1, 10, 12, 8)},
    "no key heads": {"k": ones(1, 10, 0, 8), "v": ones(1, 10, 0, 8)},
    "other batch": {"k": ones(2, 10, 2, 8), "v": ones(2, 10, 2, 8)},
    "other head size": {"k": ones(1, 10, 2, 4), "v": ones(1, 10, 2, 4)},
    "key and value of different lengths": {"v": ones(1, 11, 2, 8)},
    "dtypes that differ": {"k": ones(1, 10, 2, 8, dtype="float16")},
    "float64": {
        "q": ones(1, 4, 6, 8, dtype="float64"),
        "k": ones(1, 10, 2, 8, dtype="float64"),
        "v": ones(1, 10, 2, 8, dtype="float64"),
        "out": ones(1, 4, 6, 8, dtype="float64"),
    },
    "int8 without scales": {
        "q": ones(1, 4, 6, 8, dtype="int8"),
        "k": ones(1, 10, 2, 8, dtype="int8"),
        "v": ones(1, 10, 2, 8, dtype="int8"),
    },
    "output of another dtype": {"out": ones(1, 4, 6, 8, dtype="float16")},
    "output that is too small": {"out": ones(1, 3, 6, 8)},
    "output of another rank": {"out": ones(4, 6, 8)},
    "mask and causal": {"mask": np.zeros((4, 10), np.float32)},
    "mask of the wrong width": {"mask": np.zeros((4, 9), np.float32), "causal": False},
    "mask of the wrong height": {"mask": np.zeros((3, 10), np.float32), "causal": False},
    "mask of rank 4": {"mask": np.zeros((1, 1, 4, 10), np.float32), "causal": False},
    "bool mask": {"mask": np.zeros((4, 10), bool), "causal": False},
    "half mask": {"mask": np.zeros((4, 10), np.float16), "causal": False},
    "transposed query": {"q": Tensor(ones(1, 4, 6, 8), dim_order=(0, 2, 1, 3))},
    "transposed mask": {"mask": Tensor(np.zeros((4, 10), np.float32), dim_order=(1, 0)), "causal": False},
    "key without memory": {"k": Tensor(ones(1, 10, 2, 8), null=True)},
    "output without memory": {"out": Tensor(ones(1, 4, 6, 8), null=True)},
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_a_bad_call_fails_with_one_line_and_leaves_the_output_alone(ops: OpLibrary, case: str) -> None:
    arguments = sdpa_arguments(**BAD_CALLS[case])
    out = arguments[-1]
    before = (out.data if isinstance(out, Tensor) else np.asarray(out)).copy()
    result = ops.call(SDPA, arguments)
    assert result.code == INVALID_ARGUMENT
    ours = [line for line in result.errors if line.startswith("llama::custom_sdpa: expected ")]
    assert len(ours) == 1
    assert ", got " in ours[0]
    assert "[" in ours[0]
    assert len(ours[0]) < 255  # the runtime cuts lines there
    np.testing.assert_array_equal(out.data if isinstance(out, Tensor) else np.asarray(out), before)


def test_the_error_names_the_offending_shapes(ops: OpLibrary) -> None:
    result = ops.call(SDPA, sdpa_arguments(start_pos=7))
    expected = (
        "llama::custom_sdpa: expected start_pos >= 0 and start_pos + S <= 10, got start_pos 7 for query "
        "Float[1, 4, 6, 8], key Float[1, 10, 2, 8]"
    )
    assert result.errors == [expected]


def test_the_longest_error_line_still_holds_every_shape(ops: OpLibrary) -> None:
    big = 2**31 - 1
    q = Tensor(ones(1), sizes=(1, big, 1024, 1), null=True)
    k = Tensor(ones(1), sizes=(1, 1, 1000, 2000), null=True)
    result = ops.call(SDPA, sdpa_arguments(q=q, k=k, v=k))
    assert result.code == INVALID_ARGUMENT
    assert "value Float[1, 1, 1000, 2000]" in result.errors[0]


WRONG_KINDS: dict[str, dict[str, Argument]] = {
    "a number for the query": {"q": 3},
    "None for the key": {"k": None},
    "a tensor for start_pos": {"start_pos": ones(1)},
    "a number for the mask": {"mask": 1.5},
    "a number for is_causal": {"causal": 1},
    "a tensor for scale": {"scale": ones(1)},
    "None for the output": {"out": None},
}


@pytest.mark.parametrize("case", WRONG_KINDS)
def test_an_argument_of_the_wrong_kind_is_an_error(ops: OpLibrary, case: str) -> None:
    result = ops.call(SDPA, sdpa_arguments(**WRONG_KINDS[case]))
    assert result.code == INVALID_ARGUMENT
    assert len(result.errors) == 1
    assert result.errors[0].startswith("llama::custom_sdpa: expected argument ")


OPERATORS = {
    "llama::update_cache.out": 4,
    "llama::update_cache_with_indices.out": 5,
    "llama::custom_sdpa.out": 9,
    "llama::custom_quantized_sdpa.out": 16,
    "llama::sdpa_with_kv_cache.out": 12,
    "llama::fast_hadamard_transform.out": 2,
    "llama::gated_delta_rule.out": 8,
    "llama::channelwise_gated_delta_rule.out": 8,
    "llama::fallback.out": 2,
    "preprocess::tile_crop.out": 3,
    "aten::mean.out": 5,
}


@pytest.mark.parametrize("name", OPERATORS)
def test_too_few_arguments_are_an_error(ops: OpLibrary, name: str) -> None:
    count = OPERATORS[name] - 1
    result = ops.call(name, [None] * count)
    assert result.code == INVALID_ARGUMENT
    assert result.errors == [
        f"{name.removesuffix('.out')}: expected at least {OPERATORS[name]} arguments, got {count}"
    ]


def test_the_values_that_an_exported_program_adds_behind_the_output_are_ignored(ops: OpLibrary) -> None:
    arguments = sdpa_arguments()
    assert ops.call(SDPA, [*arguments, arguments[-1]]).code == OK
    assert (np.asarray(arguments[-1]) == 1).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_survives_arguments_of_any_kind(ops: OpLibrary, name: str) -> None:
    rng = np.random.default_rng(11)
    makers: list[Callable[[], Argument]] = [
        lambda: None,
        lambda: int(rng.integers(-3, 12)),
        lambda: float(rng.standard_normal()),
        lambda: bool(rng.integers(0, 2)),
        lambda: ones(*rng.integers(0, 4, rng.integers(0, 6)), dtype=str(rng.choice(list(DTYPES)))),
        lambda: ones(1, 4, 2, 8),
        lambda: ones(1, 2, 4, dtype="int64"),
    ]
    for _ in range(150):
        arguments = [makers[rng.integers(0, len(makers))]() for _ in range(OPERATORS[name])]
        assert ops.call(name, arguments).code in {OK, INVALID_ARGUMENT}


def test_an_unknown_operator_is_not_found(ops: OpLibrary) -> None:
    assert ops.call("llama::quantized_moe_ffn.out", []).code == -1
    assert BFLOAT16 not in DTYPES.values()
