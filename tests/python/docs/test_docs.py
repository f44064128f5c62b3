"""Every Python block of the README and of docs/ runs, one document after the other from top to bottom."""

from __future__ import annotations

import re
import shutil
import wave
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from executorch_mm import Contract, MethodSpec, TensorSpec, TransducerContract
from executorch_mm.demo import make_scene, render

ROOT = Path(__file__).parents[3]
SPEECH = ROOT / "tests" / "models" / "speech"
SEQ2SEQ = ROOT / "tests" / "models" / "seq2seq"
EMBEDDINGS = ROOT / "tests" / "models" / "embeddings"
SYBIL = Sybil([PythonCodeBlockParser()])
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_CODE = [path for path in DOCUMENTS if "```python" in path.read_text(encoding="utf-8")]


@pytest.fixture
def newcomers_folder(demo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with what the documents speak of: models, their files, two images, an audio clip."""
    shutil.copytree(demo_folder, tmp_path, dirs_exist_ok=True)
    for name, seed in (("photo.png", 7), ("other.png", 8)):
        render(make_scene(seed=seed)).save(tmp_path / name)
    shutil.copytree(SEQ2SEQ, tmp_path / "t5")
    shutil.copytree(SPEECH, tmp_path / "whisper", ignore=shutil.ignore_patterns("optimum.pte"))
    with wave.open(str(tmp_path / "speech.wav"), "wb") as audio:
        audio.setparams((1, 2, 16000, 0, "NONE", ""))
        audio.writeframes(np.random.default_rng(0).integers(-9000, 9000, 16000, np.int16).tobytes())
    for name, folder in (("embedder", "bert_mean"), ("reranker", "bert_reranker")):
        shutil.copytree(EMBEDDINGS / folder, tmp_path / name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("newcomers_folder")
@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_in_a_document_runs(path: Path) -> None:
    if "response_format=" in path.read_text(encoding="utf-8"):
        pytest.importorskip("llguidance", reason="the extra executorch_mm[guidance] is not installed")
    if "from openai" in path.read_text(encoding="utf-8"):
        pytest.importorskip("openai")
        pytest.importorskip("uvicorn", reason="the extra executorch_mm[server] is not installed")
    document = SYBIL.parse(path)
    examples = list(document.examples())
    assert len(examples) == path.read_text(encoding="utf-8").count("```python")
    for example in examples:
        example.evaluate()


def test_the_readmes_program_prints_what_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = SYBIL.parse(ROOT / "README.md").examples()
    example.evaluate()

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == text.partition("```text\n")[2].partition("\n```")[0]


def test_every_folder_of_tests_is_looked_into(pytestconfig: pytest.Config) -> None:
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "tests" / "python").rglob("test_*.py")}
    assert len(folders) > 10
    for pattern in pytestconfig.getini("norecursedirs"):
        assert not [folder for folder in folders if any(fnmatch(part, pattern) for part in folder.parts)]


@pytest.mark.parametrize("kind", [Contract, TransducerContract, MethodSpec, TensorSpec])
def test_the_page_of_contracts_names_every_attribute(kind: type) -> None:
    page = (ROOT / "docs" / "api" / "contract.md").read_text(encoding="utf-8")
    section = page.partition(f"## {kind.__name__}\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == {
        name for name in vars(kind) if not name.startswith("_")
    }
