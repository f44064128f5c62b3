"""What the builds of wheels share: interpreters, environments, commands."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(__file__).parent
SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.13t", "3.14", "3.14t")
ABI3_SINCE = "3.12"  # wheel.py-api in pyproject.toml

_start = time.monotonic()


def say(text: str) -> None:
    """A heading with the seconds since the start."""
    print(f"=== {time.monotonic() - _start:.0f} s: {text}", flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
    """Runs a command whose failure ends everything.

    Args:
        command: The program and its arguments.
        env: Variables that are set beside the ones of this process.
        cwd: The working directory.
    """
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, env={**os.environ, **(env or {})}, cwd=cwd)


def find_interpreters() -> dict[str, Path]:
    """Every supported CPython of this machine by its version, "3.13t" without the GIL: PATH and pyenv's."""
    names = [f"python{version}" for version in SUPPORTED]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    places = [shutil.which(name) for name in names]
    places += [str(path) for name in names for path in sorted(pyenv.glob(f"*/bin/{name}"))]
    question = (
        "import json, platform, sys, sysconfig, ensurepip; print(json.dumps(["
        "'%d.%d' % sys.version_info[:2] + 't' * bool(sysconfig.get_config_var('Py_GIL_DISABLED')), "
        "platform.python_implementation(), getattr(sys, '_base_executable', sys.executable)]))"
    )
    found: dict[str, Path] = {}
    for place in filter(None, places):
        answer = subprocess.run([place, "-c", question], capture_output=True, text=True, check=False)
        if answer.returncode == 0:  # not so for a shim of pyenv whose version is not active
            version, implementation, executable = json.loads(answer.stdout)
            if implementation == "CPython" and version in SUPPORTED:
                found.setdefault(version, Path(executable))
    return dict(sorted(found.items(), key=lambda item: SUPPORTED.index(item[0])))


def wheel_version(version: str) -> str:
    """The interpreter whose wheel an interpreter installs."""
    number = tuple(int(part) for part in version.rstrip("t").split("."))
    is_newer = number > tuple(int(part) for part in ABI3_SINCE.split("."))
    return ABI3_SINCE if is_newer and not version.endswith("t") else version


def make_environment(interpreter: Path, folder: Path, *requirements: str | Path) -> Path:
    """A fresh virtual environment with the requirements; its Python."""
    shutil.rmtree(folder, ignore_errors=True)
    run(interpreter, "-m", "venv", folder)
    python = folder / "bin" / "python"
    if requirements:
        run(python, "-m", "pip", "install", "--quiet", *requirements)
    return python


def build_requirements() -> list[str]:
    """What pyproject's [build-system] lists, and the CMake that scikit-build-core would ask for."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    block = re.search(r"^requires = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    return [*re.findall(r'^  "(.*)",$', block[1], re.MULTILINE), "cmake>=3.28"]


def locate_sdk(env: dict[str, str] | None = None) -> Path:
    """The folder of the ExecuTorch SDK, as a build finds it."""
    command = [sys.executable, str(ROOT / "build_backend" / "emm_build" / "sdk.py")]
    environment = {**os.environ, **(env or {})}
    return Path(
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    )


def only(folder: Path, pattern: str) -> Path:
    """The one file that matches."""
    (path,) = folder.glob(pattern)
    return path
