"""Graphs that compute number by number, with our loops against XNNPACK's delegate."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import ExecutorchMMError, MultimodalRunner, build_info, make_token_input
from executorch_mm._loading.methods import load_methods
from number_tokenizer import NumberTokenizer
from switched_decoder import MODEL, OWN, logits

VARIABLE = "EXECUTORCH_MM_POINTWISE"


def test_logits_differ_from_those_of_xnnpack_by_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [[3], [17], [40], [8], [25], [1]]
    ours = logits(calls)
    monkeypatch.setenv(VARIABLE, "xnnpack")
    theirs = logits(calls)

    # The inputs of a layer are rounded to 8 bits: a last bit may become a step of one input.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.02 * np.abs(theirs).max())
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()


@pytest.mark.parametrize(("value", "is_ours"), [("", True), ("own", True), ("xnnpack", False)])
def test_the_environment_switches_them_off(
    value: str, is_ours: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="executorch_mm")
    monkeypatch.setenv(VARIABLE, value)

    load_methods(MODEL, xnnpack=OWN)

    found = re.search(r"(\d+) graphs compute number by number", caplog.text)
    assert found is not None
    assert (int(found[1]) > 0) == is_ours


def test_they_run_by_default_beside_our_linear_layers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="executorch_mm")

    load_methods(MODEL)

    is_ours = build_info().linear_kernels[0] in {"avx512vnni", "avxvnni", "avx2"}
    assert bool(re.search(r"[1-9]\d* graphs compute number by number", caplog.text)) == is_ours


def test_a_prompt_read_at_once_or_token_by_token() -> None:
    with MultimodalRunner(MODEL, NumberTokenizer(), xnnpack=OWN) as runner:
        tokens = [3, 17, 40, 8, 25]
        at_once = runner.generate_text(make_token_input(tokens), max_new_tokens=8, ignore_eos=True)
        runner.reset()
        for token in tokens[:-1]:
            runner.prefill(make_token_input([token]))
        one_by_one = runner.generate_text(make_token_input(tokens[-1:]), max_new_tokens=8, ignore_eos=True)

    assert at_once == one_by_one


@pytest.mark.parametrize("value", ["own", "xnnpack"])
def test_a_prompt_has_the_same_bits_however_it_is_cut(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    choose = random.Random(5)
    with MultimodalRunner(MODEL, NumberTokenizer(), xnnpack=OWN) as runner:

        def read(*parts: list[int]) -> np.ndarray:  # type: ignore[type-arg]
            runner.reset()
            for part in parts:
                runner.prefill(make_token_input(part))
            return runner.save()._state.logits.copy()

        # A call takes 15 tokens: some of these end with a call of any number.
        for length in range(4, 41):
            for _ in range(3):
                tokens = [choose.randrange(2, 60) for _ in range(length)]
                whole = read(tokens)
                for cut in {2, min(9, length - 2), length // 2}:
                    np.testing.assert_array_equal(read(tokens[:-cut], tokens[-cut:]), whole)


def test_damage_in_a_graph_is_an_error_or_an_answer(tmp_path: Path) -> None:
    original = MODEL.read_bytes()
    graphs = [at for at in range(len(original)) if original.startswith(b"XH00", at)]
    choose = random.Random(5)
    for _ in range(60):
        data = bytearray(original)
        data[choose.choice(graphs) + choose.randrange(600)] = choose.randrange(256)
        path = tmp_path / "damaged.pte"
        path.write_bytes(data)
        try:
            methods, _ = load_methods(path, xnnpack=OWN)
            methods.run("forward", [np.array([[3]]), np.array([0])])
        except ExecutorchMMError:
            pass
