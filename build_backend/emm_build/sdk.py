"""The pinned ExecuTorch SDK: fetched once, checked, unpacked into a cache.

The SDK is the include, lib and share folders of the `executorch` wheel. It is the same for every Python
version, so one wheel per platform is pinned, in cmake/executorch_sdk.json. Run as a script, this prints the
folder of the SDK.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict

PINS_FILE = Path(__file__).resolve().parents[2] / "cmake" / "executorch_sdk.json"
OVERRIDE = "EXECUTORCH_MM_SDK"
MINIMUM_CMAKE = (3, 28)
SDK_FOLDERS = ("include", "lib", "share")


class SdkError(RuntimeError):
    """The SDK cannot be had; the message is one sentence for the person who runs the build."""


@dataclass(frozen=True)
class Pin:
    """One wheel that carries the SDK."""

    version: str  # of ExecuTorch
    python: str  # "3.11": the Python whose wheel is taken; any other carries the same SDK
    platform: str  # the wheel's platform tag
    sha256: str  # of the wheel, hexadecimal


def platform_key() -> str:
    """The key of this build's target platform in the pins, for example "linux-x86_64".

    Raises:
        SdkError: ExecuTorch has no SDK for the platform.
    """
    target = (
        sysconfig.get_platform()
    )  # honours _PYTHON_HOST_PLATFORM, so it names the target of a cross build
    if target.startswith("win") or os.name == "nt":
        raise SdkError(
            "Windows is not supported: ExecuTorch's Windows wheel carries no library to link against."
        )
    if target.startswith("linux-"):
        if "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
            raise SdkError(
                "musl-based Linux is not supported: ExecuTorch's libraries need glibc 2.28 or newer."
            )
        key = target
    elif target.startswith("macosx-"):
        machine = target.rsplit("-", 1)[1]
        key = f"macosx-{platform.machine() if machine == 'universal2' else machine}"
        if key == "macosx-x86_64":
            raise SdkError(
                "macOS on x86_64 is not supported: ExecuTorch only has libraries for Apple Silicon."
            )
    else:
        key = target
    known = list(_pins()["wheels"])
    if key not in known:
        raise SdkError(
            f"the platform {key} is not supported: ExecuTorch has libraries for {', '.join(known)}."
        )
    return key


def check_platform() -> None:
    """Refuse a platform that has no SDK, unless EXECUTORCH_MM_SDK says that the builder brought one.

    Raises:
        SdkError: as `platform_key`.
    """
    if not os.environ.get(OVERRIDE):
        platform_key()


def read_pin(key: str) -> Pin:
    """The pinned wheel of a platform.

    Args:
        key: what `platform_key` returns.
    """
    pins = _pins()
    return Pin(version=pins["version"], **pins["wheels"][key])


def locate() -> Path:
    """The folder of the SDK: the one that EXECUTORCH_MM_SDK names, else the cached one, fetched if need be.

    Raises:
        SdkError: the named folder is no SDK, or the SDK cannot be fetched, checked or stored.
    """
    override = os.environ.get(OVERRIDE)
    if override:
        folder = Path(override).expanduser().resolve()
        if not (folder / "share/cmake/executorch-config.cmake").is_file():
            raise SdkError(
                f"{OVERRIDE}={override} is not an ExecuTorch SDK: "
                "it has no share/cmake/executorch-config.cmake."
            )
        return folder
    pin = read_pin(platform_key())
    target = _cache_root() / f"executorch-{pin.version}-{pin.platform}-{pin.sha256[:12]}"
    if not target.is_dir():
        _fetch(pin, target)
    return target


def check_cmake() -> None:
    """Check that CMake is new enough; an isolated build has fetched one by now if the system's was not.

    Raises:
        SdkError: no CMake of at least 3.28 is on the PATH or installed as the Python package `cmake`.
    """
    found = []
    for program in _cmake_programs():
        try:
            text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        match = re.search(r"version (\d+)\.(\d+)", text)
        if match is None:
            continue
        version = (int(match[1]), int(match[2]))
        if version >= MINIMUM_CMAKE:
            return
        found.append(f"{version[0]}.{version[1]}")
    minimum = f"{MINIMUM_CMAKE[0]}.{MINIMUM_CMAKE[1]}"
    raise SdkError(
        f"CMake {minimum} or newer is needed, found {found[0] if found else 'none'}: "
        f"build without --no-build-isolation or run `pip install 'cmake>={minimum}'`."
    )


class _Pins(TypedDict):
    version: str
    wheels: dict[str, dict[str, str]]


def _pins() -> _Pins:
    pins: _Pins = json.loads(PINS_FILE.read_text(encoding="utf-8"))
    return pins


def _cmake_programs() -> list[str]:
    programs = [shutil.which("cmake"), shutil.which("cmake3")]
    try:
        folder = getattr(importlib.import_module("cmake"), "CMAKE_BIN_DIR", None)
    except ImportError:
        folder = None
    if folder:  # the Python package, which is not on the PATH when the environment is not activated
        programs.insert(0, str(Path(folder) / "cmake"))
    return [program for program in programs if program]


def _cache_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "executorch_mm" / "sdk"


def _fetch(pin: Pin, target: Path) -> None:
    """Download, check and unpack into `target`, which appears whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-")
    except OSError as error:
        raise SdkError(
            f"the cache folder {target.parent} cannot be written ({error.strerror}): set XDG_CACHE_HOME, "
            f"or {OVERRIDE} to an unpacked ExecuTorch SDK."
        ) from None
    with scratch:
        wheel = _download(pin, Path(scratch.name))
        _check_hash(wheel, pin)
        unpacked = Path(scratch.name) / "sdk"
        _unpack(wheel, unpacked)
        try:
            unpacked.rename(target)
        except OSError:
            if not target.is_dir():  # another build was faster: its copy is as good
                raise


def _download(pin: Pin, folder: Path) -> Path:
    """The path of the pinned wheel in `folder`; pip brings its index settings, certificates and proxies."""
    requirement = f"executorch=={pin.version}"
    options = ["--disable-pip-version-check", "--no-input", "--quiet", "--no-deps", "--only-binary=:all:"]
    wanted = ["--python-version", pin.python, "--implementation", "cp", "--platform", pin.platform]
    command = [sys.executable, "-m", "pip", "download", *options, *wanted]
    command += ["--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("executorch-*.whl"))
    if result.returncode != 0 or not wheels:
        lines = result.stderr.strip().splitlines() or [f"pip exited with {result.returncode}"]
        reason = [line for line in lines if line.startswith("ERROR:")] or lines
        raise SdkError(
            f"the ExecuTorch SDK ({requirement}, {pin.platform}) could not be downloaded: "
            f"connect to the network or set {OVERRIDE} to an unpacked SDK "
            f"(pip said: {reason[-1].rstrip('.')})."
        )
    return wheels[0]


def _check_hash(wheel: Path, pin: Pin) -> None:
    with wheel.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != pin.sha256:
        raise SdkError(
            f"{wheel.name} has the wrong sha256 and is not used: "
            f"expected {pin.sha256}, got {digest.hexdigest()}."
        )


def _unpack(wheel: Path, target: Path) -> None:
    """Extract the SDK's folders and the licence; the rest of the wheel is Python that we do not need."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = PurePosixPath(name)
            if name.endswith("/") or ".." in path.parts:
                continue
            if path.parts[0] == "executorch" and len(path.parts) > 2 and path.parts[1] in SDK_FOLDERS:
                destination = target.joinpath(*path.parts[1:])
            elif path.parts[0].endswith(".dist-info") and path.name == "LICENSE":
                destination = target / "LICENSE"
            else:
                continue
            destination.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, destination.open("wb") as copy:
                shutil.copyfileobj(source, copy)


if __name__ == "__main__":
    try:
        print(locate())  # noqa: T201
    except SdkError as error:
        raise SystemExit(f"executorch_mm: {error}") from None
