"""What becomes of each keyword of JSON schema, and that docs/generation.md says so."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")

ROOT = Path(__file__).resolve().parents[3]


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("schema_keywords", ROOT / "tools" / "schema_keywords.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for the annotations of its classes
    spec.loader.exec_module(module)
    return module


TOOL = load_tool()


def test_the_page_is_current() -> None:
    page = TOOL.PAGE.read_text(encoding="utf-8")
    assert page == TOOL.page_with(TOOL.table()), "run tools/schema_keywords.py"


@pytest.mark.parametrize("keyword", TOOL.PROBES)
def test_what_a_keyword_asks_for_is_enforced_or_refused(keyword: str) -> None:
    assert TOOL.fates(keyword) <= {"enforced", "refused"}


@pytest.mark.parametrize("name", TOOL.ANNOTATIONS)
def test_annotations_are_ignored(name: str) -> None:
    assert TOOL.annotation_fate(name) == "ignored"


@pytest.mark.parametrize("name", TOOL.FORMATS)
def test_a_format_is_enforced_or_ignored(name: str) -> None:
    assert TOOL.format_fate(name) in ("enforced", "ignored")
