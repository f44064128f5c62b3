"""The PEP 517 hooks add the SDK to scikit-build-core's and turn its errors into one line."""

from __future__ import annotations

import sys
import sysconfig
import types
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import emm_build
import pytest
from emm_build import sdk

WHEEL_HOOKS = ["build_wheel", "build_editable"]
REQUIRES_HOOKS = ["get_requires_for_build_wheel", "get_requires_for_build_editable"]


class RecordingBackend(types.ModuleType):
    """Stands in for scikit_build_core.build: each hook notes its settings."""

    def __init__(self) -> None:
        super().__init__("scikit_build_core.build")
        self.calls: list[tuple[str, object]] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        settings_index = 0 if name.startswith("get_requires") else 1

        def hook(*arguments: object) -> str:
            self.calls.append((name, arguments[settings_index]))
            return name

        return hook


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> RecordingBackend:
    package = types.ModuleType("scikit_build_core")
    recorder = RecordingBackend()
    package.build = recorder  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scikit_build_core", package)
    monkeypatch.setitem(sys.modules, "scikit_build_core.build", recorder)
    monkeypatch.setattr(sdk, "check_cmake", lambda: None)
    monkeypatch.delenv(sdk.OVERRIDE, raising=False)
    monkeypatch.setattr(emm_build, "compress", lambda _: None)
    return recorder


@pytest.mark.parametrize("hook", WHEEL_HOOKS)
def test_a_build_hands_the_sdk_to_cmake_and_keeps_the_settings_of_the_caller(
    backend: RecordingBackend, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    monkeypatch.setattr(sdk, "locate", lambda: Path("/an/sdk"))
    settings: dict[str, list[str] | str] = {"cmake.define.EMM_WERROR": "ON"}

    assert getattr(emm_build, hook)("dist", settings) == hook

    expected = {"cmake.define.EMM_WERROR": "ON", "cmake.define.EXECUTORCH_MM_SDK": "/an/sdk"}
    assert backend.calls == [(hook, expected)]
    assert settings == {"cmake.define.EMM_WERROR": "ON"}


@pytest.mark.parametrize("hook", WHEEL_HOOKS)
def test_a_failed_fetch_ends_the_build_with_one_line_and_no_traceback(
    backend: RecordingBackend, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    def fail() -> Path:
        raise sdk.SdkError("no network.")

    monkeypatch.setattr(sdk, "locate", fail)

    with pytest.raises(SystemExit) as caught:
        getattr(emm_build, hook)("dist")

    assert caught.value.code == "executorch_mm: no network."
    assert caught.value.__suppress_context__
    assert backend.calls == []


@pytest.mark.parametrize("hook", REQUIRES_HOOKS)
def test_an_unsupported_platform_is_refused_before_anything_is_installed(
    backend: RecordingBackend, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    monkeypatch.setattr(sysconfig, "get_platform", lambda: "win-amd64")

    with pytest.raises(SystemExit, match="Windows is not supported"):
        getattr(emm_build, hook)()

    assert backend.calls == []


@pytest.mark.parametrize("hook", REQUIRES_HOOKS)
def test_someone_who_brings_an_sdk_is_not_asked_for_the_platform(
    backend: RecordingBackend, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    monkeypatch.setattr(sysconfig, "get_platform", lambda: "linux-riscv64")
    monkeypatch.setenv(sdk.OVERRIDE, "/an/sdk")

    getattr(emm_build, hook)()

    assert backend.calls == [(hook, None)]


def test_an_sdist_needs_no_sdk(backend: RecordingBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_platform", lambda: "win-amd64")

    assert emm_build.build_sdist("dist") == "build_sdist"
    assert backend.calls == [("build_sdist", None)]


@pytest.mark.parametrize("hook", ["prepare_metadata_for_build_wheel", "prepare_metadata_for_build_editable"])
def test_a_too_old_cmake_is_reported_by_the_first_hook_that_pip_calls(
    backend: RecordingBackend, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    def fail() -> None:
        raise sdk.SdkError("CMake 3.28 or newer is needed.")

    monkeypatch.setattr(sdk, "check_cmake", fail)

    with pytest.raises(SystemExit, match=r"^executorch_mm: CMake 3\.28 or newer is needed\.$"):
        getattr(emm_build, hook)("metadata")


def test_a_wheel_is_made_smaller_and_stays_what_it_was(tmp_path: Path) -> None:
    content = bytes(i * i % 251 for i in range(1 << 18)) + bytes(1 << 16)
    wheel = tmp_path / "some.whl"
    moment = (2020, 1, 2, 3, 4, 6)  # of even seconds: a ZIP knows no others
    with ZipFile(wheel, "w") as file:
        file.writestr(ZipInfo("module.so", moment), content, ZIP_DEFLATED, 1)
        file.writestr(ZipInfo("RECORD", moment), b"x")
        before = file.infolist()
    size = wheel.stat().st_size

    emm_build.compress(wheel)

    assert wheel.stat().st_size < size
    assert [path.name for path in tmp_path.iterdir()] == ["some.whl"]
    with ZipFile(wheel) as file:
        assert file.read("module.so") == content
        kept = [(info.filename, info.date_time, info.external_attr, info.CRC) for info in file.infolist()]
        assert kept == [(info.filename, info.date_time, info.external_attr, info.CRC) for info in before]
