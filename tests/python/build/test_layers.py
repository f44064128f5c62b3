"""The architecture: who may include or import whom (the table is explained in CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# What a file in cpp/<folder> may include from cpp/, besides its own folder: folders, or single headers.
MAY_INCLUDE = {
    "base": set(),
    "image": {"base"},
    "ops": {"base"},
    "sampling": {"base"},
    "program": {"base"},
    "model": {"base", "program"},
    "et": {"base", "program", "model", "ops/kernels.h"},
    "runtime": {"base", "sampling", "model"},
    "testing": {"base", "sampling", "model", "runtime"},
    "bindings": {"base", "image", "sampling", "program", "model", "et", "runtime"},
}
# Where the headers of others may be included.
FOREIGN_HEADERS = {
    "ExecuTorch": (re.compile(r"executorch/|c10/|cpuinfo|pthreadpool"), {"et", "ops"}),
    "Python": (re.compile(r"nanobind/|Python\.h|pybind11/|numpy/"), {"bindings"}),
}
# What must not even reach ExecuTorch through our headers.
EXECUTORCH_FREE = {"base", "image", "sampling", "program", "model", "runtime", "testing"}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)

HEAVY_MODULES = {"torch", "torchvision", "transformers", "executorch"}
TORCH_FOLDERS = {"tools", "benchmarks"}
CORE_SHOWN = "docs/reference-decode-loop/decode_loop.py"  # it shows what stands on the compiled module


def cpp_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in {".h", ".cpp"})


def includes(path: Path) -> list[tuple[str, str]]:
    """The (quote, header) pairs that a file includes."""
    return INCLUDE.findall(path.read_text(encoding="utf-8"))


def include_violations(cpp: Path) -> Iterator[str]:
    for path in cpp_files(cpp):
        name = str(path.relative_to(cpp))
        layer = path.relative_to(cpp).parts[0]
        if layer not in MAY_INCLUDE:
            yield f"{name}: {layer} is not a layer; add it to MAY_INCLUDE"
            continue
        for quote, header in includes(path):
            owner = header.split("/")[0]
            if quote == '"' and owner not in MAY_INCLUDE:
                yield f"{name}: includes {header}; write a path relative to cpp/"
            elif quote == '"' and owner != layer and not {owner, header} & MAY_INCLUDE[layer]:
                yield f"{name}: {layer} must not include {header}"
            for whose, (pattern, allowed) in FOREIGN_HEADERS.items():
                if pattern.match(header) and layer not in allowed:
                    yield f"{name}: {header} belongs to {whose}: only in {', '.join(sorted(allowed))}"


def imports(tree: ast.AST, package: tuple[str, ...]) -> set[str]:
    """The dotted names that a module in `package` imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def import_violations(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if parts[0].startswith((".", "build")) and parts[0] != "build_backend":
            continue
        source = path.read_text(encoding="utf-8")
        names = imports(ast.parse(source), parts[:-1])
        name = "/".join(parts)
        marked = parts[0] == "tests" and "pytest.mark.torch" in source
        heavy = sorted({imported.split(".")[0] for imported in names} & HEAVY_MODULES)
        if heavy and parts[0] not in TORCH_FOLDERS and not marked:
            yield f"{name}: imports {heavy[0]}: only in tools, benchmarks and tests marked torch"
        shows_core = parts[0] == "executorch_mm" or name == CORE_SHOWN
        if "executorch_mm._core" in names and not shows_core:
            yield f"{name}: imports executorch_mm._core: only inside executorch_mm"
        below_cli = parts[0] == "executorch_mm" and parts[1] not in {"cli", "__main__.py"}
        if below_cli and any(f"{imported}.".startswith("executorch_mm.cli.") for imported in names):
            yield f"{name}: imports the command line, which is above the package"


def violations(root: Path) -> list[str]:
    return [*include_violations(root / "cpp"), *import_violations(root)]


def test_no_include_or_import_points_upward() -> None:
    assert len(cpp_files(ROOT / "cpp")) > 20  # the test looks at the real tree
    assert violations(ROOT) == []


def test_rooms_without_executorch_include_no_room_with_it() -> None:
    with_it = FOREIGN_HEADERS["ExecuTorch"][1]
    for room in EXECUTORCH_FREE:
        assert not {name.split("/")[0] for name in MAY_INCLUDE[room]} - EXECUTORCH_FREE, room
    assert not with_it & EXECUTORCH_FREE


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("cpp/base/a.h", '#include "sampling/sampler.h"', "base must not include sampling/sampler.h"),
        ("cpp/sampling/a.h", '#include "model/contract.h"', "sampling must not include model/contract.h"),
        ("cpp/ops/a.cpp", '#include "model/contract.h"', "ops must not include model/contract.h"),
        ("cpp/program/a.cpp", '#include "model/contract.h"', "program must not include model/contract.h"),
        ("cpp/model/a.cpp", '  #  include "runtime/session.h"', "model must not include runtime/session.h"),
        ("cpp/model/a.cpp", "#include <executorch/x.h>", "belongs to ExecuTorch"),
        ("cpp/et/a.cpp", '#include "ops/attention.h"', "et must not include ops/attention.h"),
        ("cpp/et/a.cpp", '#include "runtime/session.h"', "et must not include runtime/session.h"),
        ("cpp/runtime/a.cpp", '#include "et/b.h"', "runtime must not include et/b.h"),
        ("cpp/runtime/a.cpp", '#include "program/b.h"', "runtime must not include program/b.h"),
        ("cpp/runtime/a.cpp", '#include "bindings/b.h"', "runtime must not include bindings/b.h"),
        ("cpp/runtime/a.cpp", "#include <executorch/runtime/core/error.h>", "belongs to ExecuTorch"),
        ("cpp/runtime/a.cpp", "#include <nanobind/nanobind.h>", "belongs to Python"),
        ("cpp/et/a.cpp", "#include <Python.h>", "belongs to Python"),
        ("cpp/bindings/a.cpp", '#include "testing/fake_executor.h"', "must not include testing"),
        ("cpp/bindings/a.cpp", "#include <executorch/x.h>", "belongs to ExecuTorch"),
        ("cpp/bindings/a.cpp", '#include "bindings.h"', "write a path relative to cpp/"),
        ("cpp/extra/a.h", "#pragma once", "extra is not a layer"),
        ("executorch_mm/a.py", "import torch", "imports torch"),
        ("executorch_mm/a.py", "def f():\n    from executorch.runtime import Runtime", "imports executorch"),
        ("executorch_mm/a.py", "from executorch_mm.cli import main", "above the package"),
        ("executorch_mm/a.py", "from .cli import main", "above the package"),
        ("executorch_mm/sub/a.py", "from ..cli import main", "above the package"),
        ("examples/a.py", "import torch.nn", "imports torch"),
        ("examples/a.py", "from executorch_mm import _core", "imports executorch_mm._core"),
        ("tests/python/a.py", "from executorch_mm._core import Session", "imports executorch_mm._core"),
        ("tests/python/a.py", "import torch", "imports torch"),
    ],
)
def test_an_upward_arrow_is_found(tmp_path: Path, path: str, line: str, expected: str) -> None:
    write(tmp_path, path, line)

    (found,) = violations(tmp_path)

    assert found.startswith(f"{path.removeprefix('cpp/')}: ")
    assert expected in found


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("cpp/et/a.cpp", '#include "ops/kernels.h"\n#include "base/error.h"\n#include <executorch/x.h>'),
        ("cpp/ops/a.cpp", '#include "ops/a.h"\n#include <executorch/x.h>'),
        ("cpp/runtime/a.cpp", '#include "model/executor.h"\n#include <vector>'),
        ("cpp/bindings/a.cpp", '#include "et/et.h"\n#include <nanobind/ndarray.h>'),
        ("executorch_mm/a.py", "from executorch_mm import _core\nfrom ._core import Session"),
        ("executorch_mm/sub/a.py", "from .cli import main"),
        ("executorch_mm/__main__.py", "from executorch_mm.cli import main"),
        ("tools/a.py", "import torch"),
        ("tests/python/a.py", "import pytest\npytestmark = pytest.mark.torch\nimport torch"),
    ],
)
def test_a_downward_arrow_passes(tmp_path: Path, path: str, line: str) -> None:
    write(tmp_path, path, line)

    assert violations(tmp_path) == []


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text + "\n", encoding="utf-8")
