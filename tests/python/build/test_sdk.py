"""How the build gets the ExecuTorch SDK: no test here uses the network."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from emm_build import sdk

CONFIG = "share/cmake/executorch-config.cmake"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A small wheel with the layout of upstream's."""
    path = tmp_path / "executorch-1.5.1-cp311-cp311-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"executorch/{CONFIG}", "config")
        archive.writestr("executorch/include/executorch/runtime.h", "header")
        archive.writestr("executorch/lib/libexecutorch.so", "library")
        archive.writestr("executorch/exir/__init__.py", "python")
        archive.writestr("executorch/include/../../../escaped.h", "outside")
        archive.writestr("executorch-1.5.1.dist-info/licenses/LICENSE", "licence")
    return path


@pytest.fixture
def pip_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: Path) -> list[list[str]]:
    """Replaces pip by a copy of `wheel`, pins its hash, and returns the command lines that were run."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        destination = Path(command[command.index("--dest") + 1])
        (destination / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(sdk.subprocess, "run", run)
    monkeypatch.delenv(sdk.OVERRIDE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    set_platform(monkeypatch, "linux-x86_64")
    pin_hash(monkeypatch, tmp_path, hashlib.sha256(wheel.read_bytes()).hexdigest())
    return calls


def pin_hash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sha256: str) -> None:
    pins = json.loads(sdk.PINS_FILE.read_text())
    pins["wheels"]["linux-x86_64"]["sha256"] = sha256
    path = tmp_path / "pins.json"
    path.write_text(json.dumps(pins))
    monkeypatch.setattr(sdk, "PINS_FILE", path)


def set_platform(monkeypatch: pytest.MonkeyPatch, name: str, host: str = "x86_64-pc-linux-gnu") -> None:
    monkeypatch.setattr(sysconfig, "get_platform", lambda: name)
    monkeypatch.setattr(sysconfig, "get_config_var", lambda key: host if key == "HOST_GNU_TYPE" else None)


def assert_one_sentence(message: str) -> None:
    assert "\n" not in message
    assert message.endswith(".")
    assert ". " not in message


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_sdk_is_fetched_once_and_holds_only_its_folders_and_the_licence(
    pip_calls: list[list[str]], tmp_path: Path
) -> None:
    folder = sdk.locate()

    assert files_in(folder) == ["LICENSE", "include/executorch/runtime.h", "lib/libexecutorch.so", CONFIG]
    assert folder.is_relative_to(tmp_path / "cache" / "executorch_mm")
    assert sdk.locate() == folder
    assert len(pip_calls) == 1
    assert list(folder.parent.iterdir()) == [folder]


def test_pip_is_asked_for_the_pinned_wheel_of_the_platform_alone(pip_calls: list[list[str]]) -> None:
    sdk.locate()

    (command,) = pip_calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:"} < set(command)
    assert command[command.index("--platform") + 1] == "manylinux_2_28_x86_64"
    assert command[-1] == "executorch==1.5.1"


def test_a_wheel_with_the_wrong_hash_is_refused_and_leaves_nothing_behind(
    pip_calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wheel: Path
) -> None:
    actual = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pin_hash(monkeypatch, tmp_path, "0" * 64)

    with pytest.raises(sdk.SdkError) as caught:
        sdk.locate()

    assert_one_sentence(str(caught.value))
    assert f"expected {'0' * 64}, got {actual}" in str(caught.value)
    assert files_in(tmp_path / "cache") == []


def test_an_interrupted_unpacking_leaves_no_half_sdk(
    pip_calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(sdk.shutil, "copyfileobj", fail)
        with pytest.raises(OSError, match="disk full"):
            sdk.locate()

    assert files_in(tmp_path / "cache") == []
    assert files_in(sdk.locate()) != []


def test_the_copy_of_a_faster_build_is_used(
    pip_calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack = sdk._unpack
    winner: list[Path] = []

    def unpack_while_another_build_finishes(wheel: Path, target: Path) -> None:
        unpack(wheel, target)
        if not winner:
            winner.append(target)
            sdk.locate()

    monkeypatch.setattr(sdk, "_unpack", unpack_while_another_build_finishes)

    assert "LICENSE" in files_in(sdk.locate())
    assert len(pip_calls) == 2


def test_without_a_network_the_error_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_platform(monkeypatch, "linux-x86_64")
    monkeypatch.delenv(sdk.OVERRIDE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(sdk.SdkError, match=sdk.OVERRIDE) as caught:
        sdk.locate()

    assert_one_sentence(str(caught.value))
    assert "could not be downloaded" in str(caught.value)
    assert files_in(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named(
    pip_calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    with pytest.raises(sdk.SdkError, match="XDG_CACHE_HOME") as caught:
        sdk.locate()

    assert_one_sentence(str(caught.value))
    assert pip_calls == []


def test_the_environment_variable_overrides_the_download(
    pip_calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    (local / CONFIG).parent.mkdir(parents=True)
    (local / CONFIG).write_text("")
    monkeypatch.setenv(sdk.OVERRIDE, str(local))

    assert sdk.locate() == local
    assert pip_calls == []


def test_an_override_that_is_no_sdk_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(sdk.OVERRIDE, str(tmp_path))

    with pytest.raises(sdk.SdkError, match="is not an ExecuTorch SDK") as caught:
        sdk.locate()

    assert_one_sentence(str(caught.value))


@pytest.mark.parametrize(
    ("name", "host", "words"),
    [
        ("win-amd64", "", "Windows is not supported"),
        ("linux-x86_64", "x86_64-pc-linux-musl", "musl-based Linux is not supported"),
        ("macosx-11.0-x86_64", "", "macOS on x86_64 is not supported"),
        ("linux-riscv64", "riscv64-unknown-linux-gnu", "linux-riscv64 is not supported"),
        ("freebsd-14.1-release-amd64", "", "freebsd-14.1-release-amd64 is not supported"),
    ],
)
def test_an_unsupported_platform_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, name: str, host: str, words: str
) -> None:
    set_platform(monkeypatch, name, host)

    with pytest.raises(sdk.SdkError, match=words) as caught:
        sdk.platform_key()

    assert_one_sentence(str(caught.value))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("linux-x86_64", "linux-x86_64"),
        ("linux-aarch64", "linux-aarch64"),
        ("macosx-14.0-arm64", "macosx-arm64"),
        ("macosx-10.9-universal2", "macosx-arm64"),
    ],
)
def test_each_supported_platform_has_a_complete_pin(
    monkeypatch: pytest.MonkeyPatch, name: str, key: str
) -> None:
    set_platform(monkeypatch, name)
    monkeypatch.setattr(sdk.platform, "machine", lambda: "arm64")

    assert sdk.platform_key() == key
    pin = sdk.read_pin(key)
    assert pin.version == "1.5.1"
    assert len(bytes.fromhex(pin.sha256)) == 32


@pytest.fixture
def fake_cmake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """A function that makes a `cmake` with the given version the only one to be found."""
    monkeypatch.setitem(sys.modules, "cmake", None)
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(version: str) -> None:
        program = tmp_path / "cmake"
        program.write_text(f"#!/bin/sh\necho 'cmake version {version}'\n")
        program.chmod(0o755)

    return install


@pytest.mark.parametrize("version", ["3.28.0", "3.31.8", "4.0.1", "10.0.0"])
def test_a_cmake_that_is_new_enough_passes(fake_cmake: Callable[[str], None], version: str) -> None:
    fake_cmake(version)

    sdk.check_cmake()


@pytest.mark.parametrize(("version", "found"), [("3.27.9", "found 3.27"), ("3.9.0", "found 3.9")])
def test_a_cmake_that_is_too_old_is_refused_in_one_sentence(
    fake_cmake: Callable[[str], None], version: str, found: str
) -> None:
    fake_cmake(version)

    with pytest.raises(sdk.SdkError, match=found) as caught:
        sdk.check_cmake()

    assert_one_sentence(str(caught.value))


def test_a_missing_cmake_is_refused_in_one_sentence(fake_cmake: Callable[[str], None]) -> None:
    with pytest.raises(sdk.SdkError, match="found none") as caught:
        sdk.check_cmake()

    assert_one_sentence(str(caught.value))
