"""Linear layers of our own against XNNPACK's delegate on graphs that tools/fixtures/linear makes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import (
    ExecutorchMMError,
    InputError,
    MultimodalRunner,
    XnnpackOptions,
    build_info,
    make_token_input,
)
from executorch_mm._loading.methods import load_methods
from executorch_mm._loading.options import Linear, LoadMode
from linear_graphs import FOLDER, INPUTS, damaged
from model_set import MODELS
from number_tokenizer import NumberTokenizer

KERNELS = build_info().linear_kernels
# AMX's only where they are asked for: no machine of ours has them.
ON_REQUEST = build_info().linear_kernels_on_request if os.environ.get("EMM_TEST_AMX") == "1" else ()


def batches(inputs: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(3)
    rows = [
        rng.normal(size=(1, count, inputs)).astype(np.float32) * np.float32(scale)
        for count in (1, 2, 3, 4, 5, 8, 17, 64)
        for scale in (1e-20, 1e-3, 1, 1e10)
    ]
    one_sided = [sign * np.abs(batch) for batch in rows for sign in (1, -1)]  # zero points -128 and 127
    constant = [np.full((1, 6, inputs), value, np.float32) for value in (0, 0.5, -0.5)]
    return rows + one_sided + constant


def outputs(
    name: str, linear: Linear, load_mode: LoadMode = "mmap", num_threads: int = 1
) -> list[np.ndarray]:  # type: ignore[type-arg]
    methods, _ = load_methods(
        FOLDER / f"{name}.pte",
        load_mode=load_mode,
        num_threads=num_threads,
        xnnpack=XnnpackOptions(linear=linear),
    )
    return [np.asarray(methods.run("forward", [batch])) for batch in batches(INPUTS[name])]


@pytest.mark.parametrize("linear", [*KERNELS, *ON_REQUEST])
@pytest.mark.parametrize("name", [name for name in INPUTS if name.startswith("int")])
def test_quantised_layers_give_the_bits_of_xnnpack(name: str, linear: Linear) -> None:
    # XNNPACK's kernels for processors without AVX-512 round between the groups of a row in another order.
    is_exact = name == "int8" or "avx512vnni" in KERNELS
    for ours, theirs in zip(outputs(name, linear), outputs(name, "xnnpack"), strict=True):
        bound = 0 if is_exact else 2 * np.finfo(np.float32).eps * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound)


@pytest.mark.parametrize("linear", [*KERNELS, *ON_REQUEST])
@pytest.mark.parametrize("name", ["float32", "float32_relu"])
def test_float_layers_differ_from_xnnpack_by_rounding(name: str, linear: Linear) -> None:
    for ours, theirs in zip(outputs(name, linear), outputs(name, "xnnpack"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * max(np.abs(theirs).max(), 1e-30))


@pytest.mark.parametrize("load_mode", ["mmap", "mmap+mlock", "file"])
def test_every_load_mode_gives_the_same(load_mode: LoadMode) -> None:
    for ours, mapped in zip(outputs("int8", "own", load_mode), outputs("int8", "own"), strict=True):
        np.testing.assert_array_equal(ours, mapped)


def test_the_thread_pool_gives_the_same() -> None:
    threads = build_info().num_pool_threads
    name = "int4_groups_of_32"
    for ours, alone in zip(outputs(name, "own", "mmap", threads), outputs(name, "own"), strict=True):
        np.testing.assert_array_equal(ours, alone)


@pytest.mark.parametrize(
    ("name", "is_ours"), [*((name, True) for name in INPUTS), ("int4_groups_of_96", False)]
)
def test_the_log_says_what_is_taken_over(name: str, is_ours: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="executorch_mm")

    load_methods(FOLDER / f"{name}.pte", xnnpack=XnnpackOptions(linear="own"))

    assert (f"1 graphs are linear layers of ours ({KERNELS[0]})" in caplog.text) == is_ours


def test_amx_is_only_for_who_asks_and_has_it() -> None:
    info = build_info()
    assert "amx" not in info.linear_kernels
    assert info.linear_kernels_on_request in ((), ("amx",))
    if info.linear_kernels_on_request == ():
        with pytest.raises(InputError, match=r"linear: expected 'auto', .*got 'amx'"):
            load_methods(FOLDER / "int8.pte", xnnpack=XnnpackOptions(linear="amx"))


def test_the_environment_chooses_where_the_option_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="executorch_mm")
    monkeypatch.setenv("EXECUTORCH_MM_LINEAR", "reference")

    load_methods(FOLDER / "int8.pte", xnnpack=XnnpackOptions(linear="xnnpack"))
    assert "linear layers of ours" not in caplog.text
    load_methods(FOLDER / "int8.pte")
    assert "1 graphs are linear layers of ours (reference)" in caplog.text


@pytest.mark.parametrize("name", ["int4_groups_of_32", "int4_groups_of_128", "int8", "float32"])
def test_by_default_ours_run_4_bit_groups_on_x86(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="executorch_mm")

    load_methods(FOLDER / f"{name}.pte")

    is_ours = name.startswith("int4_groups") and KERNELS[0] in {"avx512vnni", "avxvnni", "avx2"}
    assert ("linear layers of ours" in caplog.text) == is_ours


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"linear: expected 'auto', 'xnnpack', 'own', .*got 'amx'"):
        load_methods(FOLDER / "int8.pte", xnnpack=XnnpackOptions(linear="amx"))  # type: ignore[arg-type]
    monkeypatch.setenv("EXECUTORCH_MM_LINEAR", "fast")
    with pytest.raises(InputError, match=r"EXECUTORCH_MM_LINEAR: expected .*got 'fast'"):
        load_methods(FOLDER / "int8.pte")


@pytest.mark.parametrize("linear", [*KERNELS, *ON_REQUEST])
@pytest.mark.parametrize("name", ["llama_xnnpack_8da4w.pte"])
def test_a_decoder_answers_as_with_xnnpack(name: str, linear: Linear) -> None:
    path = MODELS / "export_llm" / name
    answers = []
    for source in (path, path.read_bytes()):
        for side in ("xnnpack", linear):
            with MultimodalRunner(source, NumberTokenizer(), xnnpack=XnnpackOptions(linear=side)) as runner:
                tokens = make_token_input([3, 17, 40, 8, 25])
                answers.append(runner.generate_text(tokens, max_new_tokens=8, ignore_eos=True))

    assert answers[0]
    assert answers == [answers[0]] * 4


@pytest.mark.parametrize("offset", range(0, 1408, 7))
def test_damage_in_a_graph_is_an_error_or_an_answer(offset: int, tmp_path: Path) -> None:
    path = damaged(offset, tmp_path)
    try:
        methods, _ = load_methods(path, num_threads=1, xnnpack=XnnpackOptions(linear="own"))
        found = np.asarray(methods.run("forward", [batches(160)[8]]))
    except ExecutorchMMError:
        pass
    else:
        assert found.shape == (1, 3, 37)
