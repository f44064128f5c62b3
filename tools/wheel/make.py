"""Builds, checks and tries the wheels of every CPython on this machine, as a release does on hosted runners.

    python tools/wheel/make.py [--only VERSION...]

sdist -> wheels from the sdist -> auditwheel repair -> abi3audit, twine, check.py -> for each interpreter a
fresh environment, the smoke test in it, then tests: all for one interpreter, a choice for the others. Run by
`nox -s wheel`, which installs the tools. Linux only, as auditwheel is.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from audit import audit
from common import (
    ABI3_SINCE,
    ROOT,
    TOOLS,
    find_interpreters,
    locate_sdk,
    make_environment,
    only,
    run,
    say,
    wheel_version,
)

FOLDER = ROOT / "build" / "wheels"
ALL_TESTS_ON = "3.12"
SOME_TESTS = [
    "tests/python/build/test_vendored.py",
    "tests/python/inputs/test_arrays.py",
    "tests/python/cli/test_cli.py",
    "tests/python/runner/test_runner.py",
    "tests/python/sampling/test_sampling.py",
    "tests/python/runner/test_threads.py",
]


def build_sdist() -> Path:
    """The source distribution of the tree, unpacked; the folder."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", FOLDER / "sdist", ".")
    sdist = only(FOLDER / "sdist", "*.tar.gz")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist)
    run("tar", "-xf", sdist, "-C", FOLDER)
    return FOLDER / sdist.name.removesuffix(".tar.gz")


def build_wheel(version: str, interpreter: Path, source: Path) -> Path:
    """The repaired wheel of one interpreter, built from the unpacked sdist in an environment of its own."""
    python = make_environment(interpreter, FOLDER / f"build-{version}")
    raw = FOLDER / f"raw-{version}"
    # A folder with a name that stays lets a compiler cache, where there is one, serve every interpreter.
    settings = [f"--config-settings=build-dir={FOLDER / f'cmake-{version}'}"]
    settings += ["--config-settings=cmake.define.EMM_WERROR=ON"]
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", *settings, "--wheel-dir", raw, source)
    repaired = FOLDER / f"repaired-{version}"
    run(sys.executable, "-m", "auditwheel", "repair", "-z", "9", "--wheel-dir", repaired, only(raw, "*.whl"))
    return only(repaired, "*.whl")


def try_wheel(version: str, interpreter: Path, wheel: Path, source: Path, sdk: Path) -> Path:
    """Smoke test with the bare wheel, a choice of tests with what they need; the environment's Python."""
    python = make_environment(interpreter, FOLDER / f"try-{version}", wheel)
    run(python, "-W", "error", TOOLS / "smoke.py", "--sdk", sdk, cwd=FOLDER)
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[test]")
    run_tests(python, source, SOME_TESTS)
    return python


def run_tests(python: Path, source: Path, chosen: list[str]) -> None:
    """Tests from the sdist on what is installed."""
    run(python.with_name("pytest"), "-q", "-p", "no:cacheprovider", *chosen, cwd=source)


def main() -> None:
    """Runs everything; the first failure ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="VERSION", help="interpreters to use, such as 3.12")
    chosen = parser.parse_args().only
    shutil.rmtree(FOLDER, ignore_errors=True)
    interpreters = {
        version: path for version, path in find_interpreters().items() if not chosen or version in chosen
    }
    say(f"interpreters: {', '.join(f'{version} ({path})' for version, path in interpreters.items())}")
    sdk = locate_sdk()
    source = build_sdist()
    wheels: dict[str, Path] = {}
    for version, interpreter in interpreters.items():
        if wheel_version(version) == version:
            say(f"{version}: wheel")
            wheels[version] = build_wheel(version, interpreter, source)
            audit(wheels[version])
    tried: dict[str, Path] = {}
    for version, interpreter in interpreters.items():
        wheel = wheels.get(wheel_version(version))
        if wheel is None:
            say(f"{version}: no wheel, because Python {ABI3_SINCE} is not among the interpreters")
            continue
        say(f"{version}: try {wheel.name}")
        tried[version] = try_wheel(version, interpreter, wheel, source, sdk)
    whole = ALL_TESTS_ON if ALL_TESTS_ON in tried else next(iter(tried))
    say(f"{whole}: all tests")
    run_tests(tried[whole], source, [])
    say(f"done: {', '.join(wheel.name for wheel in wheels.values())}")


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"FAILED: {' '.join(error.cmd)} (exit code {error.returncode})") from None
