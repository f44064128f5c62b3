"""Each attempt in tests/attacks is refused, with the error that it names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "attacks" / "attempts.py"
_SPEC = importlib.util.spec_from_file_location("attempts", PROGRAM)
assert _SPEC is not None
assert _SPEC.loader is not None
attempts = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(attempts)


@pytest.mark.parametrize("attempt", attempts.ATTEMPTS, ids=lambda attempt: attempt.what)
def test_an_attempt_is_refused(attempt: attempts.Attempt) -> None:
    assert attempts.outcome(attempt)
