"""The checker of wheels passes what is installed here, and sees each fault that is put into it."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from binaries import CheckError
from check import CHECKS, Wheel
from common import ROOT, wheel_version
from emm_build.sbom import FILE_NAME

INFO = f"executorch_mm-{importlib.metadata.version('executorch_mm')}.dist-info"

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the faults are made in ELF files"),
    pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf (binutils) is not installed"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An unpacked wheel, made of the source tree, the installed module and the installed metadata."""
    folder = tmp_path / "unpacked"
    package = folder / "executorch_mm"
    shutil.copytree(ROOT / "executorch_mm", package, ignore=shutil.ignore_patterns("__pycache__"))
    spec = importlib.util.find_spec("executorch_mm._core")
    assert spec is not None
    assert spec.origin is not None
    for path in Path(spec.origin).parent.iterdir():
        if path.suffix == ".so" or path.name == "_core.pyi":
            (package / path.name).symlink_to(path)
    for file in importlib.metadata.files("executorch_mm") or []:
        name = file.as_posix().partition(".dist-info/")[2]
        if name in ("METADATA", "WHEEL") or name.startswith(("licenses/", "sboms/")):
            (folder / INFO / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(file.locate()), folder / INFO / name)
    write_record(folder)
    return folder


def write_record(folder: Path) -> None:
    record = folder / INFO / "RECORD"
    record.touch()
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != record):
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        lines.append(f"{path.relative_to(folder).as_posix()},sha256={digest},{path.stat().st_size}")
    record.write_text("\n".join([*lines, f"{INFO}/RECORD,,"]) + "\n")


def own_copy(path: Path) -> Path:
    """The file itself instead of a link to the installed one."""
    original = path.resolve()
    path.unlink()
    shutil.copy(original, path)
    return path


def wheel_file(folder: Path) -> Path:
    """The file that the unpacked wheel would have come from, empty."""
    tags = [line.split()[1] for line in (folder / INFO / "WHEEL").read_text().splitlines() if "Tag:" in line]
    platforms = ".".join(tag.split("-")[2] for tag in tags)
    name = "-".join([INFO.removesuffix(".dist-info"), *tags[0].split("-")[:2], platforms])
    path = folder.parent / f"{name}.whl"
    path.touch()
    return path


def faults(folder: Path) -> dict[str, str]:
    """What each check that fails says, by its name."""
    wheel = Wheel(wheel_file(folder), folder)
    answers = {check.__name__.removeprefix("check_"): fault(check, wheel) for check in CHECKS}
    return {name: text for name, text in answers.items() if text}


def fault(check: Callable[[Wheel], str], wheel: Wheel) -> str:
    """What one check complains of, nothing if it passes."""
    try:
        check(wheel)
    except CheckError as error:
        return str(error)
    return ""


def test_a_good_wheel_passes(folder: Path) -> None:
    assert faults(folder) == {}


def drop_a_licence(folder: Path) -> None:
    (folder / INFO / "licenses" / "licences" / "XNNPACK-LICENSE").unlink()


def drop_the_sbom(folder: Path) -> None:
    (folder / INFO / "sboms" / FILE_NAME).unlink()


def drop_a_component(folder: Path) -> None:
    path = folder / INFO / "sboms" / FILE_NAME
    path.write_text(path.read_text().replace('"name": "eigen"', '"name": "other"'))


def change_a_library(folder: Path) -> None:
    with own_copy(folder / "executorch_mm" / "libemm_executorch.so").open("ab") as file:
        file.write(b"1")


def add_a_dependency(folder: Path) -> None:
    path = folder / INFO / "METADATA"
    path.write_text(
        path.read_text().replace("Requires-Dist: numpy", "Requires-Dist: torch\nRequires-Dist: numpy")
    )


def change_the_version(folder: Path) -> None:
    path = folder / INFO / "METADATA"
    path.write_text(path.read_text().replace("\nVersion: ", "\nVersion: 9."))


def drop_the_stub(folder: Path) -> None:
    (folder / "executorch_mm" / "_core.pyi").unlink()


def ship_sources(folder: Path) -> None:
    (folder / "executorch_mm" / "runner.cpp").touch()


def ship_tests(folder: Path) -> None:
    (folder / "tests").mkdir()


def change_the_suffix(folder: Path) -> None:
    (module,) = (folder / "executorch_mm").glob("_core*.so")
    module.rename(module.with_name("_core.cpython-39-x86_64-linux-gnu.so"))


def use_the_original_name(folder: Path) -> None:
    path = folder / "executorch_mm" / "libemm_executorch_etdump.so"
    path.rename(path.with_name("libexecutorch_etdump.so"))


@pytest.mark.parametrize(
    ("fault", "check", "told"),
    [
        (drop_a_licence, "licences", "XNNPACK-LICENSE"),
        (drop_the_sbom, "sbom", FILE_NAME),
        (drop_a_component, "sbom", "eigen"),
        (change_a_library, "sbom", "libemm_executorch.so"),
        (add_a_dependency, "metadata", "torch"),
        (change_the_version, "metadata", "9."),
        (drop_the_stub, "contents", "_core.pyi"),
        (ship_sources, "contents", "runner.cpp"),
        (ship_tests, "contents", "tests"),
        (change_the_suffix, "tags", "cpython-39"),
        (use_the_original_name, "linking", "libexecutorch_etdump.so"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_fault_is_seen(folder: Path, fault: Callable[[Path], None], check: str, told: str) -> None:
    fault(folder)
    write_record(folder)

    assert told in faults(folder)[check]


def test_a_file_that_changed_after_the_build_is_seen(folder: Path) -> None:
    (folder / "executorch_mm" / "py.typed").write_text("changed")

    assert "py.typed" in faults(folder)["record"]


def test_a_wheel_that_is_too_large_is_seen(folder: Path) -> None:
    with wheel_file(folder).open("wb") as large:
        large.truncate(10_000_001)

    assert "got 10.00 MB" in faults(folder)["size"]


@pytest.mark.parametrize(
    ("interpreter", "wheel"),
    [
        ("3.10", "3.10"),
        ("3.11", "3.11"),
        ("3.12", "3.12"),
        ("3.13", "3.12"),
        ("3.14", "3.12"),
        ("3.14t", "3.14t"),
    ],
)
def test_interpreters_with_the_gil_share_the_stable_wheel(interpreter: str, wheel: str) -> None:
    assert wheel_version(interpreter) == wheel
