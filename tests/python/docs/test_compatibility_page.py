"""docs/compatibility.md is what tools/compatibility.py writes when every test of the models passes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compatibility", ROOT / "tools" / "compatibility.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_current(tool: ModuleType) -> None:
    all_pass = {name: {"test": True} for name in tool.SETS}
    assert tool.PAGE.read_text(encoding="utf-8") == tool.page(all_pass), "run tools/compatibility.py"


def test_a_model_whose_test_fails_does_not_count_as_working(tool: ModuleType) -> None:
    model = {"name": "llama", "status": "works"}
    assert tool.outcome(model, {"test_a[llama]": True, "test_b[llama_sdpa]": False}) == "works"
    assert tool.outcome(model, {"test_a[llama]": True, "test_b[llama]": False}) == "FAILS"
    assert tool.outcome(model, {}) == "FAILS"
    assert tool.outcome({"name": "x", "status": "exporter_fails"}, {}) == "exporter fails"
