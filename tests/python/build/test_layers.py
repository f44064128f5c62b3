"""The architecture: who may include or import whom (the tables are explained in CONTRIBUTING.md).

    python tests/python/build/test_layers.py [REVISION]

prints the rooms of the package, their arrows and their drawing; with a revision, the numbers then.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# What a file in cpp/<folder> may include from cpp/, besides its own folder: folders, or single headers.
MAY_INCLUDE = {
    "base": set(),
    "image": {"base"},
    "ops": {"base"},
    "linear": {"base"},
    "sampling": {"base"},
    "program": {"base"},
    "model": {"base", "program"},
    "et": {"base", "program", "model", "linear", "ops/kernels.h", "ops/kv_cache.h", "ops/parallel.h"},
    "remote": {"base", "model"},
    "runtime": {"base", "sampling", "model"},
    "testing": {"base", "sampling", "model", "runtime"},
    "bindings": {"base", "image", "sampling", "program", "model", "et", "remote", "runtime"},
}
# Where the headers of others may be included.
FOREIGN_HEADERS = {
    "ExecuTorch": (re.compile(r"executorch/|c10/|cpuinfo|pthreadpool"), {"et", "ops"}),
    "Python": (re.compile(r"nanobind/|Python\.h|pybind11/|numpy/"), {"bindings"}),
}
# What must not even reach ExecuTorch through our headers.
EXECUTORCH_FREE = {"base", "image", "linear", "sampling", "program", "model", "remote", "runtime", "testing"}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.MULTILINE)

# What a room of executorch_mm/ (a module or a folder) may import of the others, in functions and for type
# checking too. "executorch_mm" is what the package itself exports, "_core" the compiled module.
MAY_IMPORT = {
    room: set(others.split())
    for room, others in {
        "__main__": "cli",
        "_engine": "_core _files _loading _tokenizers arrays config errors "
        "inputs preprocess response_format sampling stats tokenizer",
        "_files": "errors",
        "_openai": "_engine chat config errors stats",
        "_loading": "_core _files _tokenizers errors tokenizer",
        "_tokenizers": "_core _files errors",
        "arrays": "errors",
        "batch": "_files _loading _openai errors executorch_mm preprocess",
        "chat": "_core _engine _files _loading arrays config errors inputs preprocess tokenizer",
        "cli": "_core _loading batch demo executorch_mm inputs inspection preprocess server speech stats",
        "clip": "_core _loading _tokenizers arrays errors inputs preprocess tokenizer",
        "compat": "_core _loading arrays errors executorch_mm preprocess",
        "config": "_loading errors response_format",
        "demo": "",
        "embeddings": "_core _files _loading _tokenizers arrays errors",
        "errors": "",
        "executorch_mm": "_core _engine _loading clip config embeddings errors inputs inspection "
        "preprocess response_format runner speech stats tokenizer",
        "inputs": "arrays errors preprocess",
        "inspection": "_core _loading errors",
        "preprocess": "_core _files _loading arrays errors",
        "ray": "_loading _openai errors executorch_mm server",
        "response_format": "errors",
        "runner": "_core _engine _loading chat config errors inputs stats tokenizer",
        "sampling": "_core arrays config errors",
        "server": "_files _openai chat errors executorch_mm",
        "speech": "_core _engine _files _loading arrays config errors "
        "inputs preprocess sampling stats tokenizer",
        "stats": "",
        "tokenizer": "_tokenizers",
        "utils": "inputs",
    }.items()
}
MOST_ROOMS, MOST_ARROWS = 29, 143

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


def sources_in(root: Path) -> dict[str, str]:
    """The package's files by path from `root`."""
    paths = sorted((root / "executorch_mm").rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def sources_at(revision: str) -> dict[str, str]:
    command = ["git", "archive", revision, "executorch_mm"]
    archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        paths = [name for name in files.getnames() if name.endswith(".py")]
        return {path: files.extractfile(path).read().decode() for path in paths}  # type: ignore[union-attr]


def room_of(path: str) -> str:
    name = path.split("/")[1].removesuffix(".py")
    return "executorch_mm" if name == "__init__" else name


def rooms_taken(node: ast.AST, folders: tuple[str, ...], rooms: set[str]) -> Iterator[str]:
    """The rooms that an import in a file of `folders` takes from."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom):
        above = folders[: len(folders) - node.level + 1] if node.level else ()
        base = ".".join([*above, *filter(None, [node.module])])
        names = [f"{base}.{alias.name}" for alias in node.names]
    for name in names:
        package, *inside = name.split(".")
        if package == "executorch_mm":  # a name of its own that is no room is what it exports
            yield inside[0] if len(inside) > 1 or {*inside} & rooms else package


def room_arrows(sources: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Which room imports which, and a file that does so."""
    rooms = {room_of(path) for path in sources} | {"_core"}
    arrows = {}
    for path, source in sources.items():
        folders = tuple(path.split("/")[:-1])
        for node in ast.walk(ast.parse(source)):
            for other in rooms_taken(node, folders, rooms):
                if other != room_of(path):
                    arrows[room_of(path), other] = path
    return arrows


def room_violations(sources: Mapping[str, str]) -> Iterator[str]:
    for room in sorted({room_of(path) for path in sources} - {*MAY_IMPORT}):
        yield f"{room} is not a room; add it to MAY_IMPORT"
    for (room, other), path in sorted(room_arrows(sources).items()):
        if other not in MAY_IMPORT.get(room, {other}):
            yield f"{path}: {room} must not import {other}"


def floors(may_import: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """A room stands above all that it imports; 0 is the ground.

    Raises:
        ValueError: Rooms import each other in a circle.
    """
    floor: dict[str, int] = {}

    def of(room: str, above: tuple[str, ...] = ()) -> int:
        if room in above:
            raise ValueError(f"a circle: {' -> '.join([*above[above.index(room) :], room])}")
        if room not in floor:
            others = may_import.get(room, ())
            floor[room] = max((of(other, (*above, room)) + 1 for other in others), default=0)
        return floor[room]

    for room in may_import:
        of(room)
    return floor


def drawing(may_import: Mapping[str, Iterable[str]]) -> str:
    """The rooms in boxes, floor by floor."""
    by_floor: dict[int, list[str]] = {}
    for room, floor in floors(may_import).items():
        by_floor.setdefault(floor, []).append(room)
    rows = []
    for floor in sorted(by_floor, reverse=True):
        names = sorted(by_floor[floor])
        rows.append("   " + "  ".join("┌" + "─" * (len(name) + 2) + "┐" for name in names))
        rows.append(f"{floor:2} " + "  ".join(f"│ {name} │" for name in names))
        rows.append("   " + "  ".join("└" + "─" * (len(name) + 2) + "┘" for name in names))
    return "\n".join(rows)


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


def test_rooms_of_the_package_import_what_they_may() -> None:
    sources = sources_in(ROOT)
    assert len(sources) > 100  # the test looks at the real tree
    assert list(room_violations(sources)) == []


def test_the_table_allows_nothing_that_is_not_used() -> None:
    sources = sources_in(ROOT)
    allowed = {(room, other) for room, others in MAY_IMPORT.items() for other in others}
    assert allowed == {*room_arrows(sources)}
    assert {*MAY_IMPORT} == {room_of(path) for path in sources}


def test_rooms_are_few_have_few_arrows_and_no_circle() -> None:
    assert len(MAY_IMPORT) <= MOST_ROOMS
    assert sum(map(len, MAY_IMPORT.values())) <= MOST_ARROWS
    floor = floors(MAY_IMPORT)
    assert all(floor[other] < floor[room] for room, others in MAY_IMPORT.items() for other in others)


def test_a_circle_is_found() -> None:
    with pytest.raises(ValueError, match="a circle: b -> c -> b"):
        floors({"a": {"b"}, "b": {"c"}, "c": {"b"}})


def test_the_documents_draw_the_rooms_as_they_are() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = drawing(MAY_IMPORT)
    assert drawn in page, "python tests/python/build/test_layers.py prints the drawing"


def test_the_bindings_use_no_macros_of_the_interpreter_that_the_stable_abi_lacks() -> None:
    """CI builds for CPython 3.11, where nanobind has no stable ABI: there they compile."""
    macro = re.compile(r"\bPy[A-Z]\w*_(?:AS|GET|SET|CHECK)_[A-Z_]+\b|\b_Py\w+")
    sources = {path: path.read_text(encoding="utf-8") for path in cpp_files(ROOT / "cpp" / "bindings")}

    assert macro.findall("PyBytes_AS_STRING(x) PyTuple_GET_ITEM(x, 0) _PyObject_X") == [
        "PyBytes_AS_STRING",
        "PyTuple_GET_ITEM",
        "_PyObject_X",
    ]
    assert [(path.name, name) for path, text in sources.items() for name in macro.findall(text)] == []


def test_the_gil_is_given_back_and_taken_by_gil_h_alone() -> None:
    """nanobind's guards end the process when a thread outlives the interpreter."""
    guards = re.compile(r"nb::gil_scoped_\w+|PyGILState_\w+|PyEval_\w+Thread")
    found = {
        (path.name, guard)
        for path in cpp_files(ROOT / "cpp")
        for guard in guards.findall(path.read_text(encoding="utf-8"))
    }
    assert found == {("gil.cpp", "PyEval_SaveThread"), ("gil.cpp", "PyEval_RestoreThread")}


@pytest.mark.parametrize(
    ("path", "line", "expected"),
    [
        ("config.py", "from executorch_mm._engine.access import Access", "config must not import _engine"),
        ("config.py", "def f():\n    import executorch_mm._engine.access", "config must not import _engine"),
        ("errors.py", "from executorch_mm import _core", "errors must not import _core"),
        ("_files/a.py", "from ..preprocess import audio", "_files must not import preprocess"),
        ("_tokenizers/a.py", "from executorch_mm import tokenizer", "_tokenizers must not import tokenizer"),
        (
            "chat/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from executorch_mm import runner",
            "chat must not import runner",
        ),
        (
            "preprocess/a.py",
            "from executorch_mm import InputError",
            "preprocess must not import executorch_mm",
        ),
        ("speech/a.py", "import executorch_mm", "speech must not import executorch_mm"),
        ("shelf.py", "", "shelf is not a room"),
        ("clip.py", "from executorch_mm.shelf import x", "clip must not import shelf"),
    ],
)
def test_an_arrow_that_is_not_in_the_table_is_found(path: str, line: str, expected: str) -> None:
    names = ("__init__", "config", "runner", "tokenizer", "_engine/access", "preprocess/audio")
    sources = {f"executorch_mm/{name}.py": "" for name in names}

    (found,) = room_violations(sources | {f"executorch_mm/{path}": line})

    assert expected in found


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


def report(title: str, sources: Mapping[str, str]) -> str:
    arrows = room_arrows(sources)
    both_ways = sorted({" <-> ".join(sorted(pair)) for pair in arrows if pair[::-1] in arrows})
    rooms = len({room_of(path) for path in sources})
    circles = ", ".join(both_ways) or "none"
    return f"{title}: {rooms} rooms, {len(arrows)} arrows, rooms that import each other: {circles}"


def main(revisions: list[str]) -> None:
    lines = [report(revision, sources_at(revision)) for revision in revisions]
    lines.append(report("now", sources_in(ROOT)))
    for room, others in sorted(MAY_IMPORT.items()):
        lines.append(f"    {room} -> {', '.join(sorted(others)) or 'none'}")
    sys.stdout.write("\n".join([*lines, drawing(MAY_IMPORT), ""]))


if __name__ == "__main__":
    main(sys.argv[1:])
