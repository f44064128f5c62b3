"""Builds a wheel for aarch64 with a cross compiler and tries it under qemu-user, on a Debian machine.

    python tools/wheel/aarch64.py

Needs `apt-get install qemu-user g++-aarch64-linux-gnu doctest-dev`. The Python that runs there, its C and C++
libraries are Debian's packages for arm64, unpacked into a folder; the machine's own packages are not
touched.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from audit import audit
from common import (
    ROOT,
    TOOLS,
    build_requirements,
    find_interpreters,
    locate_sdk,
    make_environment,
    only,
    run,
    say,
)

FOLDER = ROOT / "build" / "wheels-aarch64"
TRIPLE = "aarch64-linux-gnu"
TARGET = {"_PYTHON_HOST_PLATFORM": "linux-aarch64"}
# Those without sdot, with it, and with smmla: what our linear layers choose by.
LINEAR_PROCESSORS = ("cortex-a72", "cortex-a76", "max,sme=off")
PACKAGES = ["python3-minimal", "libpython3-stdlib", "libc6", "libstdc++6"]
# The oldest cores, and all that qemu knows but for SME: with that, on qemu 7.2, the model answers wrongly, by
# XNNPACK's kernels or by their emulation (nothing of ours uses SME).
PROCESSORS = ("cortex-a72", "max,sme=off")
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")


def find_program(*names: str) -> str:
    """The first program that is installed."""
    for name in names:
        if path := shutil.which(name):
            return path
    raise SystemExit(
        f"none of {', '.join(names)} is installed: apt-get install qemu-user g++-aarch64-linux-gnu"
    )


def make_root() -> Path:
    """A folder with Debian's Python for arm64 and what it needs, fetched with an apt state of our own."""
    root, apt = FOLDER / "root", FOLDER / "apt"
    for folder in (root, apt / "state" / "lists" / "partial", apt / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True)
    (apt / "status").touch()
    sources = SOURCES if SOURCES.exists() else Path("/etc/apt/sources.list")
    settings = {
        "APT::Architecture": "arm64",
        "APT::Sandbox::User": "root",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/nonexistent",
    }
    text = "".join(f'{key} "{value}";\n' for key, value in settings.items())
    (apt / "apt.conf").write_text(text + 'APT::Architectures { "arm64"; };\n')
    env = {"APT_CONFIG": str(apt / "apt.conf")}
    run("apt-get", "-qq", "update", env=env)
    run(
        "apt-get", "-qq", "install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES, env=env
    )
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    return root


def cross_build(version: str, interpreter: Path) -> Path:
    """The wheel for the interpreter's version on aarch64, repaired."""
    # The tools run here, so the environment is made before anything is told of the other machine.
    python = make_environment(interpreter, FOLDER / "build-env", "build", *build_requirements())
    abi = version.replace(".", "")
    defines = {"CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": "aarch64", "EMM_WERROR": "ON"}
    compiler = find_program(f"{TRIPLE}-g++", f"{TRIPLE}-g++-12")
    env = {
        **TARGET,
        "SETUPTOOLS_EXT_SUFFIX": f".cpython-{abi}-{TRIPLE}.so",
        "CXX": compiler,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "EXECUTORCH_MM_SDK": str(aarch64_sdk()),
    }
    command: list[str | Path] = [
        python,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--skip-dependency-check",
    ]
    options = [f"-Ccmake.define.{name}={value}" for name, value in defines.items()]
    # The strip of this machine knows no other's files.
    run(*command, *options, "-Cinstall.strip=false", "--outdir", FOLDER / "raw", ".", env=env)
    wheel = only(FOLDER / "raw", "*.whl")
    run(sys.executable, "-m", "auditwheel", "repair", "-z", "9", "--wheel-dir", FOLDER / "repaired", wheel)
    return only(FOLDER / "repaired", "*.whl")


def test_linear_layers(emulator: str, root: Path) -> None:
    """The C++ tests of the linear layers, which go through every instruction set of a processor."""
    cmake = FOLDER / "build-env" / "bin" / "cmake"
    folder = FOLDER / "cpp"
    defines = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": find_program(f"{TRIPLE}-g++", f"{TRIPLE}-g++-12"),
        "CMAKE_MAKE_PROGRAM": cmake.with_name("ninja"),
        "CMAKE_BUILD_TYPE": "Release",
        "EMM_BUILD_PYTHON": "OFF",
        "EMM_BUILD_TESTS": "ON",
        "EMM_WERROR": "ON",
        "EXECUTORCH_MM_SDK": aarch64_sdk(),
    }
    options = [f"-D{name}={value}" for name, value in defines.items()]
    run(cmake, "-G", "Ninja", "-S", ROOT, "-B", folder, *options)
    run(cmake, "--build", folder, "--target", "test_linear")
    for processor in LINEAR_PROCESSORS:
        say(f"linear layers on {processor}")
        run(emulator, "-L", root, folder / "tests" / "cpp" / "test_linear", env={"QEMU_CPU": processor})


def aarch64_sdk() -> Path:
    """The SDK for aarch64, fetched if need be; one that the machine names is for the machine."""
    os.environ.pop("EXECUTORCH_MM_SDK", None)
    return locate_sdk(TARGET)


def install(version: str, wheel: Path) -> Path:
    """A folder with the wheel and the wheels for aarch64 that it requires."""
    site = FOLDER / "site"
    platforms = [f"--platform=manylinux_2_{number}_aarch64" for number in range(17, 37)]
    options = [f"--python-version={version}", "--implementation=cp", "--only-binary=:all:", *platforms]
    run(sys.executable, "-m", "pip", "install", "--quiet", "--target", site, *options, wheel)
    return site


def main() -> None:
    """Builds and tries."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.parse_args()
    emulator = find_program("qemu-aarch64", "qemu-aarch64-static")
    shutil.rmtree(FOLDER, ignore_errors=True)
    say("Debian's Python for arm64")
    root = make_root()
    python = [emulator, "-L", str(root), str(root / "usr" / "bin" / "python3")]
    question = "import platform; print(platform.python_version(), platform.machine())"
    answer = subprocess.run([*python, "-c", question], capture_output=True, text=True, check=True).stdout
    version = ".".join(answer.split(".")[:2])
    say(f"Python {answer.strip()}: cross build")
    interpreters = find_interpreters()
    if version not in interpreters:
        raise SystemExit(f"the cross build needs Python {version} on this machine too")
    wheel = cross_build(version, interpreters[version])
    audit(wheel)
    test_linear_layers(emulator, root)
    say(f"try {wheel.name}")
    site = install(version, wheel)
    for processor in PROCESSORS:
        say(processor)
        env = {"PYTHONPATH": str(site), "EMM_EMULATOR": f"{emulator} -L {root}", "QEMU_CPU": processor}
        run(*python, TOOLS / "smoke.py", "--sdk", aarch64_sdk(), "--questions", "3", env=env, cwd=FOLDER)
    say("done")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"FAILED: {' '.join(error.cmd)} (exit code {error.returncode})") from None
