"""Models by one name: folders, and a stand-in for the Hugging Face Hub on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_hub
from executorch_mm import ModelLoadError, MultimodalRunner
from executorch_mm._loading.pretrained import find_model
from executorch_mm.demo import make_scene, render
from executorch_mm.demo.questions import NUMBERS

NOBODY = "http://127.0.0.1:9"  # refuses connections
QUESTION = [{"role": "user", "content": [render(make_scene(7)), "how many shapes are there?"]}]


def test_a_folder_has_all_that_a_model_needs(demo_folder: Path) -> None:
    with MultimodalRunner.from_pretrained(demo_folder, num_threads=1) as runner:
        assert runner.chat(QUESTION).text == NUMBERS[len(make_scene(7).shapes)]


def test_files_are_found_beside_the_model_and_above_it(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "xnnpack/model.pte", "xnnpack/weights.ptd", "xnnpack/more.ptd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    files = find_model(tmp_path)
    assert files.model == tmp_path / "xnnpack" / "model.pte"
    assert files.tokenizer == tmp_path
    assert files.data == (tmp_path / "xnnpack" / "more.ptd", tmp_path / "xnnpack" / "weights.ptd")
    (tmp_path / "xnnpack" / "tokenizer.model").touch()
    assert find_model(tmp_path).tokenizer == tmp_path / "xnnpack"


def test_a_file_is_a_name_too(tmp_path: Path, demo_folder: Path) -> None:
    for name in ("a.pte", "b.pte", "weights.ptd", "tokenizer.json"):
        (tmp_path / name).touch()
    files = find_model(tmp_path / "b.pte")
    assert (files.model, files.tokenizer) == (tmp_path / "b.pte", tmp_path)
    assert files.data == (tmp_path / "weights.ptd",)
    with MultimodalRunner.from_pretrained(demo_folder / "model.pte", num_threads=1) as runner:
        assert runner.chat(QUESTION).text == NUMBERS[len(make_scene(7).shapes)]
    with pytest.raises(ModelLoadError, match=r"none\.pte: no such file"):
        MultimodalRunner.from_pretrained(tmp_path / "none.pte")


def test_several_models_are_listed_and_chosen_from(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"expected one \.pte file, got no \.pte file"):
        find_model(tmp_path)
    for name in ("b.pte", "a.pte", "tokenizer.json"):
        (tmp_path / name).touch()
    with pytest.raises(ModelLoadError, match=r"expected one \.pte file, got a\.pte, b\.pte; .*model_file="):
        find_model(tmp_path)
    assert find_model(tmp_path, "b.pte").model == tmp_path / "b.pte"
    with pytest.raises(ModelLoadError, match=r"expected c\.pte, got a\.pte, b\.pte"):
        find_model(tmp_path, "c.pte")


@pytest.mark.parametrize("name", ["no-such-folder", "./no/folder", "/no/such", "a/b/c"])
def test_what_is_neither_folder_nor_repository_is_an_error(name: str) -> None:
    with pytest.raises(
        ModelLoadError, match=r"expected a \.pte file, a folder, or a Hugging Face repository as owner/name"
    ):
        MultimodalRunner.from_pretrained(name)


# The Hub.


@pytest.fixture
def hub(demo_folder: Path) -> Iterator[str]:
    with tiny_hub.serving(demo_folder) as address:
        yield address


ASK = """
import sys
from executorch_mm import MultimodalRunner
from executorch_mm.demo import make_scene, render
name, *local = sys.argv[1:]
options = {"local_files_only": True} if local else {}
with MultimodalRunner.from_pretrained(name, num_threads=1, **options) as runner:
    content = [render(make_scene(7)), "how many shapes are there?"]
    print(runner.chat([{"role": "user", "content": content}]).text)
"""


def ask(cache: Path, repo: str, *local: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The answer of a fresh process: huggingface_hub reads its settings when it is imported."""
    pytest.importorskip("huggingface_hub")
    return subprocess.run(
        [sys.executable, "-c", ASK, repo, *local],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **environment},
    )


def test_a_repository_is_downloaded_once_and_then_works_offline(hub: str, tmp_path: Path) -> None:
    expected = NUMBERS[len(make_scene(7).shapes)]
    first = ask(tmp_path, "owner/tiny", HF_ENDPOINT=hub)
    assert first.stdout.strip() == expected, first.stderr
    assert list(tmp_path.rglob("model.pte"))
    assert not list(tmp_path.rglob("README.md"))  # what is not needed stays there
    offline = ask(tmp_path, "owner/tiny", HF_HUB_OFFLINE="1")
    assert offline.stdout.strip() == expected, offline.stderr
    unreachable = ask(tmp_path, "owner/tiny", HF_ENDPOINT=NOBODY)
    assert unreachable.stdout.strip() == expected, unreachable.stderr
    told = ask(tmp_path, "owner/tiny", "local", HF_ENDPOINT=hub)
    assert told.stdout.strip() == expected, told.stderr


def test_a_repository_that_is_not_there_is_a_load_error(hub: str, tmp_path: Path) -> None:
    missing = ask(tmp_path, "owner/other", HF_ENDPOINT=hub)
    assert "ModelLoadError: owner/other: no such folder, and from the Hub: " in missing.stderr


@pytest.mark.parametrize(
    ("local", "environment", "why"),
    [
        ((), {"HF_ENDPOINT": NOBODY}, "the Hub cannot be reached ("),
        ((), {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE forbids to ask the Hub"),
        (("local",), {"HF_ENDPOINT": NOBODY}, "local_files_only forbids to ask the Hub"),
    ],
)
def test_without_a_connection_one_error_comes_at_once_and_says_what_helps(
    local: tuple[str, ...], environment: dict[str, str], why: str, tmp_path: Path
) -> None:
    result = ask(tmp_path, "owner/tiny", *local, **environment)
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith(
        "executorch_mm.errors.ModelLoadError: owner/tiny: no such folder, nothing of it"
    )
    assert why in message
    assert "local_files_only=True or HF_HUB_OFFLINE=1 loads it without one" in message
    assert "Retrying" not in result.stderr  # as huggingface_hub does five times, for 23 seconds


def test_without_huggingface_hub_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"executorch_mm\[hub\]"):
        MultimodalRunner.from_pretrained("owner/tiny")
