"""`executorch-mm pull` and `list`, with a stand-in for the Hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_hub
from executorch_mm import cli

COMMIT = tiny_hub.COMMIT


@pytest.fixture
def hub(demo_folder: Path) -> Iterator[str]:
    with tiny_hub.serving(demo_folder) as address:
        yield address


def command(cache: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its settings when it is imported."""
    pytest.importorskip("huggingface_hub")
    return subprocess.run(
        [sys.executable, "-m", "executorch_mm", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **environment},
    )


def test_a_model_is_pulled_and_then_listed_without_a_connection(hub: str, tmp_path: Path) -> None:
    pulled = command(tmp_path, "pull", "owner/tiny", HF_ENDPOINT=hub)
    assert pulled.returncode == 0, pulled.stderr
    path = Path(pulled.stdout.strip())
    assert path.name == "model.pte"
    assert path.is_file()
    assert {"tokenizer.json", "chat_template.jinja"} <= {file.name for file in path.parent.iterdir()}

    (model,) = json.loads(command(tmp_path, "list", "--json", HF_HUB_OFFLINE="1").stdout)
    assert model["repo"] == "owner/tiny"
    assert (model["revision"], model["refs"]) == (COMMIT, ["main"])
    assert model["programs"] == ["model.pte"]
    assert model["path"] == str(path.parent)
    assert model["bytes"] == sum(file.stat().st_size for file in path.parent.iterdir())

    # what is not there is said without asking anybody
    missing = command(tmp_path, "pull", "owner/other", HF_HUB_OFFLINE="1")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("executorch-mm: owner/other: ")
    assert "HF_HUB_OFFLINE" in missing.stderr


def cached(root: Path, repo: str, commit: str, *files: str, ref: str | None = None) -> None:
    """As the Hub's client lays it out."""
    folder = root / f"models--{repo.replace('/', '--')}"
    for name in files:
        place = folder / "snapshots" / commit / name
        blob = folder / "blobs" / f"{commit}-{name.replace('/', '-')}"
        place.parent.mkdir(parents=True, exist_ok=True)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(b"x" * 2048)
        place.symlink_to(blob)
    (folder / "refs").mkdir(exist_ok=True)
    if ref is not None:
        (folder / "refs" / ref).write_text(commit)


def test_the_list_has_what_can_be_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("huggingface_hub")
    cached(tmp_path, "b/two", "1" * 40, "a/model.pte", "tokenizer.json", ref="main")
    cached(tmp_path, "a/one", "2" * 40, "x.bundle")
    cached(tmp_path, "c/none", "3" * 40, "model.safetensors", ref="main")
    assert cli.main(["list", "--cache-dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == ["MODEL", "a/one", "b/two"]
    assert out[1].split()[1] == "2" * 12
    assert out[1].endswith("x.bundle")
    assert out[2].split()[1:4] == ["main", "4.0", "KiB"]
    assert out[2].endswith("a/model.pte")


def test_without_models_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("huggingface_hub")
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert cli.main(["list", "--cache-dir", str(folder)]) == 0
        assert "no models" in capsys.readouterr().out
        assert cli.main(["list", "--json", "--cache-dir", str(folder)]) == 0
        assert json.loads(capsys.readouterr().out) == []
    (tmp_path / "file").touch()
    assert cli.main(["list", "--cache-dir", str(tmp_path / "file")]) == 1
    assert "cache" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["list"], ["pull", "owner/tiny"]])
def test_the_extra_is_named(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert cli.main(arguments) == 1
    assert "executorch_mm[hub]" in capsys.readouterr().err


def test_what_is_here_is_not_pulled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pull", str(tmp_path)]) == 2
    assert "owner/name" in capsys.readouterr().err
