"""Instructions that repeat another one, left out, against ExecuTorch running all of them."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest

from executorch_mm import InputError, MultimodalRunner, XnnpackOptions, make_token_input
from executorch_mm._loading.methods import load_methods
from model_set import MODELS
from number_tokenizer import NumberTokenizer

MODEL = MODELS / "export_llm" / "llama_xnnpack_8da4w.pte"
OWN = XnnpackOptions(linear="own")
VARIABLE = "EXECUTORCH_MM_EQUAL_CALLS"
ROTARY = "EXECUTORCH_MM_ROTARY"


def logits(calls: list[list[int]], threads: int = 1) -> np.ndarray:  # type: ignore[type-arg]
    methods, _ = load_methods(MODEL, xnnpack=OWN, num_threads=threads)
    rows, position = [], 0
    for tokens in calls:
        rows.append(np.array(methods.run("forward", [np.array([tokens]), np.array([position])])).ravel())
        position += len(tokens)
    return np.concatenate(rows)


@pytest.mark.parametrize("rotary", ["own", "xnnpack"])
@pytest.mark.parametrize("calls", [[[3], [17], [40], [8]], [[3, 17, 40, 8, 25, 1, 2], [9], [4, 5]]])
def test_logits_have_the_same_bits(
    calls: list[list[int]], rotary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROTARY, rotary)
    shorter = logits(calls)
    monkeypatch.setenv(VARIABLE, "executorch")
    whole = logits(calls)

    np.testing.assert_array_equal(shorter, whole)


@pytest.mark.parametrize("rotary", ["own", "xnnpack"])
@pytest.mark.parametrize(("value", "count"), [("", 8), ("own", 8), ("executorch", 0)])
def test_the_environment_switches_it_off(
    value: str, count: int, rotary: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="executorch_mm")
    monkeypatch.setenv(VARIABLE, value)
    monkeypatch.setenv(ROTARY, rotary)

    load_methods(MODEL, xnnpack=OWN)

    found = re.search(r"(\d+) instructions that repeat another one are left out", caplog.text)
    assert found is not None
    assert int(found[1]) == count


def test_an_unknown_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "fast")

    with pytest.raises(InputError, match=f"{VARIABLE}: expected 'own', 'executorch', got 'fast'"):
        load_methods(MODEL, xnnpack=OWN)


def test_a_conversation_goes_back_and_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def talk() -> list[str]:
        with MultimodalRunner(MODEL, NumberTokenizer(), xnnpack=OWN) as runner:
            texts = [runner.generate_text(make_token_input([3, 17, 40]), max_new_tokens=6, ignore_eos=True)]
            runner.rewind(2)
            texts.append(runner.generate_text(make_token_input([5]), max_new_tokens=6, ignore_eos=True))
            return texts

    shorter = talk()
    monkeypatch.setenv(VARIABLE, "executorch")

    assert shorter == talk()
