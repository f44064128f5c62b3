"""The operators' test library for the tests here; nox's cpp session builds it and sets EMM_OPS_TESTLIB."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from oplib import OpLibrary

LIBRARY_NAME = "libemm_ops_testlib"
X86 = platform.machine().lower() in {"x86_64", "amd64"}
INSTRUCTION_SETS = ("avx512", "avx2", "baseline") if X86 else ("neon",)


def find_library() -> Path | None:
    """The file that EMM_OPS_TESTLIB names, else the newest one under build/."""
    if named := os.environ.get("EMM_OPS_TESTLIB"):
        return Path(named)
    build = Path(__file__).parents[3] / "build"
    found = [path for path in build.rglob(f"{LIBRARY_NAME}.*") if path.suffix in {".so", ".dylib"}]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


@pytest.fixture(scope="session")
def library() -> OpLibrary:
    path = find_library()
    if path is None:
        pytest.skip(f"{LIBRARY_NAME} was not built: use -DEMM_BUILD_TESTS=ON or set EMM_OPS_TESTLIB")
    return OpLibrary(path)


@pytest.fixture
def ops(library: OpLibrary) -> Iterator[OpLibrary]:
    """The library with the machine's best instruction set and one thread."""
    library.force_isa("")
    library.set_threads(1)
    yield library
    library.force_isa("")
    library.set_threads(1)


@pytest.fixture(params=INSTRUCTION_SETS)
def each_isa(request: pytest.FixtureRequest, ops: OpLibrary) -> OpLibrary:
    """The library, once for each instruction set that this machine has."""
    if not ops.force_isa(request.param):
        pytest.skip(f"this machine has no {request.param}")
    return ops
