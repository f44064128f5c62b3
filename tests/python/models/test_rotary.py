"""Rotary embeddings with the copies around them, by our loops and a shorter chain, against XNNPACK."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import ExecutorchMMError, InputError, MultimodalRunner, XnnpackOptions, make_token_input
from executorch_mm._loading.methods import load_methods
from model_set import MODELS
from number_tokenizer import NumberTokenizer

MODEL = MODELS / "export_llm" / "llama_xnnpack_8da4w.pte"
OWN = XnnpackOptions(linear="own")
VARIABLE = "EXECUTORCH_MM_ROTARY"


def logits(calls: list[list[int]], threads: int = 1) -> np.ndarray:  # type: ignore[type-arg]
    methods, _ = load_methods(MODEL, xnnpack=OWN, num_threads=threads)
    rows, position = [], 0
    for tokens in calls:
        rows.append(np.array(methods.run("forward", [np.array([tokens]), np.array([position])])).ravel())
        position += len(tokens)
    return np.concatenate(rows)


@pytest.mark.parametrize("calls", [[[3], [17], [40], [8]], [[3, 17, 40, 8, 25, 1, 2], [9], [4, 5]]])
def test_logits_have_the_bits_of_xnnpack(calls: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    ours = logits(calls)
    monkeypatch.setenv(VARIABLE, "xnnpack")
    theirs = logits(calls)

    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("value", "count"), [("", 2), ("own", 2), ("xnnpack", 0)])
def test_the_environment_switches_them_off(
    value: str, count: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="executorch_mm")
    monkeypatch.setenv(VARIABLE, value)

    load_methods(MODEL, xnnpack=OWN)

    found = re.search(r"(\d+) rotary embeddings are ours", caplog.text)
    assert found is not None
    assert int(found[1]) == count


def test_an_unknown_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "fast")

    with pytest.raises(InputError, match=f"{VARIABLE}: expected 'own', 'xnnpack', got 'fast'"):
        load_methods(MODEL, xnnpack=OWN)


def test_a_conversation_goes_back_and_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def talk() -> list[str]:
        with MultimodalRunner(MODEL, NumberTokenizer(), xnnpack=OWN) as runner:
            texts = [runner.generate_text(make_token_input([3, 17, 40]), max_new_tokens=6, ignore_eos=True)]
            runner.rewind(2)
            texts.append(runner.generate_text(make_token_input([5]), max_new_tokens=6, ignore_eos=True))
            return texts

    ours = talk()
    monkeypatch.setenv(VARIABLE, "xnnpack")

    assert ours == talk()


def test_damage_in_the_structure_is_an_error_or_an_answer(tmp_path: Path) -> None:
    original = MODEL.read_bytes()
    structure = int.from_bytes(original[16:24], "little")
    choose = random.Random(7)
    for _ in range(60):
        data = bytearray(original)
        data[choose.randrange(40, structure)] = choose.randrange(256)
        path = tmp_path / "damaged.pte"
        path.write_bytes(data)
        try:
            methods, _ = load_methods(path, xnnpack=OWN)
            methods.run("forward", [np.array([[3]]), np.array([0])])
        except ExecutorchMMError:
            pass
