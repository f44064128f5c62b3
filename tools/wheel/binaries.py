"""What readelf (Linux) and otool (macOS) say of the binaries in a wheel."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

# Present wherever the wheel can be installed; anything else would have to come with us.
SYSTEM_LIBRARY = re.compile(
    r"(lib(c|m|dl|pthread|rt|gcc_s|stdc\+\+)|ld-linux-[\w-]+)\.so\.\d+$|/usr/lib/|/System/"
)
# The newest symbol versions of manylinux_2_28 (AlmaLinux 8).
NEWEST_VERSIONS = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}


class CheckError(Exception):
    """A check failed; the message says what was expected and what was found."""


def expect(condition: bool, otherwise: str) -> None:
    """Raises CheckError with the text unless the condition holds."""
    if not condition:
        raise CheckError(otherwise)


def check_linking(module: Path, libraries: list[Path]) -> str:
    """The libraries have names of ours, the module needs each, and all look only beside themselves."""
    names = {path.name for path in libraries}
    expect(all(name.startswith("libemm_") for name in names), f"not renamed: {sorted(names)}")
    read = _read_macho if ".dylib" in "".join(names) else _read_elf
    for path in [module, *libraries]:
        name, search, needed = read(path)
        if path is module:
            expect(names <= needed, f"the module does not need {sorted(names - needed)}")
        else:
            expect(name == path.name, f"{path.name} calls itself {name}")
        expect(search <= {"$ORIGIN", "@loader_path"}, f"{path.name} looks in {sorted(search)}")
        foreign = {other for other in needed - names if not SYSTEM_LIBRARY.match(other)}
        expect(not foreign, f"{path.name} needs {sorted(foreign)}")
    return f"{len(libraries)} libraries under names of ours, found beside the module"


def _read_elf(path: Path) -> tuple[str, set[str], set[str]]:
    """SONAME, the folders that are searched, and what is needed."""
    text = _run("readelf", "-dW", str(path))
    entries: dict[str, set[str]] = {"NEEDED": set(), "SONAME": set(), "RUNPATH": set(), "RPATH": set()}
    for kind, value in re.findall(r"\((NEEDED|SONAME|RUNPATH|RPATH)\).*\[(.*)\]", text):
        entries[kind].add(value)
    expect(not entries["RPATH"], f"{path.name} has an RPATH, which comes before LD_LIBRARY_PATH")
    expect(bool(entries["RUNPATH"]), f"{path.name} has no RUNPATH")
    return next(iter(entries["SONAME"]), ""), entries["RUNPATH"], entries["NEEDED"]


def _read_macho(path: Path) -> tuple[str, set[str], set[str]]:
    text = _run("otool", "-l", str(path))
    found = {
        command: re.findall(rf"cmd {command}\n.*\n\s+(?:name|path) (\S+)", text)
        for command in ("LC_ID_DYLIB", "LC_RPATH", "LC_LOAD_DYLIB")
    }
    needed = {name.removeprefix("@rpath/").removeprefix("@loader_path/") for name in found["LC_LOAD_DYLIB"]}
    return Path(next(iter(found["LC_ID_DYLIB"]), "")).name, set(found["LC_RPATH"]), needed


def check_symbol_versions(module: Path, libraries: list[Path], platform: str) -> str:
    """Nothing asks for a newer symbol than manylinux_2_28 has, but for a module of another platform tag."""
    newest: dict[str, tuple[int, ...]] = {}
    for path in [*libraries, module]:
        for kind, number in re.findall(
            r"Name: (GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+) ", _run("readelf", "-VW", str(path))
        ):
            version = tuple(int(part) for part in number.split("."))
            newest[kind] = max(newest.get(kind, (0,)), version)
            if path is not module or "manylinux_2_28" in platform:
                is_old = version <= NEWEST_VERSIONS[kind]
                expect(is_old, f"{path.name} needs {kind}_{number}, newer than manylinux_2_28 has")
    expect("GLIBC" in newest, "no symbol versions were found: is readelf's output still what it was?")
    names = [f"{kind}_{'.'.join(map(str, version))}" for kind, version in sorted(newest.items())]
    return f"the libraries fit manylinux_2_28; newest of all {', '.join(names)}"


def check_macos_target(paths: list[Path], platform: str) -> str:
    """No binary asks for a newer macOS than the tag."""
    tag = re.match(r"macosx_(\d+)_(\d+)_", platform)
    assert tag is not None
    allowed = (int(tag[1]), int(tag[2]))
    for path in paths:
        for major, minor in re.findall(r"minos (\d+)\.(\d+)", _run("otool", "-l", str(path))):
            expect(
                (int(major), int(minor)) <= allowed,
                f"{path.name} needs macOS {major}.{minor}, the tag says {allowed}",
            )
    return f"nothing needs a newer macOS than {allowed[0]}.{allowed[1]}"


def _run(program: str, *arguments: str) -> str:
    try:
        return subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise CheckError(f"{program} is not installed") from None
