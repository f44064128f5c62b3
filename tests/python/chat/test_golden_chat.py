"""Real chat templates, rendered as transformers renders them (tools/fixtures/chat/make_golden.py)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from chat_cases import CASES, NOW, SPECIAL_TOKENS
from executorch_mm.chat import ChatTemplate
from executorch_mm.errors import InputError

DATA = Path(__file__).parents[2] / "data" / "chat"


FOLDERS = [(DATA / "templates", DATA / "golden.json")]
if more := os.environ.get("EXECUTORCH_MM_TEST_TEMPLATES"):  # a folder that make_golden.py was run on
    FOLDERS.append((Path(more), Path(more) / "golden.json"))
GOLDEN = {
    folder / f"{name}.jinja": rendered
    for folder, file in FOLDERS
    for name, rendered in json.loads(file.read_text(encoding="utf-8")).items()
}


def test_the_fixtures_cover_the_families_and_the_cases() -> None:
    assert len(GOLDEN) >= 18
    assert all(set(rendered) == set(CASES) for rendered in GOLDEN.values())
    for case in CASES:  # none that every template refuses
        assert any(rendered[case] is not None for rendered in GOLDEN.values()), case


# Also in processes of their own, whose start takes its time: a few, and those of another folder.
WARY = [file for file in GOLDEN if "mistral" in file.stem or file.stem == "qwen3" or len(FOLDERS) > 1]


@pytest.mark.parametrize(
    ("file", "trusted"),
    [*((file, True) for file in GOLDEN), *((file, False) for file in WARY)],
    ids=lambda value: value.stem if isinstance(value, Path) else "trusted" if value else "wary",
)
def test_a_template_gives_what_transformers_renders(file: Path, trusted: bool) -> None:
    template = ChatTemplate(file.read_text(encoding="utf-8"), SPECIAL_TOKENS, trusted=trusted)
    for name, expected in GOLDEN[file].items():
        case = CASES[name]
        try:
            rendered = template.render(
                case.messages,
                tools=case.tools,
                documents=case.documents,
                add_generation_prompt=case.add_generation_prompt,
                options=case.options,
                now=NOW,
            )
        except InputError:
            rendered = None
        assert rendered == expected, name
