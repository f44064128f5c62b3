"""The PEP 517 build backend: scikit-build-core, with the pinned ExecuTorch SDK put in front of CMake.

The SDK is not a build requirement because that would install 700 MB for 16 MB of libraries; see `sdk.py`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias
from zipfile import ZipFile

from emm_build import sdk

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ConfigSettings: TypeAlias = "dict[str, list[str] | str] | None"


def get_requires_for_build_sdist(config_settings: ConfigSettings = None) -> list[str]:
    """What an sdist needs beyond build-system.requires."""
    from scikit_build_core import build

    return build.get_requires_for_build_sdist(config_settings)


def get_requires_for_build_wheel(config_settings: ConfigSettings = None) -> list[str]:
    """What a wheel needs beyond build-system.requires: CMake, where the system's is missing or too old."""
    from scikit_build_core import build

    with _one_sentence_errors():
        sdk.check_platform()
    return build.get_requires_for_build_wheel(config_settings)


def get_requires_for_build_editable(config_settings: ConfigSettings = None) -> list[str]:
    """What an editable install needs beyond build-system.requires."""
    from scikit_build_core import build

    with _one_sentence_errors():
        sdk.check_platform()
    return build.get_requires_for_build_editable(config_settings)


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: ConfigSettings = None) -> str:
    """Write the dist-info folder, which does not need the SDK."""
    from scikit_build_core import build

    with _one_sentence_errors():
        sdk.check_cmake()
    return build.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(
    metadata_directory: str, config_settings: ConfigSettings = None
) -> str:
    """Write the dist-info folder, which does not need the SDK."""
    from scikit_build_core import build

    with _one_sentence_errors():
        sdk.check_cmake()
    return build.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def build_sdist(sdist_directory: str, config_settings: ConfigSettings = None) -> str:
    """Pack the sources; needs neither CMake nor the SDK."""
    from scikit_build_core import build

    return build.build_sdist(sdist_directory, config_settings)


def build_wheel(
    wheel_directory: str, config_settings: ConfigSettings = None, metadata_directory: str | None = None
) -> str:
    """Fetch the SDK if it is not cached and build a wheel against it."""
    from scikit_build_core import build

    name = build.build_wheel(wheel_directory, _with_sdk(config_settings), metadata_directory)
    compress(Path(wheel_directory, name))
    return name


def compress(wheel: Path) -> None:
    """Write a wheel anew, as small as zlib can: 0.3 % less than by default, and the wheel is to be small.

    Args:
        wheel: The file.
    """
    smaller = wheel.with_suffix(".smaller")
    with ZipFile(wheel) as old, ZipFile(smaller, "w") as new:
        for info in old.infolist():
            new.writestr(info, old.read(info), info.compress_type, 9)
    smaller.replace(wheel)


def build_editable(
    wheel_directory: str, config_settings: ConfigSettings = None, metadata_directory: str | None = None
) -> str:
    """Fetch the SDK if it is not cached and build an editable wheel against it."""
    from scikit_build_core import build

    return build.build_editable(wheel_directory, _with_sdk(config_settings), metadata_directory)


def _with_sdk(config_settings: ConfigSettings) -> dict[str, list[str] | str]:
    """The same settings with the folder of the SDK added as a CMake definition."""
    with _one_sentence_errors():
        sdk.check_cmake()
        folder = sdk.locate()
    if sys.platform == "darwin":
        # The SDK's libraries are built for this version; the wheel's tag has to say so.
        os.environ.setdefault("MACOSX_DEPLOYMENT_TARGET", "14.0")
    return {**(config_settings or {}), "cmake.define.EXECUTORCH_MM_SDK": str(folder)}


@contextlib.contextmanager
def _one_sentence_errors() -> Iterator[None]:
    """Turn an SdkError into an exit with its one sentence: build front ends print it without a traceback."""
    try:
        yield
    except sdk.SdkError as error:
        raise SystemExit(f"executorch_mm: {error}") from None
