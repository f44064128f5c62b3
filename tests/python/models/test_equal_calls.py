"""Instructions that repeat another one, left out, against ExecuTorch running all of them."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest

from executorch_mm._loading.methods import load_methods
from switched_decoder import MODEL, OWN, logits

VARIABLE = "EXECUTORCH_MM_EQUAL_CALLS"
ROTARY = "EXECUTORCH_MM_ROTARY"


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
