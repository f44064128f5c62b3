"""Checks finished wheels from the outside, with the standard library and the platform's readelf or otool.

    python tools/wheel/check.py WHEEL...

Used by `nox -s wheel`, by cibuildwheel on hosted runners and by whoever wants to know what a wheel is.
Prints one line a check; the exit code is 1 if one failed.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from email.parser import Parser
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "build_backend"), str(Path(__file__).parent)]

import binaries  # noqa: E402
from binaries import CheckError, expect  # noqa: E402
from emm_build.sbom import FILE_NAME, licence_expression, read_components  # noqa: E402

MAX_MEGABYTES = 10.0
DEPENDENCIES = ["jinja2", "numpy", "pillow", "tokenizers"]


class Wheel:
    """A wheel that has been unpacked.

    Attributes:
        path: The .whl file.
        folder: Where it is unpacked.
        python, abi, platform: The tags of its file name.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.python, self.abi, self.platform = path.stem.split("-")[2:5]

    @cached_property
    def info(self) -> Path:
        """Its .dist-info folder."""
        (found,) = self.folder.glob("*.dist-info")
        return found

    @cached_property
    def machine(self) -> str:
        """The last part of its platform: "x86_64", "aarch64" or "arm64"."""
        return next(name for name in ("x86_64", "aarch64", "arm64") if self.platform.endswith(name))

    @cached_property
    def sdk_platform(self) -> str:
        """The key of the SDK that it was built with."""
        return f"{'macosx' if self.platform.startswith('macosx') else 'linux'}-{self.machine}"

    @cached_property
    def modules(self) -> list[Path]:
        """The extension modules, of which there should be one."""
        return sorted((self.folder / "executorch_mm").glob("_core*.so"))

    @cached_property
    def libraries(self) -> dict[str, Path]:
        """The vendored libraries by the name of the SDK's component."""
        paths = [path for path in (self.folder / "executorch_mm").iterdir() if path.name.startswith("lib")]
        return {
            path.name.split(".")[0].removeprefix("libemm_executorch").removeprefix("_") or "runtime": path
            for path in sorted(paths)
        }

    def metadata(self, file: str, key: str) -> list[str]:
        """All values of a header in METADATA or WHEEL."""
        message = Parser().parsestr((self.info / file).read_text(encoding="utf-8"))
        return [str(value) for value in message.get_all(key, [])]


def check_size(wheel: Wheel) -> str:
    """Small enough to be installed without a thought."""
    megabytes = wheel.path.stat().st_size / 1e6
    expect(megabytes < MAX_MEGABYTES, f"expected less than {MAX_MEGABYTES} MB, got {megabytes:.2f} MB")
    unpacked = sum(path.stat().st_size for path in wheel.folder.rglob("*")) / 1e6
    return f"{megabytes:.2f} MB, {unpacked:.1f} MB unpacked"


def check_tags(wheel: Wheel) -> str:
    """File name and WHEEL say the same, and the module has the suffix that its interpreters look for."""
    named = sorted(f"{wheel.python}-{wheel.abi}-{each}" for each in wheel.platform.split("."))
    inside = sorted(wheel.metadata("WHEEL", "Tag"))
    expect(inside == named, f"the file name says {named}, WHEEL says {inside}")
    system = "darwin" if wheel.platform.startswith("macosx") else f"{wheel.machine}-linux-gnu"
    soabi = "abi3" if wheel.abi == "abi3" else f"cpython-{wheel.abi.removeprefix('cp')}-{system}"
    names = [path.name for path in wheel.modules]
    expect(names == [f"_core.{soabi}.so"], f"expected the module _core.{soabi}.so, got {names}")
    return f"{', '.join(named)}; {names[0]}"


def check_record(wheel: Wheel) -> str:
    """RECORD names every file with its hash."""
    own_name = f"{wheel.info.name}/RECORD"
    with (wheel.folder / own_name).open(encoding="utf-8", newline="") as file:
        listed = {row[0]: row[1] for row in csv.reader(file)}
    files = {path.relative_to(wheel.folder).as_posix() for path in wheel.folder.rglob("*") if path.is_file()}
    expect(set(listed) == files, f"in the wheel or in RECORD alone: {sorted(set(listed) ^ files)}")
    for name in sorted(files - {own_name}):
        digest = hashlib.sha256((wheel.folder / name).read_bytes()).digest()
        expected = f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
        expect(listed[name] == expected, f"{name}: expected {expected}, got {listed[name]}")
    return f"{len(files)} files"


def check_contents(wheel: Wheel) -> str:
    """Typed, with its stub and its model, and nothing that only developers need."""
    package = wheel.folder / "executorch_mm"
    for needed in ("__init__.py", "py.typed", "_core.pyi", "models/tiny_vlm/model.pte"):
        expect((package / needed).is_file(), f"executorch_mm/{needed} is missing")
    top = {path.name for path in wheel.folder.iterdir()}
    expect(top == {"executorch_mm", wheel.info.name}, f"at the top lie {sorted(top)}")
    unwanted = [path.name for path in package.rglob("*") if path.suffix in {".cpp", ".h", ".a", ".o", ".pyc"}]
    expect(not unwanted, f"not for users: {unwanted}")
    return "package, typing marker, stub, model"


def check_metadata(wheel: Wheel) -> str:
    """The version of pyproject.toml, the four dependencies and no others."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")  # Python 3.10 has no reader for it
    found = re.search(r'^version = "(.*)"$', text, re.MULTILINE)
    expected = found[1] if found else ""
    (version,) = wheel.metadata("METADATA", "Version")
    expect(version == expected, f"expected version {expected}, got {version}")
    required = [line for line in wheel.metadata("METADATA", "Requires-Dist") if "extra ==" not in line]
    names = sorted(re.split(r"[^\w-]", line)[0] for line in required)
    expect(names == DEPENDENCIES, f"expected the requirements {DEPENDENCIES}, got {names}")
    return f"version {version}; requires {', '.join(names)}"


def check_licences(wheel: Wheel) -> str:
    """A text for each project whose code may be inside, and the expression that sums them up."""
    found = {path.name for path in (wheel.info / "licenses").rglob("*") if path.is_file()}
    expected = {"LICENSE", *(component.text for component in read_components())}
    expect(found == expected, f"in the wheel or in the list alone: {sorted(found ^ expected)}")
    expression = wheel.metadata("METADATA", "License-Expression")
    expect(expression == [licence_expression()], f"expected {licence_expression()}, got {expression}")
    return f"{len(found)} texts; {expression[0]}"


def check_sbom(wheel: Wheel) -> str:
    """The bill of materials names every library with its hash and every component with its version."""
    path = wheel.info / "sboms" / FILE_NAME
    expect(path.is_file(), f"sboms/{FILE_NAME} is missing")
    entries = json.loads(path.read_text(encoding="utf-8"))["components"]
    files = {entry["name"]: entry["hashes"][0]["content"] for entry in entries if entry["type"] == "file"}
    names = {library.name for library in wheel.libraries.values()}
    expect(set(files) == names, f"in the wheel or in the list alone: {sorted(set(files) ^ names)}")
    for library in wheel.libraries.values():
        digest = hashlib.sha256(library.read_bytes()).hexdigest()
        expect(files[library.name] == digest, f"{library.name}: expected {digest}, got {files[library.name]}")
    listed = {entry["name"]: entry["version"] for entry in entries if entry["type"] == "library"}
    expected = {
        component.name
        for component in read_components()
        if component.is_in_wheel(set(wheel.libraries), wheel.sdk_platform)
    }
    expect(set(listed) == expected, f"missing or too much: {sorted(set(listed) ^ expected)}")
    expect(all(listed.values()), f"versions are missing: {listed}")
    return f"{len(listed)} components with versions, {len(files)} libraries with hashes"


def check_linking(wheel: Wheel) -> str:
    """The libraries have names of ours and find one another beside themselves only."""
    return binaries.check_linking(wheel.modules[0], list(wheel.libraries.values()))


def check_symbols(wheel: Wheel) -> str:
    """No symbol that the oldest system of the tag lacks."""
    libraries = list(wheel.libraries.values())
    if wheel.sdk_platform.startswith("macosx"):
        return binaries.check_macos_target([*wheel.modules, *libraries], wheel.platform)
    return binaries.check_symbol_versions(wheel.modules[0], libraries, wheel.platform)


CHECKS: list[Callable[[Wheel], str]] = [
    check_size,
    check_tags,
    check_record,
    check_contents,
    check_metadata,
    check_licences,
    check_sbom,
    check_linking,
    check_symbols,
]


def check_wheel(path: Path) -> list[str]:
    """Runs all checks.

    Returns:
        What failed, one line each.
    """
    problems = []
    print(path.name)
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        wheel = Wheel(path, Path(folder))
        for check in CHECKS:
            name = check.__name__.removeprefix("check_")
            try:
                print(f"  {name}: {check(wheel)}")
            except CheckError as error:
                print(f"  {name}: FAILED: {error}")
                problems.append(f"{path.name}: {name}: {error}")
    return problems


def main() -> int:
    """Checks the wheels that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheels", nargs="+", type=Path)
    problems = [problem for path in parser.parse_args().wheels for problem in check_wheel(path)]
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
