"""The ExecuTorch libraries in the installed package: renamed, self-contained, licensed."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emm_build.sbom import Component, read_components

# Words that one licence has and the others have not.
LICENCE_PHRASES = {
    "Apache-2.0": "Apache License",
    "BSD-2-Clause": "Redistributions in binary form must reproduce",
    "BSD-3-Clause": "endorse or promote products derived",
    "MIT": "without restriction, including without limitation the rights",
    "MPL-2.0": "Mozilla Public License Version 2.0",
}
LIBRARIES = [
    "libemm_executorch.so",
    "libemm_executorch_threadpool.so",
    "libemm_executorch_kernels_optimized.so",
    "libemm_executorch_kernels_quantized.so",
    "libemm_executorch_backend_xnnpack.so",
    "libemm_executorch_backend_openvino.so",
    "libemm_executorch_etdump.so",
]
# What every glibc system has; anything else would have to come with us.
SYSTEM = re.compile(r"(libc|libm|libdl|libpthread|librt|libgcc_s|libstdc\+\+|ld-linux-[\w-]+)\.so\.\d+$")

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF headers")


@pytest.fixture(scope="module")
def module_path() -> Path:
    """The extension module; the libraries lie beside it (in an editable install not beside the .py files)."""
    spec = importlib.util.find_spec("executorch_mm._core")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def dynamic_section(path: Path) -> dict[str, list[str]]:
    """The NEEDED, SONAME, RUNPATH and RPATH entries of an ELF file."""
    readelf = shutil.which("readelf")
    if readelf is None:
        pytest.skip("readelf (binutils) is not installed")
    text = subprocess.run([readelf, "-dW", str(path)], capture_output=True, text=True, check=True).stdout
    entries: dict[str, list[str]] = {"NEEDED": [], "SONAME": [], "RUNPATH": [], "RPATH": []}
    for kind, value in re.findall(r"\((NEEDED|SONAME|RUNPATH|RPATH)\).*\[(.*)\]", text):
        entries[kind].append(value)
    return entries


@on_linux
@pytest.mark.parametrize("name", LIBRARIES)
def test_a_vendored_library_has_a_name_of_ours_and_looks_only_beside_itself(
    module_path: Path, name: str
) -> None:
    entries = dynamic_section(module_path.with_name(name))

    assert entries["SONAME"] == [name]
    assert entries["RUNPATH"] == ["$ORIGIN"]
    assert entries["RPATH"] == []
    assert [
        needed for needed in entries["NEEDED"] if not SYSTEM.match(needed) and needed not in LIBRARIES
    ] == []


@on_linux
def test_the_module_needs_every_vendored_library_and_looks_only_beside_itself(module_path: Path) -> None:
    entries = dynamic_section(module_path)

    assert sorted(needed for needed in entries["NEEDED"] if not SYSTEM.match(needed)) == sorted(LIBRARIES)
    assert entries["RUNPATH"] == ["$ORIGIN"]
    assert entries["RPATH"] == []


@on_linux
def test_nothing_else_is_vendored(module_path: Path) -> None:
    assert sorted(path.name for path in module_path.parent.glob("lib*.so*")) == sorted(LIBRARIES)


@on_linux
def test_the_module_exports_nothing_but_its_init_function(module_path: Path) -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not installed")
    text = subprocess.run(
        [nm, "-D", "--defined-only", str(module_path)], capture_output=True, text=True, check=True
    ).stdout
    strong = [line.split()[-1] for line in text.splitlines() if line.split()[-2] in "TDB"]

    assert strong == ["PyInit__core"]


def test_the_stub_and_the_typing_marker_are_installed(module_path: Path) -> None:
    assert module_path.with_name("_core.pyi").is_file()
    files = [str(path) for path in importlib.metadata.files("executorch_mm") or []]
    assert any(path.endswith("_core.pyi") for path in files)


@pytest.mark.parametrize("component", read_components(), ids=lambda component: component.name)
def test_the_licence_of_everything_inside_is_installed(component: Component) -> None:
    files = [path for path in importlib.metadata.files("executorch_mm") or [] if path.name == component.text]

    assert len(files) == 1
    assert "licenses" in files[0].parts
    text = files[0].read_text(encoding="utf-8")
    assert "copyright" in text.lower()
    assert {
        part for part in component.licence.split(" AND ") if LICENCE_PHRASES[part] in " ".join(text.split())
    } == {*component.licence.split(" AND ")}


def test_the_metadata_names_every_licence_inside() -> None:
    metadata = importlib.metadata.metadata("executorch_mm")
    licences = {part for component in read_components() for part in component.licence.split(" AND ")}

    assert set(str(metadata["License-Expression"]).split(" AND ")) == licences
