#!/usr/bin/env bash
# The second editable build of a scikit-build-core project with nanobind_add_stub fails: its stub generator finds the installed package.
#
# Behaviour: the first `pip install -e . --no-build-isolation` works. After a change of the bindings the second one ends with
# "No module named 'pack._core'": nanobind's stub generator imports the module by name, and scikit-build-core's import hook of the first
# installation, which answers for the whole package, comes before PYTHON_PATH, which names the folder of the module just linked.
# Seen with nanobind 3.1.0, scikit-build-core 1.1.2, CMake 4.4.5 and pip 23.2.1, CPython 3.11, Linux x86-64, 2026-11-28.
# Way out: run nanobind's stubgen.py with `python -S -E` and the build folder as its only path.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env" && export PATH="$work/env/bin:$PATH"
pip install -q "pip==23.2.1" "nanobind==3.1.0" "scikit-build-core==1.1.2" "cmake==4.4.5" "ninja"
mkdir -p "$work/project/pack" && cd "$work/project"
touch pack/__init__.py
cat >pyproject.toml <<'TOML'
[build-system]
requires = ["scikit-build-core", "nanobind"]
build-backend = "scikit_build_core.build"
[project]
name = "pack"
version = "1"
[tool.scikit-build]
build-dir = "build"
TOML
cat >CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.28)
project(pack LANGUAGES CXX)
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
execute_process(COMMAND "${Python_EXECUTABLE}" -m nanobind --cmake_dir OUTPUT_STRIP_TRAILING_WHITESPACE OUTPUT_VARIABLE nanobind_ROOT)
find_package(nanobind CONFIG REQUIRED)
nanobind_add_module(_core module.cpp)
set_target_properties(_core PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib/pack")
nanobind_add_stub(_core_stub MODULE pack._core PYTHON_PATH "${CMAKE_BINARY_DIR}/lib" OUTPUT "${CMAKE_BINARY_DIR}/_core.pyi" DEPENDS _core)
install(TARGETS _core LIBRARY DESTINATION pack)
install(FILES "${CMAKE_BINARY_DIR}/_core.pyi" DESTINATION pack)
CMAKE
build() {  # build NAME: a module with one function of this name, installed in editable mode
  printf '#include <nanobind/nanobind.h>\nNB_MODULE(_core, m) { m.def("%s", [] { return 1; }); }\n' "$1" >module.cpp
  if pip install -q -e . --no-build-isolation >"$work/log" 2>&1; then echo "built $1"; else
    grep -o "ModuleNotFoundError: .*" "$work/log" | tail -1
  fi
}
{ build first; build second; } | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
built first
ModuleNotFoundError: No module named 'pack._core'
SEEN
