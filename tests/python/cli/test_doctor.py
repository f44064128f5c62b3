"""`executorch-mm doctor`: what it finds in a sound installation and in broken ones."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

import pytest

import executorch_mm
from executorch_mm import cli
from executorch_mm._loading.pretrained import ModelFiles, find_model
from executorch_mm.cli.doctor import installation, model
from executorch_mm.cli.doctor.model import check_model
from executorch_mm.demo import questions

MODELS = Path(__file__).parents[2] / "models"
Report = dict[str, list[dict[str, str]]]
Doctor = Callable[..., tuple[int, Report]]


@pytest.fixture
def doctor(capfd: pytest.CaptureFixture[str]) -> Doctor:
    """Runs it; returns the exit code and the findings by name."""

    def run(*arguments: str) -> tuple[int, Report]:
        code = cli.main(["doctor", "--json", *arguments])
        output = capfd.readouterr()
        assert output.err == ""
        content = json.loads(output.out)
        assert content["ok"] == (code == 0)
        found: Report = {}
        for check in content["checks"]:
            assert check["advice"] or check["status"] in ("ok", "note"), check
            found.setdefault(check["name"], []).append(check)
        return code, found

    return run


@pytest.fixture
def folder(demo_folder: Path, tmp_path: Path) -> Path:
    """A copy of the demo model that may be damaged."""
    return Path(shutil.copytree(demo_folder, tmp_path / "model"))


def files_of(model: Path, tokenizer: Path | None) -> ModelFiles:
    files = find_model(model)
    return files if tokenizer is None else replace(files, tokenizer=tokenizer)


def examine(model: Path, tokenizer: Path | None = None) -> Report:
    """The findings about a model alone."""
    found: Report = {}
    for check in check_model(lambda: files_of(model, tokenizer)):
        assert check.advice or check.status in ("ok", "note"), check
        found.setdefault(check.name, []).append(asdict(check))
    return found


def statuses(report: Report, *names: str) -> list[str]:
    return [report[name][-1]["status"] for name in names]


def test_a_sound_installation_and_model_pass_without_a_network(
    doctor: Doctor, demo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the doctor opens a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    code, report = doctor(str(demo_folder))
    assert code == 0
    names = ("package", "compiled module", "numpy", "libraries", "threads", "demo model")
    names += ("model", "tokenizer", "load", "vocabulary", "text", "chat template", "image", "audio")
    expected = ["ok"] * len(names)
    if sys.platform == "linux" and len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
        expected[names.index("threads")] = "warning"  # the pool is as large as the machine
    assert statuses(report, *names) == expected
    info = executorch_mm.build_info()
    assert info.executorch_version in report["compiled module"][0]["detail"]
    assert report["instruction set"][0]["detail"] == info.instruction_set
    assert metadata.version("numpy") == report["numpy"][0]["detail"]


def test_the_findings_are_lines_with_advice_and_a_sum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", str(tmp_path / "no.pte")]) == 1
    *lines, total = capsys.readouterr().out.splitlines()
    (failed,) = (index for index, line in enumerate(lines) if line.startswith("FAILED"))
    assert "no.pte" in lines[failed]
    assert lines[failed + 1].strip() == (
        "-> name a .pte file, a folder with exactly one, or a Hugging Face repository as owner/name"
    )
    assert total.endswith(", 1 failed")


def test_a_missing_tokenizer_is_found_before_the_model_is_loaded(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    report = examine(folder)
    assert statuses(report, "model", "tokenizer") == ["ok", "failed"]
    assert "--tokenizer" in report["tokenizer"][0]["advice"]
    assert "load" not in report


def test_a_tokenizer_elsewhere_can_be_named(folder: Path, demo_folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    report = examine(folder / "model.pte", demo_folder / "tokenizer.json")
    assert statuses(report, "tokenizer", "text") == ["ok", "ok"]


def test_a_tokenizer_of_another_model_is_told_by_its_size(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    token = {"id": 640, "content": "<|more|>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer["added_tokens"].append({**token, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    report = examine(folder)
    assert statuses(report, "tokenizer", "vocabulary") == ["ok", "failed"]
    assert "641 tokens, the model only 640" in report["vocabulary"][0]["detail"]


def test_a_damaged_model_is_a_failure(folder: Path) -> None:
    content = bytearray((folder / "model.pte").read_bytes())
    content[: 1 << 14] = bytes(1 << 14)
    (folder / "model.pte").write_bytes(content)
    report = examine(folder)
    assert statuses(report, "model") == ["failed"]


def test_a_broken_template_and_processor_do_not_hide_the_rest(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for %}", encoding="utf-8")
    (folder / "preprocessor_config.json").write_text("{", encoding="utf-8")
    report = examine(folder)
    assert statuses(report, "load", "text", "chat template", "image") == ["ok", "ok", "failed", "failed"]


def test_a_model_for_another_class_is_a_warning() -> None:
    report = examine(MODELS / "clip" / "clip.pte")
    assert statuses(report, "model") == ["warning"]
    assert "ClipModel" in report["model"][0]["advice"]


def test_a_text_to_text_model_is_given_a_text() -> None:
    report = examine(MODELS / "seq2seq" / "t5.pte")
    assert statuses(report, "model", "tokenizer", "load", "text") == ["ok", "ok", "ok", "ok"]
    assert report["load"][0]["detail"] == "texts of up to 40 tokens"


def test_a_speech_model_is_given_an_audio_clip() -> None:
    report = examine(MODELS / "speech" / "kv.pte")
    assert statuses(report, "model", "load", "audio") == ["ok", "ok", "ok"]


def test_a_model_that_hears_is_given_an_audio_clip(tmp_path: Path, demo_folder: Path) -> None:
    shutil.copy(MODELS / "multimodal" / "voxtral.pte", tmp_path / "model.pte")
    report = examine(tmp_path, demo_folder)
    assert statuses(report, "load", "audio") == ["ok", "failed"]
    assert "preprocessor_config.json" in report["audio"][0]["advice"]


@pytest.mark.parametrize(
    ("name", "version", "status", "detail"),
    [
        ("jinja2", "3.1.5", "failed", "expected 3.1.6 or newer, got 3.1.5"),
        ("jinja2", None, "failed", "not installed"),
        ("jinja2", "10.0", "ok", "10.0"),
        ("tiktoken", None, "note", "not installed"),
        ("huggingface_hub", "0.1", "failed", "expected 0.25 or newer, got 0.1"),
    ],
)
def test_requirements_are_the_packages_own(
    doctor: Doctor,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    version: str | None,
    status: str,
    detail: str,
) -> None:
    real = metadata.version

    def pretended(wanted: str) -> str:
        if wanted == name and version is None:
            raise metadata.PackageNotFoundError(name)
        return version if wanted == name and version else real(wanted)

    monkeypatch.setattr(installation.metadata, "version", pretended)
    code, report = doctor()
    (check,) = (found[0] for label, found in report.items() if label.split(" ")[0] == name)
    assert (check["status"], check["detail"]) == (status, detail)
    assert code == (status == "failed")
    if status == "failed":
        assert check["advice"].startswith("pip install")


def test_wrong_numbers_are_noticed_by_the_demo_model(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "NUMBERS", ["many"] * 10)
    code, report = doctor()
    assert (code, statuses(report, "demo model")) == (1, ["failed"])


def test_another_version_of_executorch_is_named(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version
    versions = {"executorch": "0.7.0"}
    monkeypatch.setattr(installation.metadata, "version", lambda name: versions.get(name) or real(name))
    code, report = doctor()
    assert (code, statuses(report, "other ExecuTorch")) == (0, ["note"])
    assert "0.7.0" in report["other ExecuTorch"][0]["detail"]


def test_little_memory_is_a_warning(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(installation, "available_memory", lambda: 1 << 20)
    monkeypatch.setattr(model, "available_memory", lambda: 1 << 20)
    code, report = doctor(str(folder))
    assert (code, [check["status"] for check in report["memory"]]) == (0, ["warning", "warning"])


@pytest.mark.skipif(sys.platform != "linux", reason="LD_LIBRARY_PATH and /proc/self/maps are Linux's")
def test_libraries_of_another_folder_are_found(tmp_path: Path) -> None:
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    (library,) = {line.split(maxsplit=5)[-1] for line in maps if line.endswith("/libemm_executorch.so")}
    shutil.copy(library, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "executorch_mm", "doctor", "--json"],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (check,) = (check for check in json.loads(done.stdout)["checks"] if check["name"] == "libraries")
    assert (done.returncode, check["status"]) == (1, "failed")
    assert str(tmp_path) in check["detail"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/maps is Linux's")
def test_libraries_that_are_not_executorchs_may_lie_anywhere(doctor: Doctor, tmp_path: Path) -> None:
    library = tmp_path / "libemm_ops_testlib.so"  # as the tests of the operators load one
    library.write_bytes(bytes(4096))
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        assert str(library) in Path("/proc/self/maps").read_text(encoding="utf-8")
        _, report = doctor()
    assert report["libraries"][0]["status"] == "ok"
