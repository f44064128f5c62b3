"""The environment variables that leave a part of a program to who ran it before."""

from __future__ import annotations

import pytest

from executorch_mm import InputError
from executorch_mm._loading.methods import load_methods
from switched_decoder import MODEL, OWN, talk

SWITCHES = {
    "EXECUTORCH_MM_POINTWISE": "xnnpack",
    "EXECUTORCH_MM_ROTARY": "xnnpack",
    "EXECUTORCH_MM_EQUAL_CALLS": "executorch",
}


@pytest.mark.parametrize(("variable", "other"), SWITCHES.items())
def test_an_unknown_word_is_refused(variable: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "fast")

    with pytest.raises(InputError, match=f"{variable}: expected 'own', '{other}', got 'fast'"):
        load_methods(MODEL, xnnpack=OWN)


# With loops of ours last bits differ from XNNPACK's.
@pytest.mark.parametrize("variable", ["EXECUTORCH_MM_ROTARY", "EXECUTORCH_MM_EQUAL_CALLS"])
def test_a_conversation_goes_back_and_on(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = talk()
    monkeypatch.setenv(variable, SWITCHES[variable])

    assert ours == talk()
