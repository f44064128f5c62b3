"""Rotary embeddings with the copies around them, by our loops and a shorter chain, against XNNPACK."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path

import numpy as np
import pytest

from executorch_mm import ExecutorchMMError
from executorch_mm._loading.methods import load_methods
from switched_decoder import MODEL, OWN, logits

VARIABLE = "EXECUTORCH_MM_ROTARY"


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
